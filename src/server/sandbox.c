// Landlock: Documentation/userspace-api/landlock.rst. seccomp: seccomp(2). Constants that Debian 12's headers lack stand here.
#include "server/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/sanitized.h"
#include "base/text.h"
#include "obs/log.h"

#define FS_TRUNCATE (1ULL << 14)        // ABI 3
#define FS_ALL_ABI1 ((1ULL << 13) - 1)  // execute … make_sym
#define FS_REFER (1ULL << 13)           // ABI 2
#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE                                                                                                         \
  (FS_READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR |                 \
   LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_TRUNCATE)
#define FS_LOG (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG) // others' logs may lie beside it; its last byte is read

struct confinement {
  int fd;
  uint64_t handled;
  bool needed; // what is allowed now: nothing works without it
  bool failed; // something that is needed would be out of reach
};

// What is not there now will not be reachable later either.
static bool out_of_reach(int why) {
  return why == ENOENT || why == ENOTDIR || why == EACCES || why == EPERM || why == ELOOP || why == ENAMETOOLONG;
}

static void cannot_allow(struct confinement *s, const char *path) {
  log_line(LOG_WARN, "sandbox: %s: %s", path, strerror(errno));
  // Of one dead file system only what is needed opens all others; descriptors and memory may be missing for all.
  s->failed |= s->needed || errno == EMFILE || errno == ENFILE || errno == ENOMEM;
}

static void allow(struct confinement *s, const char *path, uint64_t access) {
  int fd = open(path, O_PATH | O_CLOEXEC);
  if (fd < 0 && out_of_reach(errno))
    return;
  struct landlock_path_beneath_attr rule = {.allowed_access = access & s->handled, .parent_fd = fd};
  if (fd < 0 || syscall(SYS_landlock_add_rule, s->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
    cannot_allow(s, path);
  if (fd >= 0)
    close(fd);
}

static void allow_folder(struct confinement *s, const char *file, uint64_t access) {
  char *folder = path_folder_text(bytes_str(file));
  if (folder)
    allow(s, folder, access);
  else
    cannot_allow(s, file);
  free(folder);
}

// The folder of a file; reloading reads the file by name, and editors replace it. A link's folder and the one it leads to: who
// renews certificates (certbot) puts new files there and links the old name to them.
static void allow_folder_of(struct confinement *s, const char *file, uint64_t access) {
  if (!file || !*file || !strcmp(file, "-"))
    return;
  allow_folder(s, file, access);
  char *real = realpath(file, NULL);
  if (real)
    allow_folder(s, real, access);
  else if (!out_of_reach(errno))
    cannot_allow(s, file);
  free(real);
}

static void allow_all(struct confinement *s, const struct config *c, const char *config_file) {
  s->needed = true;
  allow(s, c->media, c->write_sidecars ? FS_WRITE & ~LANDLOCK_ACCESS_FS_MAKE_DIR : FS_READ);
  if (*c->cache_dir)
    allow(s, c->cache_dir, FS_WRITE);
  allow(s, c->state_dir, FS_WRITE);
  allow_folder_of(s, config_file, FS_READ);
  allow_folder_of(s, c->keys, FS_READ);
  s->needed = false;
  allow_folder_of(s, c->access_log, FS_LOG);
  allow_folder_of(s, c->tls_client_ca, FS_READ);
  for (unsigned i = 0; i < c->tls_certificates.num; i++) {
    allow_folder_of(s, c->tls_certificates.a[i].cert, FS_READ);
    allow_folder_of(s, c->tls_certificates.a[i].key, FS_READ);
    allow_folder_of(s, c->tls_certificates.a[i].ocsp, FS_READ);
  }
}

// What the system's resolver reads: its files are replaced while running, so their folders stay open.
static void allow_resolver(struct confinement *s) {
  static const char *const folders[] = {"/etc", "/run/systemd/resolve", "/lib", "/usr/lib", "/lib64"};
  for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++)
    allow(s, folders[i], FS_READ);
}

static bool confine_files(const struct config *c, const char *config_file, const struct keyring *keys) {
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1)
    return false;
  struct confinement s = {.handled = FS_ALL_ABI1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0)};
  struct landlock_ruleset_attr attr = {.handled_access_fs = s.handled};
  s.fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
  if (s.fd < 0)
    return false;
  allow_all(&s, c, config_file);
  allow_folder_of(&s, keys->secret_path, FS_READ);
  for (unsigned i = 0; i < keys->num_files; i++)
    allow_folder_of(&s, keys->files[i], FS_READ);
  if (keys->asks_names)
    allow_resolver(&s);
  errno = 0;
  bool ok = !s.failed && !syscall(SYS_landlock_restrict_self, s.fd, 0);
  int why = errno;
  close(s.fd);
  errno = why;
  return ok;
}

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#endif

