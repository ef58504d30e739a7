// Which of the sockets that share a port gets a new connection. Left to itself the kernel hashes addresses and ports: with few
// clients, or proxies that hold a few connections each, some workers then get twice what others get.
#pragma once
#include <stdbool.h>

// Connections in turn, by an eBPF program with one counter. `fd` is -1 where the kernel does not let this
// process load one (CAP_BPF, or unprivileged BPF). Before system calls are confined.
struct steer_turns {
  int fd, map_fd;
};
struct steer_turns steer_turns_new(unsigned num_sockets);
void steer_turns_free(struct steer_turns *t);

// steer_by_turns, steer_by_cpu attach to one of the sockets of a port, once all of them listen: the n-th bound is worker n's.
// By CPU: the worker that is pinned (cpus[n]) to where the packet came in, for network cards whose queues are spread over the
// workers' CPUs; other CPUs go round the workers. false: refused, errno says why; the kernel's hash stays.
bool steer_by_turns(const struct steer_turns *t, int listener);
bool steer_by_cpu(int listener, const int *cpus, unsigned num_sockets);
