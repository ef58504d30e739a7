#include "server/crash.h"

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/sanitized.h"
#include "obs/log.h"

enum { MAX_THREADS = 512, MAX_FRAMES = 64, PARK_TRIES = 1000, PARK_NS = 1000000 };

static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGQUIT};
static _Atomic int threads[MAX_THREADS]; // thread ids; 0: free
static _Atomic unsigned num_threads, parked;
static _Atomic int dying; // id of the thread whose signal it is

static int park_signal(void) { return SIGRTMIN + 3; }

static int self(void) { return (int)syscall(SYS_gettid); }

#if defined(__x86_64__)
enum { FX_BYTES = 512, FX_MAGIC = 464, FX_EXTENDED = 468, FX_XMM = 160, MAGIC1 = 0x46505853 };

// The interrupted code's vector registers, as the kernel saved them into the signal's frame. Layout: the kernel's
// arch/x86/include/uapi/asm/sigcontext.h, struct _fpstate_64 and struct _fpx_sw_bytes.
static void clear_saved(void *context) {
  ucontext_t *uc = context;
  uint8_t *fx = (uint8_t *)uc->uc_mcontext.fpregs;
  uint32_t magic, size = FX_BYTES;
  if (!fx)
    return;
  memcpy(&magic, fx + FX_MAGIC, sizeof magic);
  if (magic == MAGIC1)
    memcpy(&size, fx + FX_EXTENDED, sizeof size);
  explicit_bzero(fx + FX_XMM, size - FX_XMM);
}

static inline __attribute__((always_inline)) void clear_registers(void) {
  if (__builtin_cpu_supports("avx512f"))
    __asm__ volatile("vzeroall\n\tvpxorq %%zmm16,%%zmm16,%%zmm16\n\tvpxorq %%zmm17,%%zmm17,%%zmm17\n\t"
                     "vpxorq %%zmm18,%%zmm18,%%zmm18\n\tvpxorq %%zmm19,%%zmm19,%%zmm19\n\t"
                     "vpxorq %%zmm20,%%zmm20,%%zmm20\n\tvpxorq %%zmm21,%%zmm21,%%zmm21\n\t"
                     "vpxorq %%zmm22,%%zmm22,%%zmm22\n\tvpxorq %%zmm23,%%zmm23,%%zmm23\n\t"
                     "vpxorq %%zmm24,%%zmm24,%%zmm24\n\tvpxorq %%zmm25,%%zmm25,%%zmm25\n\t"
                     "vpxorq %%zmm26,%%zmm26,%%zmm26\n\tvpxorq %%zmm27,%%zmm27,%%zmm27\n\t"
                     "vpxorq %%zmm28,%%zmm28,%%zmm28\n\tvpxorq %%zmm29,%%zmm29,%%zmm29\n\t"
                     "vpxorq %%zmm30,%%zmm30,%%zmm30\n\tvpxorq %%zmm31,%%zmm31,%%zmm31" ::: "memory");
  else if (__builtin_cpu_supports("avx"))
    __asm__ volatile("vzeroall" ::: "memory");
  else
    __asm__ volatile("pxor %%xmm0,%%xmm0\n\tpxor %%xmm1,%%xmm1\n\tpxor %%xmm2,%%xmm2\n\tpxor %%xmm3,%%xmm3\n\t"
                     "pxor %%xmm4,%%xmm4\n\tpxor %%xmm5,%%xmm5\n\tpxor %%xmm6,%%xmm6\n\tpxor %%xmm7,%%xmm7\n\t"
                     "pxor %%xmm8,%%xmm8\n\tpxor %%xmm9,%%xmm9\n\tpxor %%xmm10,%%xmm10\n\tpxor %%xmm11,%%xmm11\n\t"
                     "pxor %%xmm12,%%xmm12\n\tpxor %%xmm13,%%xmm13\n\tpxor %%xmm14,%%xmm14\n\tpxor %%xmm15,%%xmm15" ::: "memory");
}
#elif defined(__aarch64__)
static void clear_saved(void *context) { (void)context; } // the frame is on the stack, which is left out