// What a server of files never does; refused with EPERM, so that a library that probes goes on.
static const int refused[] = {
    SYS_execve,      SYS_execveat,     SYS_ptrace,       SYS_process_vm_readv, SYS_process_vm_writev, SYS_mount,
    SYS_umount2,     SYS_pivot_root,   SYS_chroot,       SYS_unshare,          SYS_setns,             SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_reboot,           SYS_swapon,            SYS_swapoff,
    SYS_bpf,         SYS_perf_event_open, SYS_add_key,   SYS_request_key,      SYS_keyctl,            SYS_setuid,
    SYS_setgid,      SYS_setreuid,     SYS_setregid,     SYS_setresuid,        SYS_setresgid,         SYS_personality,
    SYS_userfaultfd, SYS_acct,         SYS_quotactl,     SYS_name_to_handle_at, SYS_open_by_handle_at,
    SYS_open_tree,   SYS_move_mount,   SYS_fsopen,       SYS_fsconfig,         SYS_fsmount,           SYS_fspick,
    SYS_mount_setattr, SYS_pidfd_getfd, SYS_process_madvise, SYS_kcmp,         SYS_kexec_file_load,
};
enum { X32_BIT = 0x40000000, NUM_REFUSED = sizeof refused / sizeof refused[0] };
// What unshare makes, a new process could make too: in a user namespace of its own it has every capability.
enum { NAMESPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET };

static bool refuse_calls(void) {
  struct sock_filter code[NUM_REFUSED + 12];
  unsigned short n = 0;
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, NUM_REFUSED + 5, 0);
  for (int i = 0; i < NUM_REFUSED; i++)
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i], (unsigned char)(NUM_REFUSED - i + 4), 0);
  // clone3's flags lie in memory, where no filter sees them: as if there were none, so that the C library makes its threads by clone.
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 5, 0);
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 2);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
  code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NAMESPACES, 1, 0);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS);
  struct sock_fprog program = {.len = n, .filter = code};
  return !syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

// Keys, state, media and logs may be another user's, now and at a reload (DAC), and keys that come later are locked in memory.
// Ports, BPF programs and the rest are for the start, which is over; threads to come inherit what is left.
// Source: capabilities(7).
static bool drop_capabilities(void) {
  static const unsigned kept[] = {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK};
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
  uint32_t mask[_LINUX_CAPABILITY_U32S_3] = {0};
  for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
    mask[CAP_TO_INDEX(kept[i])] |= CAP_TO_MASK(kept[i]);
  if (syscall(SYS_capget, &head, sets))
    return false;
  for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
    sets[i].permitted &= mask[i];
    sets[i].effective &= mask[i];
    sets[i].inheritable = 0; // ambient ones go with it
  }
  return !syscall(SYS_capset, &head, sets);
}

static bool confined;

bool sandbox_confined(void) { return confined; }

void sandbox_enter(const struct config *c, const char *config_file, const struct keyring *keys) {
  if (!c->sandbox)
    return;
  if (SANITIZED) {
    log_line(LOG_INFO, "sandbox: off, sanitizers need what it takes away");
    return;
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
    log_line(LOG_WARN, "sandbox: off, no_new_privs: %s", strerror(errno));
    return;
  }
  bool files = confine_files(c, config_file, keys);
  if (!files)
    log_line(LOG_WARN, "sandbox: files are not confined, Landlock: %s", errno ? strerror(errno) : "what is named above would be out of reach");
  confined = files;
  if (!drop_capabilities())
    log_line(LOG_WARN, "sandbox: capabilities are kept: %s", strerror(errno));
  bool calls = refuse_calls();
  if (!calls)
    log_line(LOG_WARN, "sandbox: system calls are not confined, seccomp: %s", strerror(errno));
  if (files && calls)
    log_line(LOG_INFO, "sandbox: files and system calls are confined");
}
