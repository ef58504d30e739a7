// A mutator that knows boxes, for the targets that read them: what it changes in one place keeps the sizes of the boxes around
// it and the offsets of sample data, of auxiliary information and of segment indexes right, so that parsers are not left at
// the first size that is wrong. One time in four it leaves the input to libFuzzer, whose changes do not keep anything.
// Source: ISO/IEC 14496-12 §4.2, §8.8.7, §8.8.8.
#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out, size_t max, unsigned seed);

enum { MAX_BOXES = 1024, MAX_DEPTH = 16, MAX_PIECE = 4096, NONE = -1 };

struct node {
  size_t at, len, head; // of its bytes; head: of its header
  uint32_t type;
  int parent;
};

struct boxes {
  uint8_t *p;
  size_t n, max; // `p` has room for `max`; a tail of fuzz_boxes.tail bytes is kept apart
  struct node node[MAX_BOXES];
  int num;
  uint32_t rng;
};

static uint32_t below(struct boxes *b, size_t n) {
  b->rng = b->rng * 1664525 + 1013904223;
  return n ? (uint32_t)((b->rng >> 8) % n) : 0;
}

// Bytes before the first box within a box, SIZE_MAX where there are none.
static size_t children_at(uint32_t type, int parent_is_stsd) {
  static const char containers[][5] = {"moov", "trak", "mdia", "minf", "dinf", "stbl", "mvex", "edts", "moof", "traf", "sinf", "schi", "udta", "wave"};
  for (size_t i = 0; i < sizeof containers / sizeof *containers; i++)
    if (load_be32((const uint8_t *)containers[i]) == type)
      return 0;
  if (type == FOURCC('s', 't', 's', 'd') || type == FOURCC('d', 'r', 'e', 'f'))
    return 8;
  if (type == FOURCC('m', 'e', 't', 'a'))
    return 4;
  return parent_is_stsd ? 28 : SIZE_MAX;
}

static void scan(struct boxes *b, size_t at, size_t end, int parent, int depth) {
  while (end - at >= 8 && b->num < MAX_BOXES) {
    uint64_t len = load_be32(b->p + at);
    size_t head = 8;
    if (len == 1 && end - at >= 16) {
      len = load_be64(b->p + at + 8);
      head = 16;
    } else if (len == 0) {
      len = end - at;
    }
    if (len < head || len > end - at)
      return;
    int me = b->num++;
    struct node *n = &b->node[me];
    *n = (struct node){at, (size_t)len, head, load_be32(b->p + at + 4), parent};
    size_t skip = children_at(n->type, parent != NONE && b->node[parent].type == FOURCC('s', 't', 's', 'd'));
    if (skip <= n->len - head && depth < MAX_DEPTH)
      scan(b, at + head + skip, at + n->len, me, depth + 1);
    at += (size_t)len;
  }
}

static int moof_of(const struct boxes *b, int i) {
  while (i != NONE && b->node[i].type != FOURCC('m', 'o', 'o', 'f'))
    i = b->node[i].parent;
  return i;
}

// Of a sidx: how far away what it references is, or the size of the reference that `at` lies in.
// Source: ISO/IEC 14496-12 §8.16.3.
static void move_sidx(const struct node *n, uint8_t *body, size_t left, size_t at, int64_t delta) {
  size_t wide = left && body[0] ? 8 : 4, refs = 12 + 2 * wide + 4, end = n->at + n->len;
  if (left < refs || at < end)
    return;
  uint64_t first = wide == 8 ? load_be64(body + 20) : load_be32(body + 16), pos = end + first;
  if (at < pos) {
    if (wide == 8)
      store_be64(body + 20, first + (uint64_t)delta);
    else
      store_be32(body + 16, (uint32_t)(first + (uint64_t)delta));
    return;
  }
  for (size_t i = 0, num = load_be16(body + refs - 2); i < num && refs + 12 * (i + 1) <= left; i++) {
    uint8_t *ref = body + refs + 12 * i;
    pos += load_be32(ref) & 0x7fffffff;
    if (at < pos) {
      store_be32(ref, load_be32(ref) + (uint32_t)delta);
      return;
    }
  }
}

