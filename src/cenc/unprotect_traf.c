// Which key and IV each sample of a traf has: senc or auxiliary information, and sample groups.
#include <stdio.h>

#include "base/text.h"
#include "cenc/unprotect_parts.h"

#define CC(a, b, c, d) FOURCC(a, b, c, d)

enum { GROUP_LOCAL = 0x10000 }; // group_description_index: above it, an index into the traf's own sgpd

// Per-sample protection data, read in sample order.
struct aux {
  enum { AUX_NONE, AUX_SENC, AUX_SAIZ } kind;
  struct reader r;
  bool subs;              // senc: every entry has subsamples
  uint32_t left;          // entries
  uint8_t size;           // saiz: of every entry, 0: see sizes
  const uint8_t *sizes;
  const uint8_t *offsets; // saio: of the runs that are to come; NULL: all entries lie back to back
  bool wide;              // 64 bits each
};

// Where the descriptions of one sgpd stand, as far as they were asked for: an sbgp may name them in any order, and where
// they tell no lengths, each says where the next one is.
struct sgpd {
  const uint8_t *body; // of the box; NULL: none
  uint32_t version, len, num, found;
  struct reader r;     // behind the last one found
  uint32_t at[UNP_MAX_GROUPS]; // from `body`
};

// sbgp of type seig: runs of samples with one description.
struct groups {
  struct bytes local;     // body of the traf's sgpd
  struct reader runs;
  uint32_t num_runs, left, index; // of the current run
  uint32_t fallback;      // of samples that are in no run
  uint32_t resolved;      // index that `tenc` stands for; 0: none yet
  struct tenc tenc;
};

struct traf_crypt {
  struct unp *u;
  struct traf t;
  struct aux aux;
  struct groups groups;
  const struct aes_key *key;
  const struct tenc *key_tenc; // what `key` was looked up for
  uint8_t kid[16];
  struct batch batch;
};

// The fault is told at the traf's first child of `type`, or at the traf when it has none (PIFF's senc is a uuid).
static enum err fail(const struct traf_crypt *c, enum err e, uint32_t type, const char *what) {
  struct reader r = unp_reader(c->u, c->t.box.body);
  struct box b;
  while (!box_next(&b, &r) && b.len)
    if (b.type == type)
      return unp_fail(c->u, e, b.body.p, type, what);
  return unp_fail(c->u, e, c->t.box.body.p, c->t.box.type, what);
}

// Source: ISO/IEC 23001-7 §7.2; PIFF 1.1 §5.3.2 for the uuid form (flag 1: algorithm, IV size and KID stand first).
static enum err senc_open(struct aux *a, const struct unp *u, struct bytes body, bool piff) {
  struct reader r = unp_reader(u, body);
  uint32_t flags = rd_u32(&r) & 0xffffff;
  if (piff && (flags & 1))
    rd_skip(&r, 20);
  *a = (struct aux){.kind = AUX_SENC, .subs = (flags & 2) != 0, .left = rd_u32(&r)};
  a->r = r;
  return r.err;
}

// aux_at puts the reader on the next `num` entries, which lie back to back from where an offset says. Each sample has its own: trafs that
// all point at the same ones would have all of the file read for each of them.
static enum err aux_at(struct aux *a, const struct traf_crypt *c, uint64_t off, uint32_t num, const char **what) {
  struct unp *u = c->u;
  uint64_t len = (uint64_t)a->size * num, room = u->in->file.n - c->t.base;
  for (uint32_t i = 0; !a->size && i < num; i++)
    len += a->sizes[i];
  if (off > room || len > room - off)
    return ERR_TRUNCATED;
  if ((u->aux_bytes += len) > u->in->file.n) {
    *what = "there is more auxiliary information than bytes";
    return ERR_MALFORMED;
  }
  uint64_t pos = c->t.base + off;
  unp_belongs(u, pos, len);
  a->r = unp_reader(u, bytes_of(u->in->file.p + pos, (size_t)len));
  return u->dry ? unp_load(u, pos, len) : ERR_OK; // else all of the group is there
}

// aux_run goes on to the entries of the next run, of `num` samples.
static enum err aux_run(struct aux *a, const struct traf_crypt *c, uint32_t num, const char **what) {
  if (!a->offsets)
    return ERR_OK;
  uint64_t off = a->wide ? load_be64(a->offsets) : load_be32(a->offsets);
  a->offsets += a->wide ? 8 : 4;
  return aux_at(a, c, off, num < a->left ? num : a->left, what);
}

