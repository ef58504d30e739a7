#include "server/reloads.h"

#include <stdlib.h>

#include "base/text.h"
#include "obs/log.h"
#include "obs/told.h"
#include "server/aside.h"
#include "server/catalog_int.h"
#include "server/catalog_new.h"
#include "server/certificates.h"
#include "server/crash.h"
#include "server/notify.h"
#include "server/schedules.h"
#include "server/worker.h"

struct reloads {
  struct server *s;
  const char *file;
  const struct config_flags *flags;
  struct aside a; // its lock is held while a reload comes into force, never while files are read
  bool under_way; // under the lock
};

// What a reload is to bring into force.
struct fresh {
  struct config *config;
  struct keyring *keyring;
  struct settings *settings; // has both
  struct next_certificates *certificates;
};

// URLs below an epoch were handed out for a year. What changes their bytes all the same is taken over, for it may have to be,
// and said, with what makes it whole again.
static void warn_old_urls(const struct server *s, const struct config *fresh, const struct keyring *keyring) {
  char options[CONFIG_OLD_URLS_MAX], sections[KEYS_CHANGED_MAX];
  struct settings *st = settings_get(s->catalog);
  config_old_urls(options, st->config, fresh);
  keys_changed(sections, st->keyring->set, keyring->set);
  settings_put(st);
  if (*options || *sections)
    log_line(LOG_WARN, "reload: changed: %s%s%s%s: URLs of epochs that have begun give other bytes now, and caches keep the old ones "
                       "for a year: rotate (sluice rotate --all) and purge what CDNs have of the old epochs",
             options, *options && *sections ? ", " : "", *sections ? "of the keys file: " : "", sections);
}

static void give_up(struct fresh *f) {
  workers_forget(f->certificates);
  if (f->settings) {
    settings_put(f->settings);
    return;
  }
  keyring_put(f->keyring);
  config_free(f->config);
}

// state_dir changes with a restart only: the secret stays where it is, as the journal does. Once there are keys of it no other is made.
static struct keyring *load_keyring(struct server *s, struct config *c, struct config_error *error) {
  char *asked = c->state_dir;
  c->state_dir = s->first->state_dir;
  struct settings *st = settings_get(s->catalog);
  struct keyring *k = keyring_reload(c, st->keyring, s->had_secret ? LACKING_REFUSED : LACKING_MADE, error);
  settings_put(st);
  c->state_dir = asked;
  s->had_secret |= k && keyring_own_secret(k);
  return k;
}

static struct bytes config_text(const struct config *c) { return bytes_of((const uint8_t *)c->text, c->text_len); }

// What a full disk leaves of a file. Taken as it is it would be the defaults, a new secret among them.
static bool emptied(struct server *s, const struct config *c, struct config_error *error) {
  struct settings *st = settings_get(s->catalog);
  bool gone = text_blank(config_text(c)) && !text_blank(config_text(st->config));
  settings_put(st);
  return gone && !config_fail(error, "%s: the file is empty now: put it back", TOLD(c->file));
}

// Reads and checks all of it: this may wait for files.
static bool load(const struct reloads *h, struct fresh *f, struct config_error *error) {
  struct server *s = h->s;
  f->config = config_load(h->file, h->flags, error);
  f->keyring = f->config && !emptied(s, f->config, error) ? load_keyring(s, f->config, error) : NULL;
  f->settings = f->keyring ? catalog_prepare(s->catalog, f->config, f->keyring, error) : NULL;
  return f->settings && workers_prepare(s, f->config, &f->certificates, error);
}

// This waits for nothing.
static void take(const struct reloads *h, struct fresh *f) {
  struct server *s = h->s;
  workers_take(s, f->certificates);
  const char *restart = config_restart_needed(s->first, f->config);
  if (restart)
    log_line(LOG_WARN, "reload: %s changed but needs a restart; the old value stays", restart);
  // It would renumber every epoch under way, those that were revoked too.
  uint32_t base = epoch_store_base(catalog_epochs(s->catalog));
  if (f->keyring->info.default_epoch != base)
    log_line(LOG_WARN, "reload: epochs.default changed from %u to %u but needs a restart; the old value stays", base, f->keyring->info.default_epoch);
  log_set_level((enum log_level)f->config->log_level);
  server_warn_insecure(f->config);
  warn_old_urls(s, f->config, f->keyring);
  catalog_reload(s->catalog, f->settings);
  schedules_wake(s);
  if (s->access)
    access_reopen(s->access);
  metric_add_shared(&s->metrics[s->num_workers].reloads_ok, 1);
  log_line(LOG_INFO, "reloaded %s", h->file ? h->file : "keys");
}

// The whole new configuration is made and checked before anything of it is in force. Begins and ends under the lock.
static void reload(struct reloads *h) {
  struct fresh f = {0};
  struct config_error error;
  h->a.again = false;
  h->under_way = true;
  notify_reloading(); // under the lock: once reloads_stop has had it, the manager is told STOPPING=1 and nothing else
  pthread_mutex_unlock(&h->a.lock);
  bool ok = load(h, &f, &error);
  pthread_mutex_lock(&h->a.lock);
  h->under_way = false;
  if (ok && !h->a.stop) {
    take(h, &f);
  } else if (ok) {
    give_up(&f);
    log_line(LOG_INFO, "reload given up: the server is ending with the old configuration");
  } else {
    give_up(&f);
    log_line(LOG_ERROR, "reload refused, the old configuration stays in force: %s", error.text);
    metric_add_shared(&h->s->metrics[h->s->num_workers].reloads_failed, 1);
  }
  if (!h->a.stop)
    notify_manager("READY=1");
}

static void *reloads_main(void *arg) {
  struct reloads *h = arg;
  crash_thread();
  pthread_setname_np(pthread_self(), "reloads");
  pthread_mutex_lock(&h->a.lock);
  while (!h->a.stop) {
    if (h->a.again) {
      reload(h);
      continue;
    }
    aside_sleep(&h->a, certificates_say(h->s));
  }
  pthread_mutex_unlock(&h->a.lock);
  return NULL;
}

bool reloads_start(struct server *s, const char *file, const struct config_flags *flags, struct config_error *e) {
  struct reloads *h = calloc(1, sizeof *h);
  s->reloads = h;
  if (!h)
    return config_fail(e, "out of memory");
  h->s = s;
  h->file = file;
  h->flags = flags;
  return aside_start(&h->a, "reloads", reloads_main, h, e);
}

void reloads_ask(struct server *s) {
  struct reloads *h = s->reloads;
  pthread_mutex_lock(&h->a.lock);
  if (h->under_way)
    log_line(LOG_WARN, "a reload is still reading its files; another follows it");
  pthread_mutex_unlock(&h->a.lock);
  aside_wake(&h->a);
}

void reloads_stop(struct server *s) {
  if (s->reloads)
    aside_stop(&s->reloads->a);
}

void reloads_end(struct server *s) {
  if (!s->reloads)
    return;
  aside_end(&s->reloads->a);
  free(s->reloads);
  s->reloads = NULL;
}
