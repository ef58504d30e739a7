// What both backends do alike: rows of their tables, but for socket_wake.
#pragma once
#include "net/io.h"

enum { IO_RETRY_NS = 1000000 }; // between two tries of what the kernel had no memory for

int socket_listen(struct io *io, const struct io_listen *l); // a non-blocking descriptor
ssize_t socket_send(struct io *io, int fd, const void *p, size_t n, bool more);
ssize_t socket_sendfile(struct io *io, int fd, int in_fd, uint64_t off, size_t n);
void socket_push(struct io *io, int fd);
int socket_shutdown(struct io *io, int fd, int how);
void socket_wake(int event_fd);
uint64_t clock_now(struct io *io);
uint64_t clock_wall(struct io *io);
void random_fill(struct io *io, void *p, size_t n);
