// Access log: each worker has a ring that only it writes, one thread reads them all, formats and writes the file. A full ring
// drops the line and counts it: a slow disk never slows a response.
#pragma once
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum access_format { ACCESS_COMBINED, ACCESS_JSON };

// Texts of a record, in the order in which they are added.
enum access_text { ACCESS_PATH, ACCESS_RANGE, ACCESS_REFERER, ACCESS_AGENT, ACCESS_FORWARDED, ACCESS_TEXTS };

enum { // bytes of each, and of all together
  ACCESS_PATH_MAX = 512,
  ACCESS_RANGE_MAX = 64,
  ACCESS_REFERER_MAX = 128,
  ACCESS_AGENT_MAX = 128,
  ACCESS_FORWARDED_MAX = 128,
  ACCESS_TEXT_MAX = ACCESS_PATH_MAX + ACCESS_RANGE_MAX + ACCESS_REFERER_MAX + ACCESS_AGENT_MAX + ACCESS_FORWARDED_MAX
};

// What a worker records; the log's thread escapes what came from a client.
struct access_record {
  uint64_t wall_ns;     // CLOCK_REALTIME, when the response was done, or cut off
  uint64_t bytes;       // body bytes sent
  uint64_t duration_us, ttfb_us; // a slow reader's can be hours
  uint8_t ip[16];       // IPv6, or IPv4 mapped (::ffff:a.b.c.d)
  uint16_t status;
  uint8_t method;       // 'G' GET, 'H' HEAD, 'P' POST, 'O' OPTIONS, else '-'
  uint8_t tls, http10;  // 0 or 1
  uint16_t len[ACCESS_TEXTS]; // of the texts, which follow each other
  char text[ACCESS_TEXT_MAX];
};

struct access_log;
struct access_ring;

// access_open starts the writer thread over `num_rings` rings. `path` "-" is standard output; a file is opened for append.
// Errors: ERR_IO (errno tells), ERR_NO_MEMORY.
MUST_USE enum err access_open(struct access_log **out, const char *path, enum access_format format, unsigned num_rings);

struct access_ring *access_ring(struct access_log *log, unsigned n);

// access_slot gives the next free record to fill in place, or NULL: the line is lost and counted. access_add adds the next of its
// texts, all of them in their order, cut to what the log keeps of it. access_push publishes it. All by the ring's one writer
// only; nothing blocks or calls the kernel.
struct access_record *access_slot(struct access_ring *ring);
void access_add(struct access_record *r, enum access_text which, struct bytes text);
void access_push(struct access_ring *ring);

// access_counts gives lines written and dropped so far, over all rings.
void access_counts(const struct access_log *log, uint64_t *written, uint64_t *dropped);

// access_write_ip writes an address as in the log: IPv4 in its own form, "-" when it cannot be written.
struct writer;
void access_write_ip(struct writer *w, const uint8_t ip[16]);

// access_reopen opens the path again (after logrotate) at the writer's next turn; a pipe whose reader takes nothing holds that up for a second.
void access_reopen(struct access_log *log);

// access_close writes what is queued and stops; lines that a pipe's reader has not taken after two seconds are lost. NULL is a no-op.
void access_close(struct access_log *log);
