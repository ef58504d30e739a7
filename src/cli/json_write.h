// JSON that is written to standard output piece by piece, without memory for the whole.
#pragma once
#include "base/bytes.h"

// json_write_uint writes a member: from 2^63 on a string, for other readers' integers end there. json_write_text writes what is not
// printable ASCII as '?'; json_write_utf8 what is not UTF-8 (RFC 8259 section 8.1): names in a file system are arbitrary bytes.
void json_write_uint(const char *name, uint64_t v);
void json_write_text(struct bytes b);
void json_write_utf8(struct bytes b);
void json_write_hex(struct bytes b);
