// The keys that session tickets are sealed with, and when they change. There is no thread for it: whoever asks for a key turns
// them over first, by as many periods as have passed.
#include "net/tls_memory.h"
#include "net/tls_set.h"
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { PERIOD_S = TLS_TICKET_HOURS * 3600 };

struct ticket_key {
  uint8_t name[16], aes[16], mac[32];
};

struct tls_tickets {
  pthread_mutex_t lock;
  struct ticket_key now, before;
  int64_t period; // when that of `now` began
};

static void new_key(struct ticket_key *k) { RAND_bytes((uint8_t *)k, sizeof *k); }

// Nobody sets this clock, and it goes on while the machine is suspended: keys are never older than they should be.
static int64_t seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_BOOTTIME, &t);
  return t.tv_sec;
}

struct tls_tickets *tls_tickets_new(void) {
  struct tls_tickets *t = tls_secret_new(sizeof *t);
  if (!t)
    return NULL;
  pthread_mutex_init(&t->lock, NULL);
  new_key(&t->now);
  new_key(&t->before);
  t->period = seconds();
  return t;
}

void tls_tickets_free(struct tls_tickets *t) {
  if (!t)
    return;
  pthread_mutex_destroy(&t->lock);
  tls_secret_free(t);
}

// Under the lock. After two periods in which nobody asked the last key used is older than the one before may be.
static void turn_over(struct tls_tickets *t) {
  int64_t passed = (seconds() - t->period) / PERIOD_S;
  if (passed < 1)
    return;
  if (passed == 1)
    t->before = t->now;
  else
    new_key(&t->before);
  new_key(&t->now);
  t->period += passed * PERIOD_S;
}

// take_key gives the key to seal with (name NULL) or the one of that name. 1: current, 2: the one before, 0: neither.
static int take_key(struct tls_tickets *t, struct ticket_key *out, const uint8_t *name) {
  int found = 1;
  pthread_mutex_lock(&t->lock);
  turn_over(t);
  if (!name || memcmp(name, t->now.name, sizeof t->now.name) == 0)
    *out = t->now;
  else if (memcmp(name, t->before.name, sizeof t->before.name) == 0) {
    *out = t->before;
    found = 2;
  } else
    found = 0;
  pthread_mutex_unlock(&t->lock);
  return found;
}

static int on_ticket(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *mac, int encrypt) {
  struct ticket_key k;
  int found = take_key(tls_set_of(ssl)->tickets, &k, encrypt ? NULL : name);
  if (found && encrypt) {
    memcpy(name, k.name, sizeof k.name);
    RAND_bytes(iv, 16);
  }
  if (found && (!HMAC_Init_ex(mac, k.mac, sizeof k.mac, EVP_sha256(), NULL) ||
                !EVP_CipherInit_ex(cipher, EVP_aes_128_cbc(), NULL, k.aes, iv, encrypt)))
    found = -1;
  OPENSSL_cleanse(&k, sizeof k);
  return found;
}

void tls_tickets_use(SSL_CTX *ctx) { SSL_CTX_set_tlsext_ticket_key_cb(ctx, on_ticket); }
