// Inside of keys/: expat as documents need it. Memory that it frees is overwritten (keys pass through it), DTDs stop it.
#pragma once
#include "base/err.h"

#include <expat.h>

// xml_parser makes a parser with namespaces for a document of `len` bytes, which bounds its memory: names read "namespace|local". A
// thread has one at a time. NULL when out of memory.
XML_Parser xml_parser(size_t len);

// xml_at says at which byte of the document the parser is.
uint64_t xml_at(XML_Parser p);

// xml_is_fragment says whether `text` is well-formed and balanced between the start tag `open` and its end tag `close`: what
// closes that element early, or is a declaration, is not.
bool xml_is_fragment(struct bytes text, const char *open, const char *close);

// xml_run parses a whole document; handlers stop the parser with XML_StopParser after setting `diag`.
// Errors: ERR_LIMIT (the document is too long, or takes too much memory), ERR_NO_MEMORY, ERR_SYNTAX with expat's reason, or what the handlers set in diag->err.
MUST_USE enum err xml_run(XML_Parser p, struct bytes doc, struct diag *diag);