static inline __attribute__((always_inline)) void clear_registers(void) {
#define Z(n) "movi v" #n ".2d, #0\n\t"
  __asm__ volatile(Z(0) Z(1) Z(2) Z(3) Z(4) Z(5) Z(6) Z(7) Z(8) Z(9) Z(10) Z(11) Z(12) Z(13) Z(14) Z(15) Z(16) Z(17) Z(18)
                   Z(19) Z(20) Z(21) Z(22) Z(23) Z(24) Z(25) Z(26) Z(27) Z(28) Z(29) Z(30) Z(31) ::: "memory");
#undef Z
}
#endif

static void park(int sig, siginfo_t *info, void *context) {
  (void)sig;
  (void)info;
  clear_saved(context);
  atomic_fetch_add(&parked, 1);
  for (;;) {
    clear_registers();
    syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
  }
}

// Stops every other thread that touches keys, with its registers cleared.
static void park_others(int me) {
  unsigned n = atomic_load(&num_threads), sent = 0;
  for (unsigned i = 0; i < n && i < MAX_THREADS; i++) {
    int id = atomic_load(&threads[i]);
    sent += id && id != me && !syscall(SYS_tgkill, getpid(), id, park_signal());
  }
  struct timespec ms = {0, PARK_NS};
  for (unsigned i = 0; i < PARK_TRIES && atomic_load(&parked) < sent; i++)
    nanosleep(&ms, NULL);
}

static void tell(int sig, const siginfo_t *info) {
  char line[160];
  void *frames[MAX_FRAMES];
  int n = snprintf(line, sizeof line, "sluice: fatal signal %d (%s) at address %p; stacks are left out of core images, this is where:\n",
                   sig, sigabbrev_np(sig), sig == SIGSEGV || sig == SIGBUS ? info->si_addr : NULL);
  ssize_t ignored = write(STDERR_FILENO, line, (size_t)n);
  (void)ignored;
  backtrace_symbols_fd(frames, backtrace(frames, MAX_FRAMES), STDERR_FILENO);
}

static void on_fatal(int sig, siginfo_t *info, void *context) {
  int me = self(), nobody = 0;
  clear_saved(context);
  if (!atomic_compare_exchange_strong(&dying, &nobody, me) && nobody != me)
    park(sig, info, context);
  if (nobody == 0) { // else a fault in here: what is left is to end
    park_others(me);
    tell(sig, info);
  }
  signal(sig, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, sig);
  pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  clear_registers();
  syscall(SYS_tgkill, getpid(), me, sig);
}

void crash_install(void) {
  if (SANITIZED)
    return;
  void *frame;
  (void)backtrace(&frame, 1); // loads what it needs now, not in a signal handler
  struct sigaction a = {.sa_sigaction = on_fatal, .sa_flags = SA_SIGINFO};
  sigfillset(&a.sa_mask);
  for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++) {
    sigdelset(&a.sa_mask, fatal[i]);
    sigaction(fatal[i], &a, NULL);
  }
  a.sa_sigaction = park;
  sigaction(park_signal(), &a, NULL);
}

// The main thread's stack is the mapping that is now around us, and grows with the same properties; that of another thread is
// all there.
void crash_thread(void) {
  pthread_attr_t attr;
  void *base = NULL;
  size_t size = 0;
  unsigned at = atomic_fetch_add(&num_threads, 1);
  if (at < MAX_THREADS)
    atomic_store(&threads[at], self());
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, park_signal());
  for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
    sigaddset(&set, fatal[i]);
  if (!SANITIZED)
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
  if (pthread_getattr_np(pthread_self(), &attr))
    return;
  int e = pthread_attr_getstack(&attr, &base, &size);
  pthread_attr_destroy(&attr);
  if (!e && self() == getpid()) {
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned long here = (unsigned long)(uintptr_t)&attr;
    char line[512];
    while (maps && fgets(line, sizeof line, maps)) { // "from-to …"
      char *dash;
      unsigned long from = strtoul(line, &dash, 16), to = *dash == '-' ? strtoul(dash + 1, NULL, 16) : 0;
      if (from <= here && here < to) {
        base = (void *)from; // NOLINT(performance-no-int-to-ptr)
        size = to - from;
        break;
      }
    }
    if (maps)
      fclose(maps);
  }
  if (!e && madvise(base, size, MADV_DONTDUMP))
    log_line(LOG_WARN, "a stack cannot be left out of core images");
}
