#include "net/ktls.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/hkdf.h>
#include <openssl/mem.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "net/tls_set.h"

#ifndef TCP_ULP
#define TCP_ULP 31
#endif
#ifndef SOL_TLS
#define SOL_TLS 282
#endif

struct secret {
  uint8_t bytes[48];
  size_t n;
};

static int secret_index = -1;

static void free_secret(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
  (void)parent, (void)ad, (void)index, (void)argl, (void)argp;
  if (ptr)
    OPENSSL_cleanse(ptr, sizeof(struct secret));
  free(ptr);
}

// "SERVER_TRAFFIC_SECRET_0 <client random> <secret>": the way in which BoringSSL gives it to C.
static void on_secret(const SSL *ssl, const char *line) {
  static const char label[] = "SERVER_TRAFFIC_SECRET_0 ";
  const char *hex = strrchr(line, ' ');
  size_t n = hex ? strlen(hex + 1) / 2 : 0;
  struct secret *s = !strncmp(line, label, sizeof label - 1) && n <= sizeof s->bytes ? calloc(1, sizeof *s) : NULL;
  if (!s)
    return;
  s->n = n;
  if (hex_read(s->bytes, n, bytes_str(hex + 1)) || SSL_get_ex_data(ssl, secret_index) ||
      !SSL_set_ex_data((SSL *)(uintptr_t)ssl, secret_index, s))
    free_secret(NULL, s, NULL, 0, 0, NULL);
}

// A client asks for new keys: BoringSSL takes the next write key, counts records from 0 again and logs no secret. The one kept
// here with that count would seal under nonces that have been used. Source: RFC 8446 §4.6.3.
static void on_message(int is_write, int version, int type, const void *p, size_t n, SSL *ssl, void *arg) {
  const uint8_t *message = p;
  (void)version, (void)arg;
  if (is_write || type != SSL3_RT_HANDSHAKE || !n || message[0] != SSL3_MT_KEY_UPDATE ||
      (n == SSL3_HM_HEADER_LENGTH + 1 && message[n - 1] == SSL_KEY_UPDATE_NOT_REQUESTED))
    return;
  struct secret *s = SSL_get_ex_data(ssl, secret_index);
  if (s)
    OPENSSL_cleanse(s, sizeof *s); // n is 0 then: there is none
}

bool ktls_here(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return false;
  int r = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls"), why = errno;
  close(fd);
  errno = why;
  return r == 0 || why == ENOTCONN; // it is there, and wants a connection
}

bool ktls_prepare(struct tls_set *s) {
  if (!tls_index_made(&secret_index, SSL_get_ex_new_index, free_secret))
    return false;
  for (unsigned i = 0; i < s->num; i++) {
    SSL_CTX_set_keylog_callback(s->ctx[i], on_secret);
    SSL_CTX_set_msg_callback(s->ctx[i], on_message);
  }
  return true;
}

// HKDF-Expand-Label with an empty context. Source: RFC 8446 §7.1.
static bool expand(uint8_t *out, uint8_t n, const EVP_MD *md, const struct secret *s, const char *label) {
  uint8_t info[32];
  size_t len = strlen(label);
  info[0] = 0;
  info[1] = n;
  info[2] = (uint8_t)(6 + len);
  memcpy(info + 3, "tls13 ", 6);
  memcpy(info + 9, label, len);
  info[9 + len] = 0;
  return HKDF_expand(out, n, md, s->bytes, s->n, info, 10 + len);
}

struct keys {
  uint8_t key[32], iv[12], seq[8];
};

static bool derive(struct keys *k, const SSL *ssl, const struct secret *s, uint8_t key_len) {
  uint64_t seq = SSL_get_write_sequence(ssl);
  const EVP_MD *md = s->n == 48 ? EVP_sha384() : EVP_sha256();
  for (int i = 0; i < 8; i++)
    k->seq[i] = (uint8_t)(seq >> (56 - 8 * i));
  return expand(k->key, key_len, md, s, "key") && expand(k->iv, sizeof k->iv, md, s, "iv");
}

static bool hand_over(int fd, const struct keys *k, bool aes256) {
  union {
    struct tls12_crypto_info_aes_gcm_128 a128;
    struct tls12_crypto_info_aes_gcm_256 a256;
  } in = {0};
  struct tls_crypto_info *info = aes256 ? &in.a256.info : &in.a128.info;
  info->version = TLS_1_3_VERSION;
  info->cipher_type = aes256 ? TLS_CIPHER_AES_GCM_256 : TLS_CIPHER_AES_GCM_128;
  memcpy(aes256 ? in.a256.key : in.a128.key, k->key, aes256 ? sizeof in.a256.key : sizeof in.a128.key);
  memcpy(aes256 ? in.a256.salt : in.a128.salt, k->iv, 4);
  memcpy(aes256 ? in.a256.iv : in.a128.iv, k->iv + 4, 8);
  memcpy(aes256 ? in.a256.rec_seq : in.a128.rec_seq, k->seq, 8);
  // TCP_ULP alone changes nothing of what is sent: a connection that keeps only that goes on here.
  bool ok = !setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") &&
            !setsockopt(fd, SOL_TLS, TLS_TX, &in, aes256 ? (socklen_t)sizeof in.a256 : (socklen_t)sizeof in.a128);
  OPENSSL_cleanse(&in, sizeof in);
  return ok;
}

bool ktls_start(struct tls_conn *c, int fd) {
  const SSL *ssl = (const SSL *)(uintptr_t)c;
  const struct secret *s = SSL_get_ex_data(ssl, secret_index);
  const SSL_CIPHER *cipher = SSL_get_current_cipher(ssl);
  uint16_t suite = cipher ? SSL_CIPHER_get_protocol_id(cipher) : 0;
  bool aes256 = suite == SSL_CIPHER_AES_256_GCM_SHA384;
  struct keys k;
  if (!s || !s->n || SSL_version(ssl) != TLS1_3_VERSION || (suite != SSL_CIPHER_AES_128_GCM_SHA256 && !aes256))
    return false;
  bool ok = derive(&k, ssl, s, aes256 ? 32 : 16) && hand_over(fd, &k, aes256);
  OPENSSL_cleanse(&k, sizeof k);
  return ok;
}

bool ktls_stale(const struct tls_conn *c) {
  const struct secret *s = SSL_get_ex_data((const SSL *)(uintptr_t)c, secret_index);
  return s && !s->n;
}

void ktls_close(int fd) {
  static uint8_t alert[2] = {1, 0}; // warning, close_notify
  union {
    struct cmsghdr head;
    uint8_t space[CMSG_SPACE(1)];
  } control = {.head = {.cmsg_len = CMSG_LEN(1), .cmsg_level = SOL_TLS, .cmsg_type = TLS_SET_RECORD_TYPE}};
  struct iovec iov = {alert, sizeof alert};
  struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.space};
  *CMSG_DATA(&control.head) = 21; // alert
  (void)sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}
