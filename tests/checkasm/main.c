// Usage: checkasm [--sparse] [--only KERNEL]; SLUICE_KERNEL=NAME tests that one alone and is refused when unknown.
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "checkasm/checkasm.h"

#ifndef EMULATED
#define EMULATED 0 // 1: with vaes256.c and vaes512.c over emulated.h; these alone, and no question what the processor has
#endif

static struct check *running;

uint64_t check_random(struct check *c) {
  uint64_t z = c->rng += UINT64_C(0x9e3779b97f4a7c15); // splitmix64
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

uint32_t check_below(struct check *c, uint32_t bound) {
  return (uint32_t)((check_random(c) >> 32) * bound >> 32);
}

void check_fill(struct check *c, uint8_t *p, size_t n) {
  for (size_t i = 0; i < n; i += 8) {
    uint64_t x = check_random(c);
    memcpy(p + i, &x, n - i < 8 ? n - i : 8);
  }
}

void check_describe(struct check *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(c->what, sizeof c->what, fmt, ap);
  va_end(ap);
}

static void fail(struct check *c, const char *text, size_t at) {
  if (c->failures++ < 5)
    printf("# %s %s: %s: %s at byte %zu\n", c->ops->name, c->section, c->what, text, at);
}

static size_t low(size_t at) {
  return at < CANARY ? 0 : at - CANARY;
}

static size_t high(size_t end) {
  return end + CANARY > ARENA ? ARENA : end + CANARY;
}

void check_canary(struct check *c, size_t at, size_t n) {
  memset(c->dst.p + low(at), 0xc5, high(at + n) - low(at));
  memset(c->want.p + low(at), 0xc5, high(at + n) - low(at));
}

bool check_same(struct check *c, size_t at, size_t n) {
  size_t from = low(at), to = high(at + n);
  if (memcmp(c->dst.p + from, c->want.p + from, to - from) == 0)
    return true;
  while (c->dst.p[from] == c->want.p[from])
    from++;
  fail(c, from < at || from >= at + n ? "written outside" : "differs from the reference", from - at);
  return false;
}

void check_src_writable(struct check *c, bool yes) {
  if (mprotect(c->src.p, ARENA, yes ? PROT_READ | PROT_WRITE : PROT_READ) != 0)
    abort();
}

static struct arena arena_new(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  uint8_t *p = mmap(NULL, ARENA + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED || mprotect(p + page, ARENA, PROT_READ | PROT_WRITE) != 0) {
    perror("checkasm: mmap");
    exit(1);
  }
  return (struct arena){p + page, ARENA};
}

static void on_fault(int sig) {
  const struct check *c = running;
  printf("Bail out! %s %s: %s: signal %d\n", c->ops->name, c->section, c->what, sig);
  fflush(stdout);
  _exit(1);
}

static const struct {
  const char *name;
  void (*run)(struct check *);
} sections[] = {
    {"known answers", check_known_answers}, {"key schedule", check_key_init},
    {"cbc encrypt", check_cbc_encrypt},     {"cbc decrypt", check_cbc_decrypt},
    {"cbc bursts", check_cbc_bursts},       {"ctr", check_ctr},
    {"ctr bursts", check_ctr_bursts},       {"cbc pattern", check_cbc_pattern},
    {"ctr pattern", check_ctr_pattern},     {"pattern bursts", check_pattern_bursts},
    {"chain and blocks", check_chain},      {"large samples", check_large},
    {"many samples", check_many},           {"stack", check_stack},
};
enum { NUM_SECTIONS = sizeof sections / sizeof *sections };

static unsigned number;
static bool all_passed = true;

static void report(bool passed, const char *kernel, const char *section, const char *rest) {
  printf("%sok %u - %s %s%s\n", passed ? "" : "not ", ++number, kernel, section, rest);
  fflush(stdout);
  all_passed &= passed;
}

static void check_kernel(struct check *c, bool sparse) {
  // Portable C reads byte by byte: alignments are all one to it, and it is thirty times slower.
  bool portable = c->ops == &aes_ops_ref;
  c->align_step = sparse || portable ? 17 : 1;
  c->len_step = sparse || portable ? 7 : 1;
  uint8_t key[16];
  c->rng = 1;
  check_src_writable(c, true);
  check_fill(c, key, sizeof key);
  check_fill(c, c->iv, sizeof c->iv);
  check_fill(c, c->text, LONGEST);
  c->ops->key_init(&c->key, key);
  aes_ops_ref.key_init(&c->ref_key, key);
  for (size_t s = 0; s < NUM_SECTIONS; s++) {
    c->section = sections[s].name;
    c->failures = 0;
    check_describe(c, "start");
    sections[s].run(c);
    check_src_writable(c, true);
    report(!c->failures, c->ops->name, c->section, "");
  }
}

int main(int argc, char **argv) {
  struct check c = {.src = arena_new(), .dst = arena_new(), .want = arena_new()};
  bool sparse = false;
  const char *only = getenv("SLUICE_KERNEL");
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--sparse") == 0) {
      sparse = true;
    } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      fprintf(stderr, "usage: checkasm [--sparse] [--only KERNEL]\n");
      return 2;
    }
  }
  const char *why = NULL;
  if (only && !aes_ops_best(only, &why)) {
    fprintf(stderr, "checkasm: kernel '%s': %s\n", only, why);
    return 2;
  }
  c.text = malloc(LONGEST);
  running = &c;
  struct sigaction on = {.sa_handler = on_fault};
  static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    sigaction(faults[i], &on, NULL);

  const char *wrong = EMULATED ? NULL : check_choice();
  if (!EMULATED)
    report(!wrong, "dispatch", "chooses by what the processor says", "");
  if (wrong)
    printf("# %s\n", wrong);
  wrong = check_cpu_sets();
  report(!wrong, "dispatch", "takes nothing for there that the processor or the system lacks", "");
  if (wrong)
    printf("# %s\n", wrong);
  wrong = check_lane_order();
  report(!wrong, "lanes", "are ordered", "");
  if (wrong)
    printf("# %s\n", wrong);
  size_t num;
  const struct aes_ops *const *all = aes_ops_all(&num);
  for (size_t i = 0; i < num; i++) {
    if ((only && strcmp(only, all[i]->name) != 0) || (EMULATED && strncmp(all[i]->name, "vaes", 4) != 0))
      continue;
    c.ops = all[i];
    if (all[i]->usable())
      check_kernel(&c, sparse);
    else
      report(true, all[i]->name, "all", " # SKIP this machine lacks its instructions");
  }
  printf("1..%u\n", number);
  free(c.text);
  return all_passed ? 0 : 1;
}