// Auxiliary information anywhere in the file, behind one offset or behind one for each of the traf's runs.
// Source: ISO/IEC 14496-12 §8.7.8, §8.7.9.
static enum err saiz_open(struct aux *a, const struct traf_crypt *c, struct bytes saiz, struct bytes saio, uint32_t num_runs,
                          const char **what) {
  const struct unp *u = c->u;
  struct reader z = unp_reader(u, saiz), o = unp_reader(u, saio);
  if (rd_u32(&z) & 1)
    rd_skip(&z, 8);
  uint8_t size = rd_u8(&z);
  uint32_t num = rd_u32(&z);
  const uint8_t *sizes = size ? NULL : rd_take(&z, num);
  uint32_t head = rd_u32(&o);
  if (head & 1)
    rd_skip(&o, 8);
  uint32_t num_offsets = rd_u32(&o);
  bool wide = head >> 24 != 0;
  if (!z.err && !o.err && num_offsets != 1 && num_offsets != num_runs) {
    *what = "saio has neither one offset nor one for each trun";
    return ERR_MALFORMED;
  }
  const uint8_t *offsets = rd_take(&o, (size_t)num_offsets * (wide ? 8 : 4));
  if (z.err || o.err)
    return z.err ? z.err : o.err;
  *a = (struct aux){.kind = AUX_SAIZ, .left = num, .size = size, .sizes = sizes, .wide = wide};
  if (num_offsets == 1)
    return aux_at(a, c, wide ? load_be64(offsets) : load_be32(offsets), num, what);
  a->offsets = offsets;
  return ERR_OK;
}

static enum err sbgp_open(struct groups *g, const struct unp *u, struct bytes body) {
  struct reader r = unp_reader(u, body);
  uint32_t version = rd_u32(&r) >> 24;
  rd_skip(&r, version == 1 ? 8 : 4);
  g->num_runs = rd_u32(&r);
  g->runs = r;
  return r.err;
}

// Source: ISO/IEC 14496-12 §8.9.3. A length from version 1 on, the default group from version 2 on.
static enum err sgpd_open(struct sgpd *s, const struct unp *u, struct bytes body) {
  struct reader r = unp_reader(u, body);
  uint32_t version = rd_u32(&r) >> 24;
  rd_skip(&r, 4);
  uint32_t len = version >= 1 ? rd_u32(&r) : 0;
  rd_skip(&r, version >= 2 ? 4 : 0);
  uint32_t num = rd_u32(&r);
  if (r.err)
    return r.err;
  s->body = body.p;
  s->version = version;
  s->len = len;
  s->num = num;
  s->found = 0;
  s->r = r;
  return ERR_OK;
}

// sgpd_default gives the index of the description of samples that no sbgp speaks of; 0: none.
static uint32_t sgpd_default(const struct unp *u, struct bytes body) {
  if (!body.n)
    return 0;
  struct reader r = unp_reader(u, body);
  uint32_t version = rd_u32(&r) >> 24;
  rd_skip(&r, 8);
  uint32_t index = version >= 2 ? rd_u32(&r) : 0;
  return r.err ? 0 : index;
}

void groups_forget(struct unp *u) {
  for (int i = 0; i < 2; i++)
    if (u->sgpds[i])
      u->sgpds[i]->body = NULL;
}

// group_find reads description `index` (from 1) of the sgpd of the traf (`local`) or the track.
static enum err group_find(struct tenc *out, struct unp *u, struct bytes body, bool local, uint32_t index) {
  struct sgpd *s = u->sgpds[local];
  if (!s) {
    s = (struct sgpd *)u->in->mem->get(u->in->mem, sizeof *s);
    if (!s)
      return ERR_NO_MEMORY;
    s->body = NULL;
    u->sgpds[local] = s;
  }
  enum err e = s->body && s->body == body.p ? ERR_OK : sgpd_open(s, u, body);
  if (e)
    return e;
  if (index == 0 || index > s->num)
    return ERR_MALFORMED;
  if (index > UNP_MAX_GROUPS)
    return ERR_LIMIT;
  while (!e && s->found < index) {
    struct tenc skipped;
    uint32_t len = s->version == 0 || s->len ? s->len : rd_u32(&s->r);
    s->at[s->found] = (uint32_t)(s->r.p - s->body);
    if (s->version)
      rd_skip(&s->r, len);
    else // no lengths: descriptions must be read
      e = tenc_read(&skipped, &s->r, true);
    e = e ? e : s->r.err;
    s->found += !e;
  }
  if (e)
    return e;
  size_t at = s->at[index - 1];
  struct reader r = unp_reader(u, bytes_of(body.p + at, body.n - at));
  return tenc_read(out, &r, true);
}

