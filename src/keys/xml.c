#include "keys/xml.h"

#include "keys/wiping.h"

// A DTD is the door of entity bombs and external entities: no document of ours has one.
static void no_doctype(void *parser, const XML_Char *name, const XML_Char *sysid, const XML_Char *pubid, int internal) {
  (void)name, (void)sysid, (void)pubid, (void)internal;
  XML_StopParser(parser, XML_FALSE);
}

XML_Parser xml_parser(void) {
  static const XML_Memory_Handling_Suite mm = {wiping_malloc, wiping_realloc, wiping_free};
  XML_Parser p = XML_ParserCreate_MM(NULL, &mm, "|");
  if (p) {
    XML_UseParserAsHandlerArg(p);
    XML_SetStartDoctypeDeclHandler(p, no_doctype);
  }
  return p;
}

bool xml_is_fragment(struct bytes text, const char *open, const char *close) {
  XML_Parser p = text.n <= INT32_MAX ? xml_parser() : NULL;
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
  XML_Index at = XML_GetCurrentByteIndex(p);
  enum XML_Error why = XML_GetErrorCode(p);
  if (diag->err)
    return diag->err;
  if (why == XML_ERROR_ABORTED)
    return diag_set(diag, ERR_SYNTAX, at > 0 ? (uint64_t)at : 0, "the document has a DTD: none is accepted");
  if (why == XML_ERROR_NO_MEMORY)
    return diag_say(diag, ERR_NO_MEMORY, NULL);
  return diag_set(diag, ERR_SYNTAX, at > 0 ? (uint64_t)at : 0, "not well-formed XML: %.80s", XML_ErrorString(why));
}
