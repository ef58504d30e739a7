// Plain leveled log to standard error: one line an event, "2026-11-21T01:20:56Z warn what happened". Safe from any thread;
// never called on the path of a request that succeeds. Texts never hold key bytes.
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_LEVEL_COUNT };

// log_set_level drops lines below `level` from now on. LOG_INFO at start.
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

// log_line writes one line (cut at 4095 bytes; control characters become '?') with a single write(2), but to a stream
// socket, which may take a part at a time. Where standard error is a pipe or socket that nobody reads, a line waits for a second; then lines
// are lost, always whole ones, as they are where its disk is full. The first that is taken again says how many.
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// log_lost counts them, since the start.
uint64_t log_lost(void);
