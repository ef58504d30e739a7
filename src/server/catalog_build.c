// Making tracks: the slow half of the catalogue, on helper threads.
#include <stdio.h>
#include <stdlib.h>

#include "obs/log.h"
#include "server/catalog_build.h"

static const char *const track_suffixes[] = {".mp4", ".m4a", ".cmfa", ""}; // "": a folder
enum { NUM_SUFFIXES = 4, KEY_LOG_MS = 10000, STORAGE_LOG_MS = 1000 };

void log_source(struct catalog *c, struct bytes path, enum err e, struct diag *diag) {
  uint64_t now = clock_mono_ms(), due = atomic_load(&c->storage_log_due_ms);
  char why[300];
  if (e == ERR_IO && (now < due || !atomic_compare_exchange_strong(&c->storage_log_due_ms, &due, now + STORAGE_LOG_MS))) {
    atomic_fetch_add(&c->storage_log_more, 1);
    return;
  }
  (void)diag_say(diag, e, NULL); // where nobody said more
  diag_format(diag, why, sizeof why);
  unsigned more = e == ERR_IO ? atomic_exchange(&c->storage_log_more, 0) : 0;
  if (more)
    log_line(LOG_ERROR, "%.*s: %s (and %u more looks at storage that failed)", (int)path.n, (const char *)path.p, why, more);
  else
    log_line(LOG_ERROR, "%.*s: %s", (int)path.n, (const char *)path.p, why);
}

static void count_source(struct catalog *c, enum source_from from, uint64_t started_ms) {
  if (from == SOURCE_OPEN)
    return;
  metric_add_shared(from == SOURCE_SIDECAR ? &c->metrics->index_sidecar : &c->metrics->index_built, 1);
  histogram_add_shared(&c->metrics->open_time, (clock_mono_ms() - started_ms) * 1000000u);
}

enum err open_track(struct catalog *c, struct source **out, const struct settings *st, struct bytes asset, struct bytes track,
                    struct key_use *use) {
  struct source_options o = {.segment_target_ms = st->config->segment_target, .cache_fd = c->cache_fd,
                             .write_sidecar = st->config->write_sidecars};
  uint64_t started = clock_mono_ms();
  char path[PATH_BYTES];
  enum err itself = is_track_itself(c, asset, track);
  if (itself != ERR_NOT_FOUND)
    return itself == ERR_OK ? ERR_NOT_FOUND : itself;
  for (unsigned i = 0; i < NUM_SUFFIXES; i++) {
    struct diag diag = {0};
    enum source_from from;
    int n = snprintf(path, sizeof path, "%.*s/%.*s%s", (int)asset.n, (const char *)asset.p, (int)track.n,
                     (const char *)track.p, track_suffixes[i]);
    if (n < 0 || (size_t)n >= sizeof path)
      return ERR_NOT_FOUND;
    enum err e = *track_suffixes[i] ? ERR_OK : media_track_folder((struct media_path){c->root_fd, path});
    if (e)
      (void)diag_say(&diag, e, "%s", e == ERR_MISSING ? media_lacks_init : "cannot look into the folder");
    else
      e = sources_get(c->sources, out, &from, path, &o, &use->opening, &diag);
    if (e == ERR_NOT_FOUND)
      continue;
    if (e == ERR_BUSY)
      return e;
    if (e) {
      metric_add_shared(&c->metrics->index_failed, 1);
      log_source(c, bytes_str(path), e, &diag);
    } else {
      count_source(c, from, started);
      if (use->opened.num < sizeof use->opened.at / sizeof *use->opened.at) {
        source_ref(*out);
        use->opened.at[use->opened.num++] = *out;
      }
    }
    return e;
  }
  return ERR_NOT_FOUND;
}

// The key for a query, from wherever the configuration says.
static enum err find_key(struct catalog *c, struct key_record *out, const struct protect_in *in, const struct key_query *q,
                         const struct drm_settings *set) {
  const struct key_remote *r = keys_remote(in->st->keyring->set, q->asset);
  struct exchange *x = atomic_load(&c->exchange);
  struct key_use *use = in->use;
  if (!r)
    return keys_lookup(out, in->st->keyring->set, q);
  if (!use->issued && x) {
    struct key_ask a = exchange_ask(x, in->st->keyring, r, q, set);
    use->issued = a.issued;
    use->slot = a.got == KEY_FLYING ? a.slot : NULL;
    use->retry_ms = a.retry_ms;
  }
  return use->issued ? exchange_label(out, use->issued, q) : ERR_NO_KEY;
}