// groups_next gives the protection of the next sample: its group's, or else the sample entry's.
static enum err groups_next(struct traf_crypt *c, const struct tenc **out, const struct entry *entry) {
  struct groups *g = &c->groups;
  while (g->left == 0 && g->num_runs) {
    g->left = rd_u32(&g->runs);
    g->index = rd_u32(&g->runs);
    g->num_runs--;
    if (g->runs.err)
      return g->runs.err;
  }
  *out = &entry->tenc;
  uint32_t index = g->fallback;
  if (g->left) {
    g->left--;
    index = g->index;
  }
  if (index == 0)
    return ERR_OK;
  if (index != g->resolved) {
    bool local = index > GROUP_LOCAL;
    struct bytes sgpd = local ? g->local : c->t.track->seig;
    enum err e = group_find(&g->tenc, c->u, sgpd, local, local ? index - GROUP_LOCAL : index);
    if (e)
      return e;
    g->resolved = index;
    c->key_tenc = NULL; // the same address, maybe another KID
  }
  *out = &g->tenc;
  return ERR_OK;
}

// aux_next reads the next sample's IV and subsamples.
static enum err aux_next(struct aux *a, struct sample_crypt *s) {
  const struct tenc *t = s->tenc;
  memset(s->iv, 0, 16);
  if (t->const_iv_len)
    memcpy(s->iv, t->const_iv, t->const_iv_len);
  s->num_subs = 0;
  s->subs = NULL;
  if (a->kind == AUX_NONE || a->left == 0)
    return t->protected && t->iv_len ? ERR_MISSING : ERR_OK;
  a->left--;
  struct reader *r = &a->r, one;
  bool subs = a->subs;
  if (a->kind == AUX_SAIZ) {
    uint8_t size = a->size ? a->size : *a->sizes++;
    one = rd_sub(r, size);
    r = &one;
    if (!t->protected) // whatever it is
      return a->r.err;
    subs = size > t->iv_len;
  }
  struct bytes iv = rd_bytes(r, t->iv_len);
  if (iv.n) {
    memset(s->iv, 0, 16);
    memcpy(s->iv, iv.p, iv.n);
  }
  if (subs) {
    s->num_subs = rd_u16(r);
    s->subs = rd_take(r, 6 * (size_t)s->num_subs);
  }
  return r->err;
}

static enum err key_find(struct traf_crypt *c, const struct tenc *t) {
  if (c->key_tenc == t)
    return ERR_OK;
  const struct unprotect_input *in = c->u->in;
  for (size_t i = 0; i < in->num_keys; i++)
    if (memcmp(in->keys[i].kid, t->kid, 16) == 0) {
      c->key = &in->keys[i].key;
      c->key_tenc = t;
      return ERR_OK;
    }
  char what[64] = "no key for KID ";
  struct writer w = wr_of(what + strlen(what), 33);
  hex_write(&w, bytes_of(t->kid, 16));
  what[sizeof "no key for KID " - 1 + 32] = 0;
  return fail(c, ERR_NO_KEY, CC('t', 'r', 'a', 'f'), what);
}

static enum err next_sample(struct traf_crypt *c, const struct entry *entry, uint8_t *at, uint32_t len) {
  struct sample_crypt s = {.scheme = entry->scheme};
  enum err e = groups_next(c, &s.tenc, entry);
  if (e)
    return fail(c, e, CC('s', 'b', 'g', 'p'), NULL);
  if ((e = aux_next(&c->aux, &s)) != ERR_OK)
    return fail(c, e, CC('s', 'e', 'n', 'c'), e == ERR_MISSING ? "a protected sample has no IV" : NULL);
  if (!s.tenc->protected || len == 0)
    return ERR_OK;
  if ((e = key_find(c, s.tenc)) != ERR_OK)
    return e;
  s.key = c->key;
  e = c->u->dry ? sample_check(len, &s) : sample_decrypt(&c->batch, c->u->in->ops, at, len, &s);
  return e ? fail(c, e, CC('s', 'e', 'n', 'c'), "subsamples do not add up to the sample") : ERR_OK;
}

