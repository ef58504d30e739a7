// BoringSSL's memory. It asks these three functions for all that it allocates (crypto/mem.c, weak symbols). While a private key is
// read, and where sluice keeps ticket keys, that is an area of its own: locked, left out of core images and of forks. Everything
// else comes from malloc. As BoringSSL does by itself, what is given back is overwritten.
#include "net/tls_memory.h"
#include "obs/log.h"
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *OPENSSL_memory_alloc(size_t n);
void OPENSSL_memory_free(void *p);
size_t OPENSSL_memory_get_size(void *p);

// AREA holds more than a hundred reloads of 64 certificates with RSA keys of 4,096 bits, each kept by an old connection.
enum { AREA = 64 << 20, CHUNK = 64 << 10, GRAIN = 64, SMALL = 4096, CLASSES = SMALL / GRAIN + 9, LARGEST = 1 << 20, KEY_FILE = 16 << 10, KEY_FILE_MAX = 256 << 10 };

// In front of each piece. Free ones of one class are a list.
struct piece {
  size_t len; // what follows
  struct piece *next;
  size_t unused[2];
};
_Static_assert(sizeof(struct piece) == 32, "pieces are aligned as malloc's");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint8_t *_Atomic area; // AREA bytes of addresses
static size_t used, locked; // of it; under the lock
static bool told;
static struct piece *free_pieces[CLASSES];
static _Thread_local bool secret;

static unsigned class_of(size_t *n) {
  size_t rounded = *n < GRAIN ? GRAIN : (*n + GRAIN - 1) & ~(size_t)(GRAIN - 1);
  unsigned c = SMALL / GRAIN;
  if (rounded <= SMALL) {
    c = (unsigned)(rounded / GRAIN) - 1;
  } else {
    for (rounded = 2 * SMALL; rounded < *n; rounded *= 2)
      c++;
  }
  *n = rounded;
  return c;
}

static bool more_pages(size_t end) {
  if (!area) {
    void *p = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
      return false;
    madvise(p, AREA, MADV_DONTDUMP);
    madvise(p, AREA, MADV_WIPEONFORK);
    area = p;
  }
  while (locked < end) {
    if (mlock(area + locked, CHUNK) && !told) {
      told = true;
      log_line(LOG_WARN, "private keys of certificates cannot be locked in memory: %s: they may reach a swap partition (ulimit -l)", strerror(errno));
    }
    locked += CHUNK;
  }
  return true;
}

static void *take(size_t n) {
  if (n > LARGEST)
    return NULL;
  unsigned c = class_of(&n);
  pthread_mutex_lock(&lock);
  struct piece *p = free_pieces[c];
  size_t whole = sizeof *p + n;
  if (p) {
    free_pieces[c] = p->next;
  } else if (whole <= AREA - used && more_pages(used + whole)) {
    p = (struct piece *)(void *)(area + used);
    used += whole;
    *p = (struct piece){.len = n};
  }
  pthread_mutex_unlock(&lock);
  return p ? p + 1 : NULL;
}

static bool is_ours(const void *p) { return area && (uintptr_t)p - (uintptr_t)area < AREA; }

static void give(void *at) {
  struct piece *p = (struct piece *)at - 1;
  size_t n = p->len;
  explicit_bzero(at, n);
  unsigned c = class_of(&n);
  pthread_mutex_lock(&lock);
  p->next = free_pieces[c];
  free_pieces[c] = p;
  pthread_mutex_unlock(&lock);
}

// At least a byte: what is read of an empty piece while it grows is what malloc_usable_size says, and sanitizers take it at its word.
void *OPENSSL_memory_alloc(size_t n) { return secret ? take(n) : malloc(n ? n : 1); }

size_t OPENSSL_memory_get_size(void *p) { return is_ours(p) ? ((struct piece *)p - 1)->len : malloc_usable_size(p); }

void OPENSSL_memory_free(void *p) {
  if (is_ours(p)) {
    give(p);
  } else if (p) {
    explicit_bzero(p, malloc_usable_size(p));
    free(p);
  }
}

void *tls_secret_new(size_t n) {
  void *p = take(n);
  if (p)
    memset(p, 0, n);
  return p;
}

void tls_secret_free(void *p) {
  if (p)
    give(p);
}

static bool fail_read(int why) {
  ERR_put_error(ERR_LIB_SYS, 0, why, __FILE__, __LINE__);
  return false;
}

// The whole file, into the area: a FILE would leave its buffer behind.
static bool read_file(uint8_t **out, size_t *len, const char *file) {
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return fail_read(errno);
  int why = 0;
  size_t n = 0, cap = KEY_FILE; // more only where it is needed: locked memory is scarce
  uint8_t *text = OPENSSL_malloc(cap);
  while (text && n < KEY_FILE_MAX) {
    if (n == cap) {
      uint8_t *more = OPENSSL_realloc(text, cap *= 4);
      if (!more)
        OPENSSL_free(text);
      text = more;
      continue;
    }
    ssize_t got = read(fd, text + n, cap - n);
    if (got < 0 && errno == EINTR)
      continue;
    why = got < 0 ? errno : 0;
    if (got <= 0)
      break;
    n += (size_t)got;
  }
  close(fd);
  why = why ? why : !text ? ENOMEM : n == KEY_FILE_MAX ? EFBIG : 0;
  if (why) {
    OPENSSL_free(text);
    return fail_read(why);
  }
  *out = text;
  *len = n;
  return true;
}

// Signing once is a test of the key too: one that does not fit itself is found here and not in a handshake.
static bool sign_once(EVP_PKEY *key) {
  static const uint8_t text[1];
  uint8_t sig[2048]; // RSA of 16,384 bits, BoringSSL's most
  size_t n = sizeof sig;
  EVP_MD_CTX *m = EVP_MD_CTX_new();
  bool ok = m && EVP_DigestSignInit(m, NULL, EVP_PKEY_id(key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256(), NULL, key) &&
            EVP_DigestSign(m, sig, &n, text, sizeof text);
  EVP_MD_CTX_free(m);
  return ok;
}

static bool use_text(SSL_CTX *ctx, const uint8_t *text, size_t n) {
  BIO *bio = BIO_new_mem_buf(text, (ossl_ssize_t)n);
  EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, SSL_CTX_get_default_passwd_cb(ctx), SSL_CTX_get_default_passwd_cb_userdata(ctx)) : NULL;
  bool ok = key && SSL_CTX_use_PrivateKey(ctx, key) && SSL_CTX_check_private_key(ctx) && sign_once(key);
  EVP_PKEY_free(key);
  BIO_free(bio);
  return ok;
}

bool tls_use_key(SSL_CTX *ctx, const char *file) {
  uint8_t *text = NULL;
  size_t n = 0;
  secret = true;
  bool ok = read_file(&text, &n, file) && use_text(ctx, text, n);
  OPENSSL_free(text);
  secret = false;
  return ok;
}
