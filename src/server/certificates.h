// The certificates that are served: when they end, for the log and for the metrics.
#pragma once
#include "base/writer.h"

struct server;
struct tls_set;

// Those of `set` are served now. Takes a reference; NULL: none any more. `said`: what ends soon was just said in the log.
void certificates_serve(struct server *s, struct tls_set *set, bool said);

// certificates_say says in the log what has ended or soon will, once a day. The main thread's, as is the one above. Returns in how many
// milliseconds to call again.
uint64_t certificates_say(struct server *s);

// certificates_write appends them as Prometheus text. Any thread's.
void certificates_write(struct server *s, struct writer *w);
