// Source: bpf(2), socket(7) SO_ATTACH_REUSEPORT_*, Documentation/networking/filter.rst.
#include "net/steer.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_SOCKETS = 100 }; // that a jump table of classic BPF holds here; beyond, by turns or by hash

static int bpf(int cmd, union bpf_attr *attr) { return (int)syscall(SYS_bpf, cmd, attr, sizeof *attr); }

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})

// return counter++ % num_sockets, or 0 without a counter
static int load_program(int map_fd, unsigned num_sockets) {
  static const char licence[] = "Apache-2.0";
  const struct bpf_insn code[] = {
      INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
      INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
      INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
      INSN(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map_fd),
      INSN(0, 0, 0, 0, 0), // its second half
      INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
      INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 4, 0),
      INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1),
      INSN(BPF_STX | BPF_ATOMIC | BPF_W, BPF_REG_0, BPF_REG_1, 0, BPF_ADD | BPF_FETCH),
      INSN(BPF_ALU | BPF_MOV | BPF_X, BPF_REG_0, BPF_REG_1, 0, 0),
      INSN(BPF_ALU | BPF_MOD | BPF_K, BPF_REG_0, 0, 0, (int32_t)num_sockets),
      INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
  };
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attr.insns = (uintptr_t)code;
  attr.insn_cnt = sizeof code / sizeof code[0];
  attr.license = (uintptr_t)licence;
  return bpf(BPF_PROG_LOAD, &attr);
}

struct steer_turns steer_turns_new(unsigned num_sockets) {
  struct steer_turns t = {-1, -1};
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_type = BPF_MAP_TYPE_ARRAY;
  attr.key_size = attr.value_size = sizeof(uint32_t);
  attr.max_entries = 1;
  t.map_fd = bpf(BPF_MAP_CREATE, &attr);
  if (t.map_fd >= 0)
    t.fd = load_program(t.map_fd, num_sockets);
  return t;
}

void steer_turns_free(struct steer_turns *t) {
  if (t->fd >= 0)
    close(t->fd);
  if (t->map_fd >= 0)
    close(t->map_fd);
  t->fd = t->map_fd = -1;
}

bool steer_by_turns(const struct steer_turns *t, int listener) {
  if (t->fd < 0) {
    errno = EPERM;
    return false;
  }
  return !setsockopt(listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &t->fd, sizeof t->fd);
}

bool steer_by_cpu(int listener, const int *cpus, unsigned num_sockets) {
  struct sock_filter code[2 * MAX_SOCKETS + 3];
  unsigned short n = 0;
  if (num_sockets == 0 || num_sockets > MAX_SOCKETS) {
    errno = E2BIG;
    return false;
  }
  code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)(SKF_AD_OFF + SKF_AD_CPU));
  for (unsigned i = 0; i < num_sockets; i++) {
    if (cpus[i] < 0)
      continue;
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)cpus[i], 0, 1);
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, i);
  }
  code[n++] = (struct sock_filter)BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, num_sockets);
  code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_A, 0);
  struct sock_fprog program = {.len = n, .filter = code};
  return !setsockopt(listener, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program);
}
