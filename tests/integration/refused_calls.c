// Makes system calls that the sandbox refuses, once a server waits for signals, and says on standard error what became of each. Their
// arguments are wrong, so that without a filter the kernel has another word for them. Then what nobody needs in the folder of the access
// log, which LOG_FOLDER names. To be loaded in front of the C library.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *what, int failed) { dprintf(STDERR_FILENO, "tried %s: %d\n", what, failed ? errno : 0); }

static void try_folder(const char *path) {
  int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  say("listing logs", openat(folder, ".", O_RDONLY | O_DIRECTORY) < 0);
  say("removing another log", unlinkat(folder, "other.log", 0));
  say("making a folder", mkdirat(folder, "folder", 0700));
}

static void *nothing(void *arg) { return arg; }

static void try_thread(void) {
  pthread_t thread;
  errno = pthread_create(&thread, NULL, nothing, NULL); // by clone3, then by clone where that is not there
  bool made = !errno;
  say("a thread", !made);
  if (made)
    pthread_join(thread, NULL);
}

int sigwaitinfo(const sigset_t *set, siginfo_t *info) {
  static const struct {
    const char *name;
    long nr, args[5];
  } calls[] = {
      {"clone of namespaces", SYS_clone, {CLONE_NEWUSER | CLONE_NEWNS | CLONE_FS}}, // these do not go together
      {"clone of a network", SYS_clone, {CLONE_NEWNET | CLONE_SIGHAND}},
      {"clone", SYS_clone, {CLONE_SIGHAND}}, // without CLONE_VM
      {"clone3", SYS_clone3, {0}},
      {"open_tree", SYS_open_tree, {-1, 0, -1}},
      {"fsconfig", SYS_fsconfig, {-1, 0}},
      {"mount_setattr", SYS_mount_setattr, {-1, 0, 1 << 30}},
      {"pidfd_getfd", SYS_pidfd_getfd, {-1, -1, 1}},
      {"execve", SYS_execve, {0}},
      {"getppid", SYS_getppid, {0}},
  };
  static int once;
  for (size_t i = 0; !once && i < sizeof calls / sizeof calls[0]; i++) {
    const long *a = calls[i].args;
    errno = 0;
    (void)syscall(calls[i].nr, a[0], a[1], a[2], a[3], a[4]);
    say(calls[i].name, errno);
  }
  if (!once)
    try_thread();
  if (!once && getenv("LOG_FOLDER"))
    try_folder(getenv("LOG_FOLDER"));
  once = 1;
  int (*real)(const sigset_t *, siginfo_t *);
  *(void **)&real = dlsym(RTLD_NEXT, "sigwaitinfo");
  return real(set, info);
}
