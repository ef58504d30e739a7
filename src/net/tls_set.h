// Inside of net/: what a set of certificates is, for the files that make them (tls.c for servers, tls_client.c) and what they
// are made of (tls_tickets.c, tls_ocsp.c).
#pragma once
#include "net/tls.h"
#include "net/tls_ocsp.h"
#include <openssl/ssl.h>
#include <stdatomic.h>

enum { TLS_MAX_CERTS = 64, TLS_MAX_ENDS = 2 * TLS_MAX_CERTS + 1 };

// A response to staple.
struct tls_staple {
  struct ocsp_status status;
  char *file;
  atomic_bool told; // that its time is over
};

// What a certificate is chosen by.
struct tls_names {
  char **name; // its DNS names
  size_t num;
  unsigned kind; // of its key
  bool as_first; // covers all names of the set's first, so that it can stand in for that
};

struct tls_set {
  _Atomic unsigned refs; // its owner's, and one for each connection
  unsigned num;
  struct tls_tickets *tickets; // a server's
  SSL_CTX *ctx[TLS_MAX_CERTS];
  struct tls_staple staple[TLS_MAX_CERTS]; // of those that have one
  struct tls_names names[TLS_MAX_CERTS];
  BIO_METHOD *bio;
  unsigned num_ends;
  struct tls_end ends[TLS_MAX_ENDS];
};

// tls_set_alloc makes an empty set with one reference. NULL: no memory.
struct tls_set *tls_set_alloc(void);

// tls_bind ties a context to its set, so that connections find it with tls_set_of. False: no memory.
bool tls_bind(SSL_CTX *ctx, struct tls_set *s);
struct tls_set *tls_set_of(const SSL *ssl);

// tls_index_made asks BoringSSL for an index of data of ours, unless *index (-1 at first) is one. False: no memory; the next set asks
// again, for BoringSSL's answer to an index that is none is abort().
typedef int tls_new_index(long argl, void *argp, CRYPTO_EX_unused *unused, CRYPTO_EX_dup *dup, CRYPTO_EX_free *give);
bool tls_index_made(int *index, tls_new_index *new_index, CRYPTO_EX_free *give);

// tls_tickets_use makes a context seal its tickets with the keys of its set.
void tls_tickets_use(SSL_CTX *ctx);

// tls_conn_new makes a connection of a context, over memory. NULL: no memory.
SSL *tls_conn_new(struct tls_set *s, SSL_CTX *ctx);

// tls_names_read takes a certificate's names, so that a hello costs no parsing of them. False: no memory, or they
// cannot be read; to be freed all the same.
// tls_names_choose gives the number of the certificate for a client.
bool tls_names_read(struct tls_names *to, const X509 *cert);
void tls_names_free(struct tls_names *n);
bool tls_names_cover(const struct tls_names *n, const char *name);
bool tls_names_cover_all(const struct tls_names *n, const struct tls_names *of);
unsigned tls_names_choose(const struct tls_set *s, const SSL_CLIENT_HELLO *hello);

// tls_ends_read takes down what of a set's n-th certificate, its response and the authorities is over some day. False: no memory; to
// free all the same.
bool tls_ends_read(struct tls_set *s, unsigned n, const char *cert, const char *client_ca);
void tls_ends_free(struct tls_set *s);

// tls_use_signatures sets with what a context's side signs, and what it takes of the other side.
bool tls_use_signatures(SSL_CTX *ctx);

// tls_look_at_chain says in the log what is odd in a context's certificates, which are used all the same.
void tls_look_at_chain(const SSL_CTX *ctx, const char *file);

// tls_fits_flight: whether what the server says of itself in a handshake fits the room for it (TLS_FLIGHT, and what a socket takes at
// once), beside an OCSP response: certificates, names of authorities. `client_ca` may be NULL.
bool tls_fits_flight(const SSL_CTX *ctx, const char *cert, const char *client_ca, char *why, size_t cap);

// tls_fail writes "what file: why" from the error queue, and returns false. Where the file was read and its content is at fault, why
// is `want`, what it should hold, with the library's name of the fault in brackets. tls_fail_key is the same for a certificate's key.
bool tls_fail(char *why, size_t cap, const char *what, const char *file, const char *want);
bool tls_fail_key(char *why, size_t cap, const char *what, const char *file, const char *cert);
#define TLS_WANT_CHAIN "give a PEM file: the certificate, then those of its chain"
#define TLS_WANT_AUTHORITIES "give a PEM file with the certificates of the authorities"

#define TLS_AES_12                                                                                                       \
  "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"
#define TLS_CHACHA_12 "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
