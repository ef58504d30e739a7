#include "keys/xml.h"

#include "keys/wiping.h"

// What expat may ask for, all of one document together: for the parser, and for each byte several times what documents of nothing but
// names need. It writes out each attribute's name with its namespace, so that n bytes could become n * n.
enum { MEMORY = 1 << 20, MEMORY_EACH = 64 };

// For the document at hand: a thread reads one after the other, and expat gives its memory functions nothing else to tell them apart.
static _Thread_local size_t memory_left;

static bool spend(size_t n) {
  size_t left = memory_left;
  memory_left = n < left ? left - n : 0; // for good: who was refused is not to go on with less
  return n < left;
}

static void *spending_malloc(size_t n) { return spend(n) ? wiping_malloc(n) : NULL; }

static void *spending_realloc(void *p, size_t n) { return spend(n) ? wiping_realloc(p, n) : NULL; }

// A DTD is the door of entity bombs and external entities: no document of ours has one.
static void no_doctype(void *parser, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal) {
  (void)name, (void)sysid, (void)pubid, (void)internal;
  XML_StopParser(parser, XML_FALSE);
}

XML_Parser xml_parser(size_t len) {
  static const XML_Memory_Handling_Suite mm = {spending_malloc, spending_realloc, wiping_free};
  memory_left = MEMORY + MEMORY_EACH * len;
  XML_Parser p = XML_ParserCreate_MM(NULL, &mm, "|");
  if (p) {
    XML_UseParserAsHandlerArg(p);
    XML_SetStartDoctypeDeclHandler(p, no_doctype);
  }
  return p;
}

uint64_t xml_at(XML_Parser p) {
#if XML_MAJOR_VERSION > 2 || XML_MINOR_VERSION >= 9 // which deprecates the other
  int64_t at = XML_GetCurrentByteIndex64(p);
#else
  XML_Index at = XML_GetCurrentByteIndex(p);
#endif
  return at > 0 ? (uint64_t)at : 0;
}

bool xml_is_fragment(struct bytes text, const char *open, const char *close) {
  XML_Parser p = text.n <= INT32_MAX ? xml_parser(text.n) : NULL;
  if (!p)
    return false;
  bool ok = XML_Parse(p, open, (int)strlen(open), 0) == XML_STATUS_OK &&
            XML_Parse(p, (const char *)text.p, (int)text.n, 0) == XML_STATUS_OK &&
            XML_Parse(p, close, (int)strlen(close), 1) == XML_STATUS_OK;
  XML_ParserFree(p);
  return ok;
}

enum err xml_run(XML_Parser p, struct bytes doc, struct diag *diag) {
  if (doc.n > INT32_MAX)
    return diag_say(diag, ERR_LIMIT, "the document is too long");
  if (XML_Parse(p, (const char *)doc.p, (int)doc.n, 1) == XML_STATUS_OK)
    return ERR_OK;
  uint64_t at = xml_at(p);
  enum XML_Error why = XML_GetErrorCode(p);
  if (diag->err)
    return diag->err;
  if (why == XML_ERROR_ABORTED)
    return diag_set(diag, ERR_SYNTAX, at, "the document has a DTD: none is accepted");
  if (why == XML_ERROR_NO_MEMORY && !memory_left)
    return diag_set(diag, ERR_LIMIT, at, "the document takes too much memory: its namespaces are too long, or it has too many names");
  if (why == XML_ERROR_NO_MEMORY)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  return diag_set(diag, ERR_SYNTAX, at, "not well-formed XML: %.80s", XML_ErrorString(why));
}
