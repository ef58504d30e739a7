// Text forms of bytes: hex, base64 (RFC 4648 §4 with padding, §5 base64url without), UUID; numbers; paths and names in them.
#pragma once
#include "base/err.h"
#include "base/writer.h"

// hex_write appends 2n lower-case digits; hex_write_upper upper-case ones.
void hex_write(struct writer *w, struct bytes b);
void hex_write_upper(struct writer *w, struct bytes b);

// hex_read parses exactly 2 * out_len digits of either case; dashes are skipped, so a UUID is accepted.
// Errors: ERR_SYNTAX; `out` is untouched then.
MUST_USE enum err hex_read(uint8_t *out, size_t out_len, struct bytes text);

// base64_write appends standard base64 with padding; base64url_write the URL alphabet without padding.
void base64_write(struct writer *w, struct bytes b);
void base64url_write(struct writer *w, struct bytes b);

// base64_read accepts either alphabet, padded or not. `*out_len` is the capacity on entry, the length on return.
// Errors: ERR_SYNTAX, ERR_NO_SPACE.
MUST_USE enum err base64_read(uint8_t *out, size_t *out_len, struct bytes text);

// uuid_write appends the 8-4-4-4-12 lower-case form of 16 bytes.
void uuid_write(struct writer *w, const uint8_t uuid[16]);

// parse_u64 reads a whole decimal number without sign or blanks. Errors: ERR_SYNTAX, ERR_OVERFLOW.
MUST_USE enum err parse_u64(uint64_t *out, struct bytes text);

// utf8_next steps over one code point of well-formed UTF-8 (RFC 3629); a malformed byte is stepped over alone and
// gives U+FFFD. `text` is not empty.
uint32_t utf8_next(struct bytes *text);

// text_blank says whether there is nothing but white space and zeros, which a power cut leaves.
bool text_blank(struct bytes text);

// text_tame makes '?' of each byte of a line's text that a terminal takes for an order or a reader for the line's end: of control
// characters (C0, DEL, and C1, which have two bytes in UTF-8) and of what is not UTF-8. All other text stays.
void text_tame(char *text, size_t n);

// For a name that was mistyped: word_nearer says whether `name` is more like `word` than what *best is of, and keeps that; word_bound
// gives what *best is at first, so that what is not like it at all is left out.
unsigned word_bound(const char *word);
bool word_nearer(const char *word, const char *name, unsigned *best);

// is_yaml_null says whether a plain scalar is YAML's word for no value (1.2 §10.3.2).
bool is_yaml_null(struct bytes text);

// An anchor or a tag that no value follows is a plain scalar of length 0 that takes room, to libyaml, whose event or node has `scalar` and
// marks; and what is said of it.
#define YAML_IS_LONE(scalar, from, to) ((scalar).style == YAML_PLAIN_SCALAR_STYLE && !(scalar).length && (from).index != (to).index)
#define YAML_LONE "an anchor (&name) or a tag (!name) stands before no value: write the value, or leave it out"

// yaml_fault says what libyaml found (NULL: no words), so that who wrote a tab knows it.
const char *yaml_fault(const char *problem);

// url_name_fault says why no URL can have this name as a segment of its path; NULL: one can.
enum { URL_NAME_MAX = 255 };
static inline const char *url_name_fault(struct bytes name) {
  if (name.n == 0)
    return "it is empty";
  if (name.n > URL_NAME_MAX)
    return "it is longer than 255 bytes";
  if (name.p[0] == '.')
    return "it begins with a dot";
  for (size_t i = 0; i < name.n; i++)
    if (name.p[i] < 0x20 || name.p[i] == 0x7f)
      return "it has a control character";
  return NULL;
}

// path_folder cuts a path to the folder that its last name is in: "a/b" gives "a", "/b" gives "/", "b" gives ".".
struct bytes path_folder(struct bytes path);

// path_folder_text is the same as a string, to free. NULL: no memory.
char *path_folder_text(struct bytes path);
