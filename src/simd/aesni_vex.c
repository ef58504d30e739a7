#define AESNI_OPS aes_ops_aesni_vex
#define AESNI_NAME "aesni-vex"
#define AESNI_CPU (AES_CPU_AESNI | AES_CPU_AVX)
#include "simd/aesni_body.h"