static enum err trun_decrypt(struct traf_crypt *c, const struct entry *entry, const struct box *b) {
  struct unp *u = c->u;
  struct trun n;
  enum err e = trun_open(&n, &c->t, u, b);
  if (e)
    return e;
  // Samples do not overlap, and each has a byte somewhere, in its data, in trun, or in its protection data, but for as many as an index
  // may have without any.
  u->sample_bytes += n.len;
  u->samples += n.num;
  if (u->sample_bytes > u->in->file.n || u->samples > u->in->file.n + LIMIT_FREE_SAMPLES)
    return unp_fail(u, ERR_MALFORMED, b->body.p, b->type, "there are more samples than bytes");
  const char *what = NULL;
  if ((e = aux_run(&c->aux, c, n.num, &what)) != ERR_OK)
    return fail(c, e, CC('s', 'a', 'i', 'o'), what);
  unp_belongs(u, n.pos, n.len);
  uint8_t *at = u->data + n.pos;
  for (uint32_t i = 0; i < n.num; i++) {
    uint32_t len = trun_size(&n, &c->t, i);
    if ((e = next_sample(c, entry, at, len)) != ERR_OK)
      return e;
    at += len;
  }
  return ERR_OK;
}

// find_aux looks at the traf's boxes before any sample: senc may stand behind the truns.
static enum err find_aux(struct traf_crypt *c) {
  const struct unp *u = c->u;
  struct bytes saiz = {0}, saio = {0};
  struct reader r = unp_reader(u, c->t.box.body);
  struct box b;
  enum err e, bad = ERR_OK;
  const char *what = NULL;
  uint32_t num_runs = 0;
  while (unp_next(u, &b, &r, &e)) {
    num_runs += b.type == CC('t', 'r', 'u', 'n');
    if (b.type == CC('s', 'e', 'n', 'c'))
      bad = senc_open(&c->aux, u, b.body, false);
    else if (box_is_piff_senc(&b))
      bad = senc_open(&c->aux, u, bytes_of(b.body.p + 16, b.body.n - 16), true);
    else if (b.type == CC('s', 'a', 'i', 'z') && box_is_cenc_aux(b.body))
      saiz = b.body;
    else if (b.type == CC('s', 'a', 'i', 'o') && box_is_cenc_aux(b.body))
      saio = b.body;
    else if (b.type == CC('s', 'g', 'p', 'd') && unp_is_seig(b.body))
      c->groups.local = b.body;
    else if (b.type == CC('s', 'b', 'g', 'p') && unp_is_seig(b.body))
      bad = sbgp_open(&c->groups, u, b.body);
    if (bad)
      return unp_fail(u, bad, b.body.p, b.type, NULL);
  }
  // The fragment's own default goes before the track's; in its box, indices count from 1 or as in sbgp.
  uint32_t own = sgpd_default(u, c->groups.local);
  c->groups.fallback = own ? own | GROUP_LOCAL : sgpd_default(u, c->t.track->seig);
  if (!e && c->aux.kind == AUX_NONE && saiz.n && saio.n && (e = saiz_open(&c->aux, c, saiz, saio, num_runs, &what)) != ERR_OK)
    return unp_fail(u, e, saio.p, CC('s', 'a', 'i', 'o'), what);
  return e;
}

static enum err traf_decrypt(struct traf_crypt *c) {
  const struct track *track = c->t.track;
  if (track && (c->t.entry == 0 || c->t.entry > track->num_entries))
    return fail(c, ERR_MALFORMED, CC('t', 'f', 'h', 'd'), "there is no such sample entry");
  const struct entry *entry = track ? &track->entries[c->t.entry - 1] : NULL;
  bool protected = entry && entry->scheme;
  enum err e = protected ? find_aux(c) : ERR_OK;
  if (e)
    return e;
  struct reader r = unp_reader(c->u, c->t.box.body);
  struct box b;
  while (unp_next(c->u, &b, &r, &e)) {
    struct trun n;
    if (b.type != CC('t', 'r', 'u', 'n'))
      continue;
    e = protected ? trun_decrypt(c, entry, &b) : trun_open(&n, &c->t, c->u, &b);
    if (e)
      return e;
  }
  batch_flush(&c->batch, c->u->in->ops);
  return e;
}

enum err moof_decrypt(struct unp *u, const struct box *moof) {
  struct reader r = unp_reader(u, moof->body);
  struct box b;
  enum err e;
  uint64_t data_end = moof->pos;
  while (unp_next(u, &b, &r, &e)) {
    if (b.type != CC('t', 'r', 'a', 'f'))
      continue;
    struct traf_crypt c;
    memset(&c.aux, 0, sizeof c.aux);
    memset(&c.groups, 0, sizeof c.groups);
    c.u = u;
    c.key = NULL;
    c.key_tenc = NULL;
    c.batch.num = 0;
    if ((e = traf_open(&c.t, u, moof, &b, data_end)) != ERR_OK || (e = traf_decrypt(&c)) != ERR_OK)
      return e;
    data_end = c.t.data_end;
  }
  return e;
}