// Of a saio, whose offsets count from its moof's start. Source: ISO/IEC 14496-12 §8.7.9.
static void move_saio(size_t moof_at, uint8_t *body, size_t left, size_t at, int64_t delta) {
  size_t from = left >= 4 && body[3] & 1 ? 12 : 4, wide = left && body[0] ? 8 : 4;
  for (size_t i = 0, num = left >= from + 4 ? load_be32(body + from) : 0; i < num && from + 4 + (i + 1) * wide <= left; i++) {
    uint8_t *p = body + from + 4 + i * wide;
    uint64_t off = wide == 8 ? load_be64(p) : load_be32(p);
    if (moof_at + off < at)
      continue;
    if (wide == 8)
      store_be64(p, off + (uint64_t)delta);
    else
      store_be32(p, (uint32_t)(off + (uint64_t)delta));
  }
}

// Offsets that stand in boxes, before `delta` bytes come or go at `at`, in the box `inside`. Positions are those before that.
static void move_offsets(struct boxes *b, size_t at, int64_t delta, int inside) {
  int moof = moof_of(b, inside);
  for (int i = 0; i < b->num; i++) {
    const struct node *n = &b->node[i];
    uint8_t *body = b->p + n->at + n->head;
    size_t left = n->len - n->head;
    if (n->type == FOURCC('t', 'r', 'u', 'n') && left >= 12 && body[3] & 1 && moof != NONE && moof_of(b, i) == moof)
      store_be32(body + 8, load_be32(body + 8) + (uint32_t)delta);
    if (n->type == FOURCC('t', 'f', 'h', 'd') && left >= 16 && body[3] & 1 && load_be64(body + 8) > at)
      store_be64(body + 8, load_be64(body + 8) + (uint64_t)delta);
    if (n->type == FOURCC('s', 'a', 'i', 'o') && moof != NONE && moof_of(b, i) == moof)
      move_saio(b->node[moof].at, body, left, at, delta);
    if (n->type == FOURCC('s', 'i', 'd', 'x'))
      move_sidx(n, body, left, at, delta);
  }
}

// Puts `with` in the place of `del` bytes at `at`, which lie in the box `inside` (NONE: in the file).
static int replace(struct boxes *b, int inside, size_t at, size_t del, const uint8_t *with, size_t len) {
  if (b->n - del + len > b->max)
    return 0;
  int64_t delta = (int64_t)len - (int64_t)del;
  if (delta)
    move_offsets(b, at, delta, inside);
  for (int i = inside; i != NONE; i = b->node[i].parent) {
    const struct node *n = &b->node[i];
    if (n->head == 16)
      store_be64(b->p + n->at + 8, n->len + (uint64_t)delta);
    else if (load_be32(b->p + n->at))
      store_be32(b->p + n->at, (uint32_t)(n->len + (uint64_t)delta));
  }
  memmove(b->p + at + len, b->p + at + del, b->n - at - del);
  if (len)
    memcpy(b->p + at, with, len);
  b->n += len - del;
  return 1;
}

// A box of `from` goes into `b`, beside any box there.
static int insert_copy(struct boxes *b, const struct boxes *from) {
  uint8_t piece[MAX_PIECE];
  const struct node *n = &from->node[below(b, (size_t)from->num)], *beside = &b->node[below(b, (size_t)b->num)];
  if (n->len > sizeof piece)
    return 0;
  memcpy(piece, from->p + n->at, n->len);
  // Mostly where boxes of its kind stand.
  for (int i = 0, start = (int)below(b, (size_t)b->num); i < b->num && below(b, 4); i++)
    if (b->node[(start + i) % b->num].type == n->type) {
      beside = &b->node[(start + i) % b->num];
      break;
    }
  return replace(b, beside->parent, beside->at + (below(b, 2) ? beside->len : 0), 0, piece, n->len);
}

static int change_body(struct boxes *b, const struct node *n, int me) {
  uint8_t piece[MAX_PIECE];
  size_t len = n->len - n->head;
  // Of a box with others in it only what stands before them.
  for (int i = me + 1; i < b->num && i == me + 1; i++)
    if (b->node[i].parent == me)
      len = b->node[i].at - n->at - n->head;
  if (len > sizeof piece / 2)
    return 0;
  memcpy(piece, b->p + n->at + n->head, len);
  size_t now = LLVMFuzzerMutate(piece, len, below(b, 2) ? len : sizeof piece);
  if (n->type == FOURCC('t', 'r', 'u', 'n') && now >= 12 && len >= 12 && piece[3] & 1) // as move_offsets does for the others
    store_be32(piece + 8, load_be32(piece + 8) + (uint32_t)(now - len));
  return replace(b, me, n->at + n->head, len, piece, now);
}

