// TLS 1.3 and 1.2 over bytes: records come in and go out through memory, sockets are somebody else's. BoringSSL inside.
// A set of certificates is immutable and serves every worker; tickets resume on any of them, and across reloads.
#pragma once
#include "base/bytes.h"

struct tls_set;  // certificates
struct tls_conn; // one connection

// tls_tickets keeps the keys that tickets are sealed with: made at random, changed every TLS_TICKET_HOURS. The one before still
// opens, and such a ticket is renewed; no key opens one later than twice that. One for the process; outlives every set.
struct tls_tickets;
enum { TLS_TICKET_HOURS = 12 };
struct tls_tickets *tls_tickets_new(void);
void tls_tickets_free(struct tls_tickets *t);

// PEM files; `ocsp` is a DER response to staple, or NULL. One that is not about the certificate is refused; one that says other
// than good, or is not in its time, is not stapled, and the log says so: once when its time ends while it is loaded.
struct tls_files {
  const char *cert, *key, *ocsp;
};

// tls_set_new reads all of it; a client gets one for the name it asks for, of a kind of key that
// it can verify; the first serves those that name none of the others. `client_ca` (NULL: none)
// makes clients show a certificate of an authority in that file. NULL on failure, with one sentence in `why`.
struct tls_set *tls_set_new(const struct tls_files *files, unsigned num, const char *client_ca, struct tls_tickets *tickets,
                            char *why, size_t why_cap);
void tls_set_free(struct tls_set *s); // connections that use it live on; NULL is a no-op

// What of a set is over some day: certificates with their chains, the authorities of clients, responses that are stapled. The earliest
// end counts of a file with several certificates.
enum tls_end_kind { TLS_END_CERTIFICATE, TLS_END_AUTHORITY, TLS_END_STAPLE };
struct tls_end {
  enum tls_end_kind kind;
  char *file;          // as it was given
  int64_t from, until; // Unix time
  int64_t said;        // when it was last; 0: never
  char what[128];      // which in the file
  struct tls_staple *staple;
};

// tls_ends gives them, as long as the set lives.
const struct tls_end *tls_ends(const struct tls_set *s, unsigned *num);

// tls_say_ends says in the log what is over, or will be within 14 days or a third of its time: each once a day. Returns in how many
// seconds to call again. For one thread. `said`: nothing is, for it just was, of the same files. A set may be NULL.
unsigned tls_say_ends(struct tls_set *s, bool said);

// tls_set_hold takes another reference, for tls_set_free to give back.
struct tls_set *tls_set_hold(struct tls_set *s);

// Where a connection's records come from and go to during one call: set before each, shared by a worker's connections.
struct tls_io {
  const uint8_t *in; // what the socket gave
  size_t in_len;     // left of it
  uint8_t *out;      // for the socket
  size_t out_cap, out_len;
};

enum {
  TLS_RECORD = 16384,        // plaintext bytes of a full record
  TLS_ROOM = TLS_RECORD + 512, // what `out` must have left for tls_write
  TLS_FLIGHT = 65536,        // and for tls_handshake and tls_read
};

// tls_accept starts a server connection; NULL without memory. tls_free wipes it; NULL is a no-op.
struct tls_conn *tls_accept(struct tls_set *s);
void tls_free(struct tls_conn *c);

// Clients. `ca`: PEM file of authorities, NULL: the system's bundle. `cert` and `key`: shown to servers that ask; NULL: none.
// `no_verify` believes every server: for tools that measure, never where a secret travels.
struct tls_client_files {
  const char *ca, *cert, *key;
  bool no_verify;
};

// tls_set_client reads the files: TLS 1.2 and 1.3, ALPN http/1.1. To free with tls_set_free.
// NULL on failure, with one sentence in `why`.
struct tls_set *tls_set_client(const struct tls_client_files *f, char *why, size_t why_cap);

// tls_system_ca names the file that stands for "the system's bundle", NULL where none is found.
const char *tls_system_ca(void);

// tls_connect starts a client connection: `host`, a name or an address, is sent (names only) and checked against the
// certificate. NULL: no memory, or not a host.
struct tls_conn *tls_connect(struct tls_set *s, const char *host);

// tls_wipe_on_this_thread makes free overwrite, for this thread: records are opened in memory that BoringSSL frees as it is.
void tls_wipe_on_this_thread(void);

// tls_why says in a few words why the call before, on this connection and thread, gave TLS_FAILED.
void tls_why(const struct tls_conn *c, char *out, size_t cap);

// tls_is_http: the call before, on this thread, gave TLS_FAILED because the client speaks plain HTTP.
bool tls_is_http(void);

enum tls_result { TLS_OK, TLS_WANT, TLS_ENDED, TLS_FAILED };

// tls_handshake goes on with the handshake: OK when done, WANT: more input. `out` may hold bytes to send in every case.
enum tls_result tls_handshake(struct tls_conn *c, struct tls_io *io);

// tls_read opens records into `p`: OK with *n > 0, WANT: all input is used up, ENDED: the peer has closed its side.
enum tls_result tls_read(struct tls_conn *c, struct tls_io *io, uint8_t *p, size_t cap, size_t *n);

// tls_write seals at most one record of [p, p + n) and returns the bytes taken, 0 when the connection is broken.
size_t tls_write(struct tls_conn *c, struct tls_io *io, const uint8_t *p, size_t n);

// tls_close seals a close notification.
void tls_close(struct tls_conn *c, struct tls_io *io);

bool tls_resumed(const struct tls_conn *c);
