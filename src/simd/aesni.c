#define AESNI_OPS aes_ops_aesni
#define AESNI_NAME "aesni"
#include "simd/aesni_body.h"
