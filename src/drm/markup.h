// Text forms that playlists, MPDs and key documents share. Input is arbitrary bytes; output is always well-formed.
#pragma once
#include "base/text.h"
#include "base/writer.h"
#include "drm/drm.h"

// xml_write appends UTF-8 text for element content and quoted attributes: & < > " ' and line breaks become references;
// what XML 1.0 cannot hold (other control bytes, malformed UTF-8, U+FFFE, U+FFFF) becomes U+FFFD.
void xml_write(struct writer *w, struct bytes text);

// percent_write appends the RFC 3986 form in which only unreserved characters stay, and '/' where `keep_slash`.
void percent_write(struct writer *w, struct bytes text, bool keep_slash);

// hls_quoted_write appends text for a quoted-string of a playlist: double quotes and control bytes are
// percent-encoded. Source: RFC 8216bis §4.2.
void hls_quoted_write(struct writer *w, struct bytes text);

enum { TEMPLATE_MAX = 8192 };

// template_expand expands {kid} {KID} {asset} {epoch} {scheme} {label} (drm/drm.h) into `out`; an expansion that does
// not fit gives an empty slice.
struct bytes template_expand(uint8_t out[TEMPLATE_MAX], struct bytes tmpl, const struct key_record *key);

// template_unknown finds the first {name} of a template that stands for nothing: a player would get it as it is. Braces around
// other text than letters, digits, '_', '-', '.' and blanks are taken for text (JSON in a content_id). Empty: there is none.
struct bytes template_unknown(struct bytes tmpl);

#define TEMPLATE_NAMES "{kid} {KID} {asset} {epoch} {scheme} {label}"

// pssh_write appends one pssh box: version 1 with `num_kids` KIDs, or version 0 where num_kids is 0.
// Source: ISO/IEC 23001-7 §8.1.1.
void pssh_write(struct writer *w, const uint8_t system_id[16], const uint8_t (*kids)[16], uint32_t num_kids,
                struct bytes data);
