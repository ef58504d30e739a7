// The real workers over a catalogue that is made up, so that transport can be tested without media: any size, any delay,
// any failure by name. A track is called s<bytes of a segment>x<segments>; its output is the little-endian 32-bit words
// 0, 1, 2, …. Assets: "now" answers at once, "later" makes every lookup wait for another thread, "cut" loses its source
// after the third segment, "stuck" is not found, once SIGUSR1 comes, "hangs" loses its source behind the first segment then, "heap" allocates, "hot" is in the cache of encrypted segments once it was asked for, others answer with the
// status they are named after. Prints its port, drains on SIGTERM.
#include "server/catalog.h"
#include "server/server.h"
#include "server/worker.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { GUARD_STATUS = 70 };

// A worker that has answered a request takes no more memory from the heap: malloc on its thread ends the process. Not over
// TLS, where BoringSSL allocates for each record. Sanitizers bring a malloc of their own, which tells of each call. The asset
// "heap" allocates, to show that this would be noticed.
static _Thread_local volatile bool may_not_allocate; // volatile: compilers think that malloc does not look
static bool guard_off;

static void guard(void) {
  static const char text[] = "fixture: a worker called malloc while serving\n";
  if (!may_not_allocate || guard_off)
    return;
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  _exit(GUARD_STATUS);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// sanitizer/allocator_interface.h, which not every compiler brings
extern int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *p, size_t n),
                                                     void (*on_free)(const volatile void *p));

static void on_malloc(const volatile void *p, size_t n) {
  (void)p, (void)n;
  guard();
}

static void on_free(const volatile void *p) { (void)p; }

static bool guard_heap(void) { return __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free) > 0; }
#else
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t num, size_t n);
extern void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) {
  guard();
  return __libc_malloc(n);
}

void *calloc(size_t num, size_t n) {
  guard();
  return __libc_calloc(num, n);
}

void *realloc(void *p, size_t n) {
  guard();
  return __libc_realloc(p, n);
}

static bool guard_heap(void) { return true; }
#endif

struct fake_track {
  struct protected_track t;
  uint64_t segment, num;
  bool waits, cut, hot, hangs;
  _Atomic uint64_t taken, filled; // of the first 64 pieces: in the memory file, or on their way
};

static struct fake_track *of(const struct protected_track *t) { return (struct fake_track *)(uintptr_t)t; }

static struct {
  pthread_mutex_t lock;
  pthread_cond_t cond;
  struct cat_wait *list, *stuck;
  bool stop;
} helper = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, NULL, false};

enum { MAX_TRACKS = 64 };
static struct fake_track tracks[MAX_TRACKS];
static unsigned num_tracks;
static pthread_mutex_t tracks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct text_doc doc = {
    .body = {(const uint8_t *)"#EXTM3U of no track\n", 20}, .content_type = "text/x", .etag = "fedcba9876543210"};

static void *helper_main(void *arg) {
  (void)arg;
  pthread_mutex_lock(&helper.lock);
  while (!helper.stop || helper.list) {
    struct cat_wait *w = helper.list;
    if (!w) {
      pthread_cond_wait(&helper.cond, &helper.lock);
      continue;
    }
    helper.list = w->next;
    pthread_mutex_unlock(&helper.lock);
    usleep(500);
    w->wake(w);
    pthread_mutex_lock(&helper.lock);
  }
  pthread_mutex_unlock(&helper.lock);
  return NULL;
}

static int wait_for_helper(struct cat_wait *w, int status) {
  w->status = status;
  pthread_mutex_lock(&helper.lock);
  w->next = helper.list;
  helper.list = w;
  pthread_cond_signal(&helper.cond);
  pthread_mutex_unlock(&helper.lock);
  return CAT_WAIT;
}

static int wait_long(struct cat_wait *w) {
  w->status = CAT_NOT_FOUND;
  pthread_mutex_lock(&helper.lock);
  w->next = helper.stuck;
  helper.stuck = w;
  pthread_mutex_unlock(&helper.lock);
  return CAT_WAIT;
}