// A word of a box's body becomes one that is at an edge.
static int change_word(struct boxes *b, const struct node *n) {
  static const uint32_t words[] = {0, 1, 2, 7, 8, 16, 255, 0x10000, 0x7fffffff, 0x80000000, 0xfffffff8, 0xffffffff};
  size_t num = (n->len - n->head) / 4;
  if (!num)
    return 0;
  uint8_t *at = b->p + n->at + n->head + 4 * below(b, num < 24 ? num : 24);
  uint32_t edge = words[below(b, sizeof words / sizeof *words)], old = load_be32(at);
  store_be32(at, below(b, 2) ? edge : below(b, 2) ? old + 1 - 2 * below(b, 2) : old ^ 1u << below(b, 32));
  return 1;
}

static int wide_size(struct boxes *b, const struct node *n, int me) {
  static const uint8_t zeros[8];
  size_t at = n->at;
  if (n->head != 8 || !replace(b, me, at + 8, 0, zeros, 8))
    return 0;
  store_be64(b->p + at + 8, n->len + 8);
  store_be32(b->p + at, 1);
  return 1;
}

static int change(struct boxes *b) {
  static const char types[][5] = {
      "free", "skip", "uuid", "moof", "traf", "trun", "tfhd", "tfdt", "mdat", "styp", "sidx", "senc", "saiz", "saio", "sgpd",
      "sbgp", "pssh", "sinf", "schm", "schi", "tenc", "frma", "enca", "mp4a", "Opus", "fLaC", "dOps", "dfLa", "esds", "elst",
      "edts", "trex", "emsg", "prft", "alac", "ac-3", "dac3", "ec-3", "dec3", "mha1", "mhaC", "mhm1", "ac-4", "dac4", "iamf",
      "iacb", "mfra", "elng", "mdhd", "hdlr", "tkhd", "stsd", "encv", "mp4v"};
  int me = (int)below(b, (size_t)b->num);
  const struct node n = b->node[me];
  switch (below(b, 10)) {
  case 0: return replace(b, n.parent, n.at, n.len, NULL, 0);
  case 1:
  case 2: return insert_copy(b, b);
  case 3: store_be32(b->p + n.at + 4, load_be32((const uint8_t *)types[below(b, sizeof types / sizeof *types)])); return 1;
  case 4: return wide_size(b, &n, me);
  case 5:
  case 6: return change_word(b, &n);
  default: return change_body(b, &n, me);
  }
}

static int open_boxes(struct boxes *b, uint8_t *p, size_t n, size_t max, unsigned seed) {
  b->p = p;
  b->n = n;
  b->max = max;
  b->num = 0;
  b->rng = seed * 2654435761u + 1;
  if (n > fuzz_boxes.head)
    scan(b, fuzz_boxes.head, n, NONE, 0);
  return b->num;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
  static struct boxes b;
  uint8_t tail[64];
  size_t t = fuzz_boxes.tail;
  if (size <= t + fuzz_boxes.head || t > sizeof tail || seed % 4 == 0)
    return LLVMFuzzerMutate(data, size, max);
  memcpy(tail, data + size - t, t);
  int done = 0;
  for (unsigned turn = 0; turn < 1 + seed / 4 % 3; turn++) {
    size_t n = done ? b.n : size - t;
    if (!open_boxes(&b, data, n, max - t, seed + turn * 7919))
      break;
    done += change(&b);
    done += b.n != n && !done;
  }
  if (!done)
    return LLVMFuzzerMutate(data, size, max);
  if (t && seed % 16 == 1)
    tail[0] ^= (uint8_t)(1u << seed / 16 % 8);
  memcpy(data + b.n, tail, t);
  return b.n + t;
}

size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, uint8_t *out, size_t max, unsigned seed) {
  static struct boxes to, from;
  size_t t = fuzz_boxes.tail;
  if (a_len > max || a_len <= t || b_len <= t)
    return 0;
  memcpy(out, a, a_len);
  if (!open_boxes(&to, out, a_len - t, max - t, seed) || !open_boxes(&from, (uint8_t *)(uintptr_t)b, b_len - t, b_len, seed) || !insert_copy(&to, &from))
    return 0;
  memcpy(out + to.n, a + a_len - t, t);
  return to.n + t;
}
