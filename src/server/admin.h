// What the admin listener answers. The transport (admin_http.c) has two threads: of one, one request at a time, so a
// handler may take a lock and build text; and one for orders, which may wait for a disk.
#pragma once
#include "base/writer.h"

struct server;

struct admin_request {
  struct bytes method; // "GET" (of HEAD too), "POST" or "": another
  struct bytes path;   // without query
  struct bytes query;  // after '?', may be empty
  struct bytes authorization; // the header's value; empty without it
  bool stranger;       // Host is a name that the configuration does not have: a page may have had it lead here
};

struct admin_response {
  int status;
  const char *content_type;
  const char *allow;   // of a 405: the path's methods
  struct writer body;  // over the transport's buffer: admin_body_max, of an order 64 KiB
};

// admin_body_max is how many bytes a body has at most: /metrics with so many workers; /status leaves out what is beyond.
size_t admin_body_max(unsigned workers);

// admin_handle checks the token where one is configured (rotations only) and answers /live, /ready, /metrics, /status, /rotate (POST), / and 404.
void admin_handle(struct server *s, struct admin_response *out, const struct admin_request *in);

// admin_say_refused logs how many orders had not the right token, where that is due or `end`; returns when what is untold will be due
// (by clock_mono_ms), 0 where nothing is.
uint64_t admin_say_refused(bool end);

bool admin_is_order(const struct admin_request *in); // a rotation; may be handled beside another request
