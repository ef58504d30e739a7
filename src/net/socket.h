// Socket calls that both backends make alike.
#pragma once
#include "net/io.h"

int socket_listen(const struct io_listen *l); // a non-blocking listening descriptor or -errno
ssize_t socket_send(int fd, const void *p, size_t n, bool more);
uint64_t clock_ns(int clock_id);
void random_fill(void *p, size_t n);