static void free_the_stuck(void) {
  pthread_mutex_lock(&helper.lock);
  while (helper.stuck) {
    struct cat_wait *w = helper.stuck;
    helper.stuck = w->next;
    w->next = helper.list;
    helper.list = w;
  }
  pthread_cond_signal(&helper.cond);
  pthread_mutex_unlock(&helper.lock);
}

static struct fake_track *track_of(uint64_t segment, uint64_t num, bool waits, bool cut, bool hot, bool hangs) {
  pthread_mutex_lock(&tracks_lock);
  struct fake_track *t = NULL;
  for (unsigned i = 0; i < num_tracks && !t; i++)
    if (tracks[i].segment == segment && tracks[i].num == num && tracks[i].waits == waits && tracks[i].cut == cut &&
        tracks[i].hot == hot && tracks[i].hangs == hangs)
      t = &tracks[i];
  if (!t && num_tracks < MAX_TRACKS) {
    t = &tracks[num_tracks++];
    *t = (struct fake_track){.segment = segment, .num = num, .waits = waits, .cut = cut, .hot = hot, .hangs = hangs};
    t->t.plan.total_len = segment * num;
    strcpy(t->t.etag, "0123456789abcdef");
  }
  pthread_mutex_unlock(&tracks_lock);
  return t;
}

int catalog_track(struct catalog *c, struct protected_track **out, const struct route *r, uint64_t now_ms, struct obs_worker *m,
                  struct cat_wait *w) {
  char name[64] = {0}, asset[16] = {0};
  may_not_allocate = true;
  unsigned long long segment, count;
  (void)c, (void)now_ms, (void)m;
  memcpy(name, r->track.p, r->track.n < 63 ? r->track.n : 63);
  memcpy(asset, r->asset.p, r->asset.n < 15 ? r->asset.n : 15);
  bool waits = !strcmp(asset, "later"), cut = !strcmp(asset, "cut"), hot = !strcmp(asset, "hot"), hangs = !strcmp(asset, "hangs");
  if (!strcmp(asset, "heap")) {
    void *volatile p = malloc(100);
    free(p);
  }
  if (!strcmp(asset, "stuck"))
    return wait_long(w);
  if (!waits && !cut && !hot && !hangs && strcmp(asset, "now"))
    return atoi(asset) ? atoi(asset) : CAT_NOT_FOUND;
  if (sscanf(name, "s%llux%llu", &segment, &count) != 2)
    return waits ? wait_for_helper(w, CAT_NOT_FOUND) : CAT_NOT_FOUND;
  struct fake_track *t = track_of(segment, count, waits, cut, hot, hangs);
  if (!t)
    return CAT_NOT_FOUND;
  if (!waits) {
    *out = &t->t;
    return CAT_OK;
  }
  w->track = &t->t;
  track_hold(&t->t);
  return wait_for_helper(w, CAT_OK);
}

int catalog_text(struct catalog *c, struct text_doc **out, const struct route *r, uint64_t now_ms, struct obs_worker *m,
                 struct cat_wait *w) {
  (void)c, (void)now_ms, (void)m;
  if (bytes_eq(r->asset, BYTES_LIT("later"))) {
    w->text = &doc;
    text_hold(&doc);
    return wait_for_helper(w, CAT_OK);
  }
  *out = &doc;
  return CAT_OK;
}

bool track_resource(const struct protected_track *t, const struct route *r, struct plan_range *out) {
  const struct fake_track *f = of(t);
  if (r->kind == ROUTE_FILE)
    *out = (struct plan_range){0, t->plan.total_len};
  else if (r->kind == ROUTE_SEGMENT && r->segment && r->segment <= f->num)
    *out = (struct plan_range){(r->segment - 1) * f->segment, f->segment};
  else
    return false;
  return true;
}

struct plan_range track_piece(const struct protected_track *t, uint64_t off) {
  const struct fake_track *f = of(t);
  return (struct plan_range){off / f->segment * f->segment, f->segment};
}

