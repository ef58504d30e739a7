#define AESNI_OPS aes_ops_aesni
#define AESNI_NAME "aesni"
#define AESNI_CPU AES_CPU_AESNI
#include "simd/aesni_body.h"
