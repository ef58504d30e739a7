// What a server under load answers, as the load generator judges it: a right response of a small track, changed in places. The right
// one is found right; of what is accepted, the samples decrypt to those of the source, and of a wrong one a sentence says what is
// wrong. Source: load/verify.h.
// The input: byte 0 the track (bits 0 to 3) and the scheme (from bit 4), 1 the response (0 init, else a segment), then changes of
// 4 bytes: what to do, a byte, and where.
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "cenc/unprotect.h"
#include "mp4/samples.h"
#include "fuzz.h"

enum { MAX_RESPONSE = 1 << 15 };

// Changes a response. Where: 16 bits of its length.
static size_t change(uint8_t *p, size_t n, const uint8_t *how) {
  size_t at = n ? (size_t)(load_be16(how + 2) * (uint64_t)n >> 16) : 0, left = n - at, len = how[1] < left ? how[1] : left;
  if (!left)
    return n;
  switch (how[0] % 8) {
  case 0: p[at] = how[1]; return n;
  case 1: p[at] ^= how[1]; return n;
  case 2: p[at] = (uint8_t)(p[at] + how[1]); return n;
  case 3: memmove(p + at, p + at + len, left - len); return n - len;
  case 4: // the bytes before it once more
    len = len < at ? len : at;
    if (n + len > MAX_RESPONSE)
      return n;
    memmove(p + at + len, p + at, left);
    memcpy(p + at, p + at - len, len);
    return n + len;
  case 5: return at;
  case 6: memset(p + at, how[0] >> 3, len); return n;
  default: // a 32-bit number
    if (left >= 4)
      store_be32(p + at, load_be32(p + at) + (how[1] ^ 0x80u) - 0x80u); // by -128 to 127
    return n;
  }
}

// The bytes of all samples, one after another.
struct samples {
  struct bytes file;
  uint8_t *p;
  size_t n, cap;
  bool outside;
};

static void on_sample(void *ctx, const struct sample_info *s) {
  struct samples *all = ctx;
  if (!s->size) // one without bytes is nowhere
    return;
  if (s->offset > all->file.n || s->size > all->file.n - s->offset || s->size > all->cap - all->n) {
    all->outside = true;
    return;
  }
  memcpy(all->p + all->n, all->file.p + s->offset, s->size);
  all->n += s->size;
}

// A file of an init segment and a media segment, decrypted, gives the samples.
static void read_samples(struct samples *to, const struct world *w, struct bytes init, struct bytes segment) {
  size_t n = init.n + segment.n, len = n, at = 0;
  uint8_t *file = malloc(n), *clear = malloc(n);
  struct alloc_heap heap;
  struct diag d = {0};
  char text[300];
  MUST(file && clear);
  memcpy(file, init.p, init.n);
  memcpy(file + init.n, segment.p, segment.n);
  alloc_heap_init(&heap, MEMORY);
  struct content_key key = {.key = w->prot.key};
  memcpy(key.kid, kid_bytes, 16);
  struct unprotect_input in = {.file = bytes_of(file, n), .keys = &key, .num_keys = 1, .ops = ops(), .mem = &heap.base};
  if (w->prot.scheme == SCHEME_CLEAR) {
    memcpy(clear, file, n);
  } else if (unprotect(clear, &len, &in, &d)) {
    diag_format(&d, text, sizeof text);
    fprintf(stderr, "found right, and does not decrypt: ");
    require(0, text);
  }
  struct samples_file f = {.source_len = len};
  *to = (struct samples){.file = bytes_of(clear, len), .p = malloc(n), .cap = n};
  MUST(to->p);
  struct samples_visitor v = {to, on_sample};
  while (len - at >= 8) {
    size_t box = load_be32(clear + at);
    if (box == 1 && len - at >= 16)
      box = load_be64(clear + at + 8);
    if (box < 8 || box > len - at)
      box = len - at;
    if (load_be32(clear + at + 4) == FOURCC('m', 'o', 'o', 'v'))
      samples_tracks(&f, bytes_of(clear + at, box));
    if (load_be32(clear + at + 4) == FOURCC('m', 'o', 'o', 'f'))
      MUST(!samples_of_moof(&v, &f, bytes_of(clear + at, box), at, 0, &d));
    at += box;
  }
  MUST(!to->outside);
  free(file), free(clear);
  alloc_heap_free(&heap);
}

static void check_right(const struct world *w, uint32_t which, struct bytes body) {
  struct samples is, want;
  uint32_t segment = which ? which : 1;
  read_samples(&want, w, part_of(w, 0), part_of(w, segment));
  read_samples(&is, w, which ? part_of(w, 0) : body, which ? body : part_of(w, segment));
  MUST(is.n == want.n && !memcmp(is.p, want.p, is.n));
  free(is.p), free(want.p);
}

static void check_sentence(const char *what, size_t cap, const char *path) {
  MUST(memchr(what, 0, cap) && !strncmp(what, path, strlen(path)) && what[strlen(path)] == ':');
}

static void check_response(struct world *w, uint32_t which, struct bytes body, bool same) {
  struct verify_world of = {.ctx = w, .track = track_of, .key = key_of, .pssh = pssh_of};
  struct verifier *v = verifier_new(&of, ops(), 16);
  char what[300] = "";
  struct verify_response r = {.asset = "a", .scheme = scheme_name(w->prot.scheme), .path = w->list.init, .body = which ? part_of(w, 0) : body,
                              .list = &w->list};
  MUST(v);
  r.init = verify_init(v, &r, what, sizeof what);
  bool right = r.init != NULL;
  if (right) { // of an init segment, some is proven by its first segment
    uint32_t segment = which ? which : 1;
    r.path = w->list.uris + w->list.uri_off[segment - 1];
    r.body = which ? body : part_of(w, segment);
    right = verify_segment(v, &r, what, sizeof what);
  }
  if (same)
    require(right, what);
  if (right)
    check_right(w, which, body);
  else
    check_sentence(what, sizeof what, r.path);
  verifier_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  struct world *w = world_of(data[0] % 16 % NUM_TRACKS, (enum scheme)((data[0] >> 4) % SCHEME_COUNT));
  uint32_t which = data[1] % (w->segs.num + 1);
  struct bytes right = part_of(w, which);
  uint8_t *p = malloc(MAX_RESPONSE), *exact;
  size_t n = right.n;
  MUST(p && n <= MAX_RESPONSE);
  memcpy(p, right.p, n);
  for (size_t i = 2; i + 4 <= size; i += 4)
    n = change(p, n, data + i);
  exact = malloc(n ? n : 1);
  MUST(exact);
  memcpy(exact, p, n);
  check_response(w, which, bytes_of(exact, n), bytes_eq(right, bytes_of(exact, n)));
  free(p), free(exact);
  return 0;
}
