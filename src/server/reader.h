// Reads media on a ring of its own: one thread, hundreds of reads under way, files and memory registered with the kernel. It
// opens no file and never waits for one read while it could start another. Where io_uring is not allowed there is none, and
// helper threads read instead.
#pragma once
#include "server/source.h"

struct reader;

// One read, embedded in its owner and left alone until `done` was called, which runs on the reader's thread.
struct read_op {
  struct source *source;
  uint64_t off;         // source address
  uint8_t *to;
  uint64_t len;
  // The memory that `to` lies in, when that is worth registering: it is number `region` of those given to reader_new.
  uint8_t *region_base;
  size_t region_len;
  int region;           // -1: none
  void (*done)(struct read_op *op, enum err e); // ERR_OK: all of it, of the state that was indexed
  // private to the reader
  struct read_op *next;
  uint32_t part;
  uint64_t part_off, part_left, part_len;
  int fd, slot;
  unsigned reopened; // times that a file was in another state
};

struct reader_options {
  unsigned num_regions;
  unsigned num_files; // the most that are kept open, 512 at the most
  // Called on the reader's thread: part op->part of op->source is to be opened by a thread that may wait, which then calls
  // reader_opened. Returns false when nobody can.
  bool (*open)(void *ctx, struct read_op *op);
  void *ctx;
};

// reader_new starts the thread. NULL with errno: io_uring cannot be had.
struct reader *reader_new(const struct reader_options *o);

// Any thread.
void reader_read(struct reader *r, struct read_op *op);
void reader_opened(struct reader *r, struct read_op *op, int fd); // -1: errno says why not

// reader_forget_region gives registered memory back before its pages go. No read into it may be under way. One thread at a time.
void reader_forget_region(struct reader *r, unsigned region);

// reader_stop ends the thread once everything under way is done. reader_free after it; NULL is a no-op for both.
void reader_stop(struct reader *r);
void reader_free(struct reader *r);