int track_source(struct catalog *c, struct protected_track *t, struct bytes *out, uint64_t *src_off, uint64_t off,
                 struct obs_worker *m, struct cat_wait *w) {
  static uint8_t none[1];
  const struct fake_track *f = of(t);
  (void)c, (void)m;
  if (f->cut && off >= 3 * f->segment)
    return 500;
  if (f->hangs && off >= f->segment)
    return wait_long(w);
  if (f->waits && w->tries == 0) {
    w->tries = 1;
    if (off / f->segment % 2) { // odd pieces come as a block, even ones are to be asked for again
      may_not_allocate = false;   // the made-up catalogue does
      w->block = malloc(sizeof *w->block);
      may_not_allocate = true;
      *w->block = (struct block){.p = none, .n = f->segment, .src_off = off / f->segment * f->segment};
    }
    return wait_for_helper(w, CAT_OK);
  }
  *out = bytes_of(none, f->segment);
  *src_off = off / f->segment * f->segment;
  return CAT_OK;
}

void plan_render_ahead(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src, uint64_t src_off,
                       uint8_t *out, struct aes_ahead *ahead) {
  (void)ahead;
  (void)p, (void)ops;
  if (src_off > r.off || r.off + r.len > src_off + src.n)
    abort(); // not the source of this piece
  uint64_t i = 0;
  for (; i < r.len && ((r.off + i) % 4 || r.len - i < 4); i++)
    out[i] = (uint8_t)((r.off + i) / 4 >> (r.off + i) % 4 * 8);
  for (; r.len - i >= 4; i += 4) {
    uint32_t word = (uint32_t)((r.off + i) / 4);
    memcpy(out + i, &word, 4);
  }
  for (; i < r.len; i++)
    out[i] = (uint8_t)((r.off + i) / 4 >> (r.off + i) % 4 * 8);
}

void plan_render(const struct plan *p, const struct aes_ops *ops, struct plan_range r, struct bytes src, uint64_t src_off,
                 uint8_t *out) {
  plan_render_ahead(p, ops, r, src, src_off, out, NULL);
}

struct bytes track_ahead(struct catalog *c, const struct protected_track *t, uint64_t off) {
  (void)c, (void)t, (void)off;
  return (struct bytes){0};
}

void track_ask(const struct catalog *c, const struct protected_track *t, uint64_t off) { (void)c, (void)t, (void)off; }

struct plan_range plan_source(const struct plan *p, struct plan_range r) {
  (void)p;
  return (struct plan_range){r.off, 0};
}

void plan_touch(struct bytes src) { (void)src; }

void track_drop(struct catalog *c, struct protected_track *t) {
  (void)c, (void)t;
  atomic_fetch_sub(&t->holds, 1);
}

void text_drop(struct catalog *c, struct text_doc *d) {
  (void)c;
  atomic_fetch_sub(&d->holds, 1);
}

void block_free(struct block *b) { free(b); }

bool blocks_are_scarce(const struct catalog *c) { // now and then
  static _Atomic unsigned asked;
  (void)c;
  return asked++ % 2;
}

// All tracks have the same bytes: one memory file holds them, each at its offset.
enum { HOT_FILE = 32 << 20, HOT_PIECES = 64 };
static struct {
  int fd;
  uint8_t *p;
} memory;
static _Thread_local struct fake_track *filling; // by this worker, until catalog_hot_done

static bool make_memory(void) {
  memory.fd = memfd_create("fixture-hot", MFD_CLOEXEC);
  if (memory.fd < 0 || ftruncate(memory.fd, HOT_FILE))
    return false;
  memory.p = mmap(NULL, HOT_FILE, PROT_READ | PROT_WRITE, MAP_SHARED, memory.fd, 0);
  return memory.p != MAP_FAILED;
}

enum hot_got catalog_hot(struct catalog *c, struct hot *out, struct protected_track *t, struct plan_range piece,
                         bool may_fill, struct obs_worker *m) {
  struct fake_track *f = of(t);
  uint64_t n = piece.off / f->segment, bit = n < HOT_PIECES ? 1ULL << n : 0;
  (void)c, (void)m;
  if (!f->hot || !bit || piece.off + piece.len > HOT_FILE)
    return HOT_NONE;
  *out = (struct hot){.fd = memory.fd, .off = piece.off, .ref = {.data = memory.p + piece.off}};
  if (atomic_load(&f->filled) & bit)
    return HOT_SEND;
  if (!may_fill || atomic_fetch_or(&f->taken, bit) & bit)
    return HOT_NONE;
  filling = f;
  return HOT_FILL;
}

