// A server's side of TLS at times of our choosing (--wrap of the clocks). The client is BoringSSL itself, over memory.
#pragma once

#include <openssl/ssl.h>

#include "net/tls_memory.h"
#include "net/tls_set.h"

enum { HOUR = 3600, SERIAL = 0x5a17 };
extern const int versions[2];

extern int64_t passed; // seconds beyond what the system's clocks show
extern bool no_leaf, no_names; // a certificate, or its names, cannot be made of what was read: there is no memory
extern int64_t aged;   // BoringSSL's for the age of sessions. It stands still unless a test is about that.

// A server with a certificate of its own, and a client. Made anew for each case of the suite `tls`.
extern struct world {
  char cert[64], key[64], ocsp[64], client_cert[64], client_key[64];
  struct bytes issuer, serial;
  struct tls_tickets *tickets;
  struct tls_set *set;
  SSL_CTX *client;
  SSL_SESSION *session; // the newest that the client was given
} w;

void make_certificate(int64_t from, int64_t until);

// A certificate of the server's, for the client to show.
void make_client(int64_t from, int64_t until);

// Loads what there is; why it cannot be, or NULL.
const char *load_for(const char *ocsp, const char *client_ca);
const char *load(const char *ocsp);

struct meeting {
  bool resumed, stapled, refused;
  uint16_t suite;
};

// One connection, from the handshake to the first byte of the server, by which tickets have come.
struct meeting meet(int version, SSL_SESSION *session);
SSL_SESSION *take_session(void);
