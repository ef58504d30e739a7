#define AESNI_OPS aes_ops_aesni_vex
#define AESNI_NAME "aesni-vex"
#include "simd/aesni_body.h"