void catalog_hot_done(struct catalog *c, struct hot *h, bool ok) {
  (void)c;
  if (ok)
    atomic_fetch_or(&filling->filled, 1ULL << h->off / filling->segment);
}

void catalog_stop(struct catalog *c) { (void)c; }

int catalog_licence(struct catalog *c, struct writer *out, const struct route *r, struct bytes body, struct obs_worker *m) {
  (void)c, (void)r, (void)m;
  wr_str(out, "licence for ");
  wr_dec(out, body.n);
  return CAT_OK;
}

int main(int argc, char **argv) {
  static struct server s;
  struct config_flags flags = {0};
  struct config_error e = {.text = ""};
  pthread_t thread;
  sigset_t signals;
  int sig;
  for (int i = 1; i < argc;)
    if (config_flag(&flags, argc, argv, &i, &e) != 1) {
      fprintf(stderr, "fixture: %s: %s\n", argv[i], e.text);
      return 2;
    }
  if (!guard_heap()) {
    fprintf(stderr, "fixture: calls of malloc cannot be watched\n");
    return 1;
  }
  struct config *c = config_load(NULL, &flags, &e);
  prctl(PR_SET_PDEATHSIG, SIGKILL); // a test that breaks off leaves nothing behind
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &signals, NULL);
  s.first = c;
  guard_off = c && c->tls_listen.num;
  s.num_workers = c ? (unsigned)c->workers : 0;
  s.metrics = aligned_alloc(128, (s.num_workers + 1) * sizeof *s.metrics);
  memset((void *)s.metrics, 0, (s.num_workers + 1) * sizeof *s.metrics);
  quiet_init(&s.quiet, s.num_workers);
  atomic_store(&s.config, c);
  if (!c || !make_memory() || !workers_listen(&s, &e) || !workers_start(&s, &e)) {
    fprintf(stderr, "fixture: %s\n", e.text);
    return 1;
  }
  pthread_create(&thread, NULL, helper_main, NULL);
  for (unsigned i = 0; i < c->listen.num + c->tls_listen.num; i++)
    printf("%u ", workers_port(&s, i));
  printf("%s\n", workers_io(&s));
  fflush(stdout);
  while (!sigwait(&signals, &sig) && sig == SIGUSR1)
    free_the_stuck();
  guard_off = true; // draining is over with the path of requests
  workers_drain(&s, c->drain_timeout, NULL);
  workers_end(&s);
  int64_t buffers = 0, connections = 0, holds = doc.holds;
  uint64_t overloads = 0, failed = 0, displaced = 0, timeouts = 0, resets = 0;
  for (unsigned i = 0; i < s.num_workers; i++) {
    buffers += s.metrics[i].buffers_used;
    connections += s.metrics[i].connections;
    overloads += s.metrics[i].err_overload;
    failed += s.metrics[i].status_5xx;
    displaced += s.metrics[i].connections_displaced;
    timeouts += s.metrics[i].err_timeout;
    resets += s.metrics[i].err_reset;
  }
  for (unsigned i = 0; i < num_tracks; i++)
    holds += tracks[i].t.holds;
  pthread_mutex_lock(&helper.lock);
  helper.stop = true;
  pthread_cond_signal(&helper.cond);
  pthread_mutex_unlock(&helper.lock);
  pthread_join(thread, NULL);
  printf("left: %lld buffers, %lld connections, %lld holds\n", (long long)buffers, (long long)connections, (long long)holds);
  printf("counted: %llu overload, %llu 5xx, %llu displaced, %llu timeouts, %llu resets\n", (unsigned long long)overloads,
         (unsigned long long)failed, (unsigned long long)displaced, (unsigned long long)timeouts, (unsigned long long)resets);
  free(s.metrics);
  config_free(c);
  return 0;
}
