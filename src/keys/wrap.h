// The master secret at rest, wrapped under a key encryption key (KEK): AES-256 key wrap with padding (RFC 5649), which is
// what HSMs and `openssl enc -id-aes256-wrap-pad` speak too. One line of text:
//
//   sluice-wrapped-secret A256KWP BASE64
//
// Derived keys depend on the secret alone: wrapping it anew changes none. Test vectors: docs/keys.md.
#pragma once
#include "keys/keys.h"

enum { KEK_BYTES = 32, KEK_MAX_FILE = 256, WRAPPED_MAX_FILE = 2048 };

// secret_is_wrapped says whether a secret file is such a line.
bool secret_is_wrapped(struct bytes file);

// kek_read takes a KEK from its file: 32 bytes as they are, or 64 hex digits, with or without a line feed.
// Errors: ERR_ARGUMENT.
MUST_USE enum err kek_read(uint8_t kek[KEK_BYTES], struct bytes file, struct diag *diag);

// secret_wrap appends the line. Errors: ERR_ARGUMENT (the secret has not 16 to 1024 bytes).
MUST_USE enum err secret_wrap(struct writer *w, struct bytes secret, const uint8_t kek[KEK_BYTES], struct diag *diag);

// secret_unwrap gives the secret of a wrapped file. Nothing is written when it fails. Errors: ERR_SYNTAX,
// ERR_CHECKSUM (another KEK, or altered), ERR_ARGUMENT.
MUST_USE enum err secret_unwrap(uint8_t out[KEYS_MAX_SECRET], size_t *out_len, struct bytes file,
                                const uint8_t kek[KEK_BYTES], struct diag *diag);
