// The tables that are built in. Private to simd/.
#pragma once
#include "simd/aes.h"

extern const struct aes_ops aes_ops_ref;
#if defined(__x86_64__)
#include "simd/cpu_x86.h"

extern const struct aes_ops aes_ops_aesni, aes_ops_aesni_vex, aes_ops_vaes256, aes_ops_vaes512, aes_ops_vaes512_x2;
#elif defined(__aarch64__)
extern const struct aes_ops aes_ops_armv8;
#endif
