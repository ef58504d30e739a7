// The kernel's TLS, played at the socket calls (--wrap), for kernels that have none: what a socket was given with TLS_TX is
// what its bytes are sealed with, by BoringSSL. A client's own TLS then judges keys, sequence and record types.
// Whole calls of send go out, waiting for the socket: what the kernel would take is not what is tested. Of sendfile it takes a
// few records at a time, so that segments are gone on with. With KTLS_STUB_REFUSES in the environment it takes no keys.
#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/aead.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS = 4096, RECORD = 16384, TAG = 16, SENDFILE_RECORDS = 5 };

static struct sealed {
  bool on;
  uint8_t key[32], iv[12];
  size_t key_len;
  uint64_t seq;
} sockets[FDS];
static _Atomic unsigned started, sent_files;

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
ssize_t __real_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_send(int fd, const void *p, size_t n, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags);
ssize_t __real_sendfile64(int fd, int in, off_t *off, size_t n);
ssize_t __wrap_sendfile64(int fd, int in, off_t *off, size_t n);
int __real_close(int fd);
int __wrap_close(int fd);
void ktls_stub_report(void);

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len) {
  if (level == IPPROTO_TCP && name == 31 && fd < FDS) // TCP_ULP
    return 0;
  if (level != 282 || name != TLS_TX || fd >= FDS)
    return __real_setsockopt(fd, level, name, value, len);
  if (getenv("KTLS_STUB_REFUSES")) {
    errno = EBUSY;
    return -1;
  }
  const struct tls12_crypto_info_aes_gcm_128 *a = value;
  const struct tls12_crypto_info_aes_gcm_256 *b = value;
  bool big = a->info.cipher_type == TLS_CIPHER_AES_GCM_256;
  if (a->info.version != TLS_1_3_VERSION || len != (big ? sizeof *b : sizeof *a)) {
    errno = EINVAL;
    return -1;
  }
  struct sealed *s = &sockets[fd];
  *s = (struct sealed){.on = true, .key_len = big ? 32 : 16};
  memcpy(s->key, big ? b->key : a->key, s->key_len);
  memcpy(s->iv, big ? b->salt : a->salt, 4);
  memcpy(s->iv + 4, big ? b->iv : a->iv, 8);
  for (int i = 0; i < 8; i++)
    s->seq = s->seq << 8 | (big ? b->rec_seq : a->rec_seq)[i];
  started++;
  return 0;
}

static void send_all(int fd, const uint8_t *p, size_t n) {
  while (n) {
    ssize_t r = __real_send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (r < 0 && errno == EAGAIN) {
      struct pollfd w = {.fd = fd, .events = POLLOUT};
      (void)poll(&w, 1, 1000);
      continue;
    }
    if (r <= 0)
      return; // the next call shows it
    p += r;
    n -= (size_t)r;
  }
}

// Source: RFC 8446 §5.2.
static void send_record(int fd, const uint8_t *p, size_t n, uint8_t type) {
  struct sealed *s = &sockets[fd];
  uint8_t plain[RECORD + 1], out[5 + RECORD + 1 + TAG], nonce[12];
  size_t len = n + 1 + TAG, out_len;
  EVP_AEAD_CTX ctx;
  memcpy(plain, p, n);
  plain[n] = type;
  memcpy(nonce, s->iv, sizeof nonce);
  for (int i = 0; i < 8; i++)
    nonce[4 + i] ^= (uint8_t)(s->seq >> (56 - 8 * i));
  s->seq++;
  out[0] = 23;
  out[1] = out[2] = 3;
  out[3] = (uint8_t)(len >> 8);
  out[4] = (uint8_t)len;
  if (!EVP_AEAD_CTX_init(&ctx, s->key_len == 32 ? EVP_aead_aes_256_gcm() : EVP_aead_aes_128_gcm(), s->key, s->key_len, TAG, NULL) ||
      !EVP_AEAD_CTX_seal(&ctx, out + 5, &out_len, sizeof out - 5, nonce, sizeof nonce, plain, n + 1, out, 5))
    abort();
  EVP_AEAD_CTX_cleanup(&ctx);
  send_all(fd, out, 5 + out_len);
}

ssize_t __wrap_send(int fd, const void *p, size_t n, int flags) {
  if (fd >= FDS || !sockets[fd].on)
    return __real_send(fd, p, n, flags);
  if (!__real_send(fd, "", 0, MSG_NOSIGNAL | MSG_DONTWAIT) || errno == EAGAIN)
    for (size_t at = 0; at < n; at += RECORD)
      send_record(fd, (const uint8_t *)p + at, n - at < RECORD ? n - at : RECORD, 23);
  else
    return -1;
  return (ssize_t)n;
}

ssize_t __wrap_sendmsg(int fd, const struct msghdr *m, int flags) {
  (void)flags;
  const struct cmsghdr *c = CMSG_FIRSTHDR(m);
  if (fd >= FDS || !sockets[fd].on || !c || c->cmsg_type != TLS_SET_RECORD_TYPE)
    abort(); // nobody else calls it
  send_record(fd, m->msg_iov[0].iov_base, m->msg_iov[0].iov_len, *CMSG_DATA(c));
  return (ssize_t)m->msg_iov[0].iov_len;
}

ssize_t __wrap_sendfile64(int fd, int in, off_t *off, size_t n) {
  uint8_t plain[RECORD];
  size_t sent = 0;
  if (fd >= FDS || !sockets[fd].on)
    return __real_sendfile64(fd, in, off, n);
  sent_files++;
  for (unsigned i = 0; i < SENDFILE_RECORDS && sent < n; i++) {
    ssize_t r = pread(in, plain, n - sent < RECORD ? n - sent : RECORD, *off + (off_t)sent);
    if (r <= 0)
      abort(); // the memory file is shorter than the piece
    send_record(fd, plain, (size_t)r, 23);
    sent += (size_t)r;
  }
  *off += (off_t)sent;
  return (ssize_t)sent;
}

int __wrap_close(int fd) {
  if (fd >= 0 && fd < FDS)
    sockets[fd].on = false;
  return __real_close(fd);
}

__attribute__((destructor)) void ktls_stub_report(void) { fprintf(stderr, "ktls: %u connections handed over, %u calls of sendfile\n", started, sent_files); }