// Says that a key is not there, where nobody else does (the exchange tells of key servers): at most once in KEY_LOG_MS,
// because players ask for one asset again and again. sluice_keys_total counts them all.
static void log_no_key(struct catalog *c, const struct protect_in *in, struct bytes label) {
  uint64_t now = clock_mono_ms(), due = atomic_load(&c->key_log_due_ms);
  bool remote = keys_remote(in->st->keyring->set, in->asset) != NULL;
  if ((remote && !in->use->issued) || now < due || !atomic_compare_exchange_strong(&c->key_log_due_ms, &due, now + KEY_LOG_MS))
    return;
  log_line(LOG_WARN, "%.*s: no key for %s, epoch %u%s%.*s: the answer is 503", (int)in->asset.n, (const char *)in->asset.p,
           scheme_name(in->scheme), in->epoch, label.n ? ", label " : "", (int)label.n, (const char *)label.p);
}

enum err protect(struct catalog *c, struct full_track *f, struct key_record *key, const struct protect_in *in) {
  struct protected_track *t = &f->pub;
  const struct track_index *ix = &in->source->index.ix;
  struct diag diag = {0};
  enum err e = ERR_OK;
  t->prot.scheme = in->scheme;
  if (in->scheme != SCHEME_CLEAR) {
    char la_url[KEYRING_URL_MAX];
    struct drm_settings set;
    keyring_drm(&set, la_url, in->st->keyring, atomic_load(&c->own_url), in->asset);
    struct key_query q = {.asset = in->asset, .epoch = in->epoch, .scheme = in->scheme, .label = drm_label(&set, ix->h->format)};
    e = find_key(c, key, in, &q, &set);
    if (e == ERR_NO_KEY)
      log_no_key(c, in, q.label);
    if (!in->use->slot) // else it is being fetched, and asked for again then
      metric_add_shared(e ? &c->metrics->keys_missing : &c->metrics->keys_derived, 1);
    in->use->no_key |= e == ERR_NO_KEY;
    if (e)
      return e;
    key_record_protection(&t->prot, key, c->ops, ix->h->identity.digest, ix->h->track_id);
    struct drm_input input = {.key = key, .set = &set};
    struct writer w = wr_of(NULL, 0);
    drm_pssh(&w, &input);
    if (w.n) {
      f->pssh = malloc(w.n);
      if (!f->pssh)
        return ERR_NO_MEMORY;
      w = wr_of(f->pssh, w.n);
      drm_pssh(&w, &input);
      t->prot.pssh = bytes_of(f->pssh, w.n);
    }
    t->prot.no_senc = in->scheme == SCHEME_CBCS && !in->st->config->cbcs_senc;
    t->prot.wide_iv = in->scheme == SCHEME_CENC && in->st->config->cenc_iv_size == CENC_IV_16;
  }
  e = plan_init(&t->plan, ix, &in->source->segs, &t->prot, &diag);
  if (e) {
    log_source(c, bytes_str(in->source->path), e, &diag);
    return e;
  }
  uint8_t tag[16];
  plan_tag(&t->plan, tag);
  struct writer w = wr_of(t->etag, 16);
  for (int i = 0; i < 8; i++)
    wr_fmt(&w, "%02x", tag[i]);
  t->source = in->source;
  t->source_id = in->source->id;
  t->epoch = in->epoch;
  return ERR_OK;
}

int status_of(enum err e) {
  switch ((int)e) {
  case ERR_OK: return CAT_OK;
  case ERR_NOT_FOUND: return CAT_NOT_FOUND;
  case ERR_NO_KEY:
  case ERR_IO:
  case ERR_NO_MEMORY:
  case ERR_BUSY:
  case ERR_STALE: return CAT_UNAVAILABLE; // the next look may succeed
  default: return CAT_NOT_FOUND; // manifests leave such a track out, so from outside it is not there; the log says what it is
  }
}

