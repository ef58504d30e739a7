#include "server/rotation.h"

#include <pthread.h>

#include "keys/schedule.h"
#include "obs/log.h"

enum { RETRY_MS = 60000, NAME_MAX_LOG = 200 };

uint64_t rotation_grace(const struct rotation_rules *r, const struct rotation_order *o) {
  if (o->revoke)
    return 0;
  return o->has_grace ? o->grace_ms : r->info->has_grace ? r->info->grace_ms : r->grace_ms;
}

static uint32_t current(void *epochs, struct bytes asset) { return epoch_store_current(epochs, asset); }

static enum err say_missing(const struct key_query *q, struct diag *diag) {
  bool any = q->scheme != SCHEME_CLEAR;
  return diag_say(diag, ERR_NO_KEY, "the keys file has no key of the next epoch (%u%s%s%s%.*s) for %.*s", q->epoch, any ? ", " : "",
                  any ? scheme_name(q->scheme) : "", q->label.n ? ", label " : "", (int)q->label.n, (const char *)q->label.p,
                  (int)(q->asset.n < NAME_MAX_LOG ? q->asset.n : NAME_MAX_LOG), (const char *)q->asset.p);
}

// A key may go on into the next epoch, as when a file was replaced; but not where the old epochs are revoked, for then it leaked.
static enum err check_keys(const struct rotation_rules *r, struct bytes scope, bool revoke, struct diag *diag) {
  struct key_query lack;
  struct bytes who;
  if (keys_missing(&lack, r->keys, scope, current, r->epochs))
    return say_missing(&lack, diag);
  if (!keys_repeated(&who, r->keys, scope, current, r->epochs))
    return ERR_OK;
  int len = (int)(who.n < NAME_MAX_LOG ? who.n : NAME_MAX_LOG);
  const char *name = (const char *)who.p;
  if (revoke)
    return diag_say(diag, ERR_NO_KEY, "the keys file gives the next epoch the KID or key of this one for %.*s: what leaked would go on; give it new ones",
                    len, name);
  log_line(LOG_WARN, "the keys file gives the next epoch the KID or key of this one for %.*s: URLs and IVs change, the key does not", len, name);
  return ERR_OK;
}

// Held from the look at the keys until the rotation that it allows is in force: orders and schedules have threads of their own.
static pthread_mutex_t rotating = PTHREAD_MUTEX_INITIALIZER;

enum err rotation_order(const struct rotation_rules *r, const struct rotation_order *o, uint64_t now_ms, struct diag *diag) {
  pthread_mutex_lock(&rotating);
  enum err e = check_keys(r, o->scope, o->revoke, diag);
  if (!e)
    e = epoch_store_rotate(r->epochs, o->scope, rotation_grace(r, o), o->revoke, now_ms, diag);
  pthread_mutex_unlock(&rotating);
  return e;
}

static enum err act(const struct rotation_rules *r, const struct key_schedule *s, const struct schedule_step *step,
                    uint64_t now_ms, struct diag *diag) {
  if (step->act == SCHEDULE_BEGIN)
    return epoch_store_set_slot(r->epochs, s->scope, step->slot_ms, diag);
  struct rotation_order o = {.scope = s->scope, .grace_ms = s->grace_ms, .has_grace = s->has_grace};
  pthread_mutex_lock(&rotating);
  enum err e = check_keys(r, s->scope, false, diag);
  if (!e)
    e = epoch_store_rotate_slot(r->epochs, s->scope, rotation_grace(r, &o), step->slot_ms, now_ms, diag);
  pthread_mutex_unlock(&rotating);
  return e;
}

uint64_t rotation_schedule(const struct rotation_rules *r, uint64_t retry_ms[KEYS_MAX_SCHEDULES], uint64_t now_ms,
                           void (*rotated)(void *ctx, struct bytes scope), void *ctx) {
  uint64_t next = UINT64_MAX;
  for (uint32_t i = 0; i < r->info->num_schedules; i++) {
    const struct key_schedule *s = &r->info->schedules[i];
    struct schedule_step step = schedule_step(epoch_store_slot(r->epochs, s->scope), s->every_ms, now_ms);
    struct diag diag = {0};
    const char *name = s->scope.n ? (const char *)s->scope.p : "everything";
    int len = s->scope.n ? (int)s->scope.n : (int)strlen(name);
    bool later = now_ms < retry_ms[i] && retry_ms[i] - now_ms <= RETRY_MS; // else the clock was set back
    if (step.act != SCHEDULE_WAIT && later) {
      step.next_ms = retry_ms[i];
    } else if (step.act != SCHEDULE_WAIT && act(r, s, &step, now_ms, &diag)) {
      char why[300];
      diag_format(&diag, why, sizeof why);
      log_line(LOG_ERROR, "the scheduled rotation of %.*s is due and failed; it will be tried again: %s", len, name, why);
      step.next_ms = retry_ms[i] = now_ms + RETRY_MS;
    } else if (step.act == SCHEDULE_ROTATE) {
      log_line(LOG_INFO, "rotated %.*s, by schedule", len, name);
      rotated(ctx, s->scope);
    }
    next = step.next_ms < next ? step.next_ms : next;
  }
  return next;
}