uint8_t fault_of(enum err e) {
  switch ((int)e) {
  case ERR_IO: return OBS_err_source_io;
  case ERR_STALE: return OBS_err_source_changed;
  case ERR_OK:
  case ERR_NOT_FOUND:
  case ERR_NO_KEY:
  case ERR_BUSY:
  case ERR_NO_MEMORY: return 0;
  default: return OBS_err_source_invalid;
  }
}

static void put_all(struct catalog *c, struct kept *k) {
  for (unsigned i = 0; i < k->num; i++)
    source_put(c->sources, k->at[i]);
}

void kept_drop(struct catalog *c, struct kept *k) {
  if (k)
    put_all(c, k);
  free(k);
}

static void use_end(struct catalog *c, struct made *out, struct key_use *use) {
  bool waits = use->slot || use->opening;
  issued_drop(use->issued);
  out->retry_ms = use->retry_ms;
  out->no_key = use->no_key;
  out->kept = waits ? malloc(sizeof *out->kept) : NULL;
  if (out->kept)
    *out->kept = use->opened;
  else
    put_all(c, &use->opened);
  if (!waits)
    return;
  out->status = CAT_WAIT;
  out->keys = use->slot;
  out->opening = use->opening;
}

static void build_track(struct catalog *c, struct made *out, const struct settings *st, const struct route *r,
                        struct protected_track *old, struct key_use *use) {
  struct source *source;
  struct key_record key = {0};
  enum err e = open_track(c, &source, st, r->asset, r->track, use);
  if (e) {
    out->status = status_of(e);
    out->why = fault_of(e);
    return;
  }
  struct full_track *f = track_alloc(c);
  struct protect_in in = {st, use, r->asset, r->scheme, r->epoch, source};
  if (!f) {
    source_put(c->sources, source);
    out->status = CAT_UNAVAILABLE;
    return;
  }
  e = protect(c, f, &key, &in);
  key_record_wipe(&key);
  f->pub.source = source;
  out->status = status_of(e);
  out->why = fault_of(e);
  if (!e && old && old->source == source && !strcmp(old->etag, f->pub.etag)) {
    track_hold(old);
    out->value = old;
  } else if (!e) {
    out->value = &f->pub;
    return;
  }
  track_retire_now(f);
}

// Both the configuration and the keys file may narrow the schemes; only the configuration opens `clear`.
static bool scheme_allowed(const struct settings *st, const struct route *r) {
  unsigned bits = config_schemes(st->config, r->asset);
  if (r->scheme != SCHEME_CLEAR)
    bits &= keys_drm(st->keyring->set, r->asset)->schemes;
  return bits & 1u << r->scheme;
}

void build_entry(struct catalog *c, struct made *out, const struct settings *st, const struct route *r, void *old) {
  uint64_t until_unix = UINT64_MAX, now_unix = clock_unix_ms(), now = clock_mono_ms();
  uint32_t epoch = r->epoch;
  *out = (struct made){.until_ms = UINT64_MAX};
  if (!scheme_allowed(st, r)) {
    out->status = CAT_FORBIDDEN;
    return;
  }
  if (r->kind == ROUTE_KEY && (!st->keyring->insecure || r->scheme == SCHEME_CLEAR)) {
    out->status = CAT_FORBIDDEN;
    return;
  }
  if (epoch == 0) {
    epoch = epoch_store_current(c->epochs, r->asset);
  } else {
    switch (epoch_store_status(c->epochs, r->asset, epoch, now_unix, &until_unix)) {
    case EPOCH_CURRENT:
    case EPOCH_GRACE: break;
    case EPOCH_EXPIRED:
    case EPOCH_REVOKED: out->status = CAT_GONE; return;
    case EPOCH_UNKNOWN: out->status = CAT_NOT_FOUND; return;
    }
  }
  if (until_unix != UINT64_MAX)
    out->until_ms = now + (until_unix > now_unix ? until_unix - now_unix : 0);
  struct key_use use = {0};
  if (r->kind == ROUTE_INIT)
    build_track(c, out, st, r, old, &use);
  else
    build_text(c, out, st, r, epoch, old, &use);
  use_end(c, out, &use);
}
