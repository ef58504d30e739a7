// Counters and histograms, one set (struct obs_worker) a thread, summed when somebody asks. The owner thread writes with relaxed stores (a plain
// add), a scrape reads with relaxed loads: a sum may be one event behind, never torn.
#pragma once
#include <stdatomic.h>
#include <stdint.h>

#include "base/writer.h"

// X(field, metric name, labels inside braces or "", help). Counters that differ in labels stand together: one help line.
#define METRIC_COUNTERS(X)                                                                                               \
  X(requests_get, "sluice_requests_total", "method=\"GET\"", "Requests whose head was read")                             \
  X(requests_head, "sluice_requests_total", "method=\"HEAD\"", "")                                                       \
  X(requests_other, "sluice_requests_total", "method=\"other\"", "")                                                     \
  X(status_2xx, "sluice_responses_total", "class=\"2xx\"", "Responses by status class, cut off ones included")           \
  X(status_3xx, "sluice_responses_total", "class=\"3xx\"", "")                                                           \
  X(status_4xx, "sluice_responses_total", "class=\"4xx\"", "")                                                           \
  X(status_5xx, "sluice_responses_total", "class=\"5xx\"", "")                                                           \
  X(bytes_sent, "sluice_sent_bytes_total", "", "Bytes of responses handed to sockets, heads included; as they are before TLS seals them") \
  X(bytes_received, "sluice_received_bytes_total", "", "Bytes read from sockets")                                        \
  X(bytes_cenc, "sluice_rendered_bytes_total", "scheme=\"cenc\"", "Body bytes rendered")                                 \
  X(bytes_cbcs, "sluice_rendered_bytes_total", "scheme=\"cbcs\"", "")                                                    \
  X(bytes_clear, "sluice_rendered_bytes_total", "scheme=\"clear\"", "")                                                  \
  X(connections_accepted, "sluice_connections_total", "event=\"accepted\"", "Connections by what happened; refused ones are told 503 where there is no TLS, and counted nowhere else; displaced ones waited for a request and gave way to a new one, and are counted as closed too") \
  X(connections_closed, "sluice_connections_total", "event=\"closed\"", "")                                              \
  X(connections_refused, "sluice_connections_total", "event=\"refused\"", "")                                            \
  X(connections_displaced, "sluice_connections_total", "event=\"displaced\"", "")                                        \
  X(tls_handshakes, "sluice_tls_handshakes_total", "result=\"ok\"", "TLS handshakes")                                    \
  X(tls_failures, "sluice_tls_handshakes_total", "result=\"failed\"", "")                                                \
  X(tls_resumed, "sluice_tls_resumed_total", "", "TLS handshakes that resumed a session")                                \
  X(err_bad_request, "sluice_errors_total", "reason=\"bad_request\"", "Requests that ended in an error, by reason")      \
  X(err_not_found, "sluice_errors_total", "reason=\"not_found\"", "")                                                    \
  X(err_forbidden, "sluice_errors_total", "reason=\"forbidden\"", "")                                                    \
  X(err_method, "sluice_errors_total", "reason=\"method\"", "")                                                          \
  X(err_gone, "sluice_errors_total", "reason=\"epoch_gone\"", "")                                                        \
  X(err_range, "sluice_errors_total", "reason=\"range\"", "")                                                            \
  X(err_no_key, "sluice_errors_total", "reason=\"no_key\"", "")                                                          \
  X(err_overload, "sluice_errors_total", "reason=\"overload\"", "")                                                      \
  X(err_source_changed, "sluice_errors_total", "reason=\"source_changed\"", "")                                          \
  X(err_source_io, "sluice_errors_total", "reason=\"source_io\"", "")                                                    \
  X(err_source_invalid, "sluice_errors_total", "reason=\"source_invalid\"", "")                                          \
  X(err_reset, "sluice_errors_total", "reason=\"client_reset\"", "")                                                     \
  X(err_timeout, "sluice_errors_total", "reason=\"timeout\"", "")                                                        \
  X(err_internal, "sluice_errors_total", "reason=\"internal\"", "")                                                      \
  X(err_upstream, "sluice_errors_total", "reason=\"upstream\"", "")                                                      \
  X(cache_hits, "sluice_cache_lookups_total", "cache=\"segment\",result=\"hit\"", "Lookups in the caches")               \
  X(cache_misses, "sluice_cache_lookups_total", "cache=\"segment\",result=\"miss\"", "")                                 \
  X(hot_hits, "sluice_cache_lookups_total", "cache=\"encrypted\",result=\"hit\"", "")                                    \
  X(hot_misses, "sluice_cache_lookups_total", "cache=\"encrypted\",result=\"miss\"", "")                                 \
  X(track_hits, "sluice_cache_lookups_total", "cache=\"track\",result=\"hit\"", "")                                      \
  X(track_misses, "sluice_cache_lookups_total", "cache=\"track\",result=\"miss\"", "")                                   \
  X(text_hits, "sluice_cache_lookups_total", "cache=\"manifest\",result=\"hit\"", "")                                    \
  X(text_misses, "sluice_cache_lookups_total", "cache=\"manifest\",result=\"miss\"", "")                                 \
  X(cache_fills, "sluice_cache_fills_total", "", "Segments read from storage into RAM")                                  \
  X(cache_fill_bytes, "sluice_cache_fill_bytes_total", "", "Bytes read from storage into RAM")                           \
  X(cache_rejected, "sluice_cache_rejected_total", "", "Fills that the admission policy did not keep")                   \
  X(cache_evicted, "sluice_cache_evicted_total", "", "Segments dropped from RAM for others")                             \
  X(index_built, "sluice_index_total", "from=\"media\"", "Track indexes opened, by where they came from")                \
  X(index_sidecar, "sluice_index_total", "from=\"sidecar\"", "")                                                         \
  X(index_failed, "sluice_index_total", "from=\"failed\"", "")                                                           \
  X(looks_failed, "sluice_storage_looks_total", "result=\"failed\"", "Looks at storage that failed while what is in memory was served as it was") \
  X(looks_silent, "sluice_storage_looks_total", "result=\"silent\"", "")                                                 \
  X(keys_derived, "sluice_keys_total", "result=\"ok\"", "Content keys asked of the provider")                            \
  X(keys_missing, "sluice_keys_total", "result=\"missing\"", "")                                                         \
  X(key_hits, "sluice_key_lookups_total", "result=\"hit\"", "Questions for keys of key servers")                          \
  X(key_stale, "sluice_key_lookups_total", "result=\"stale\"", "")                                                       \
  X(key_misses, "sluice_key_lookups_total", "result=\"miss\"", "")                                                       \
  X(key_refused, "sluice_key_lookups_total", "result=\"refused\"", "")                                                   \
  X(key_fetch_ok, "sluice_key_requests_total", "result=\"ok\"", "Exchanges with key servers, by how they ended")         \
  X(key_fetch_refused, "sluice_key_requests_total", "result=\"refused\"", "")                                            \
  X(key_fetch_invalid, "sluice_key_requests_total", "result=\"invalid\"", "")                                            \
  X(key_fetch_failed, "sluice_key_requests_total", "result=\"failed\"", "")                                              \
  X(key_retries, "sluice_key_retries_total", "", "Further attempts at key servers after a failure")                      \
  X(licences, "sluice_clearkey_licences_total", "", "Keys handed out under --insecure-clearkey")                         \
  X(access_lines, "sluice_access_log_lines_total", "result=\"written\"", "Access log lines")                             \
  X(access_dropped, "sluice_access_log_lines_total", "result=\"dropped\"", "")                                           \
  X(log_lost, "sluice_log_lost_total", "", "Lines that standard error did not take")                                     \
  X(reloads_ok, "sluice_reloads_total", "result=\"ok\"", "Configuration reloads")                                        \
  X(reloads_failed, "sluice_reloads_total", "result=\"failed\"", "")                                                     \
  X(rotations, "sluice_rotations_total", "", "Key rotations ordered")

// Values that go up and down, each written by one thread, summed over threads.
#define METRIC_GAUGES(X)                                                                                                 \
  X(connections, "sluice_connections", "", "Open connections")                                                           \
  X(connections_limit, "sluice_connections_limit", "", "Connections that there is room for: `max_connections`, or what descriptors allow")  \
  X(connections_idle, "sluice_connections_idle", "", "Open connections without a request")                               \
  X(buffers_used, "sluice_buffers_used", "", "Output buffers in use")                                                    \
  X(cache_bytes, "sluice_cache_bytes", "cache=\"segment\"", "Bytes of segments held in RAM")                             \
  X(hot_bytes, "sluice_cache_bytes", "cache=\"encrypted\"", "")                                                          \
  X(cache_blocks, "sluice_cache_segments", "cache=\"segment\"", "Segments held in RAM")                                  \
  X(hot_blocks, "sluice_cache_segments", "cache=\"encrypted\"", "")                                                      \
  X(cache_granted, "sluice_cache_memory_bytes", "", "Memory given to the segment caches, of `cache_size`")               \
  X(tracks_open, "sluice_tracks_open", "", "Track sources open in the catalogue")                                        \
  X(entries_open, "sluice_catalogue_entries", "", "Entries of the catalogue's table")                                    \
  X(entry_bytes, "sluice_catalogue_bytes", "", "Bytes held by indexes, plans and manifests")                             \
  X(keys_cached, "sluice_keys_cached", "", "Answers of key servers held in memory")                                      \
  X(key_servers_away, "sluice_key_servers_away", "", "Key servers that do not answer")

#define METRIC_HISTOGRAMS(X)                                                                                             \
  X(ttfb, "sluice_time_to_first_byte_seconds", "From the end of a request's head to the first byte sent")                \
  X(latency, "sluice_request_duration_seconds", "From the end of a request's head to the last byte handed to the socket, or the end of the connection before that") \
  X(fill, "sluice_cache_fill_seconds", "Reading one segment from storage")                                               \
  X(open_time, "sluice_track_open_seconds", "Opening one track: index, key, plan")                                       \
  X(key_fetch, "sluice_key_request_duration_seconds", "Exchanges with key servers that gave keys, attempts included")

enum { METRIC_BUCKETS = 24 }; // bucket i holds durations below 8 µs << i; the last one the rest

struct histogram {
  _Atomic uint64_t buckets[METRIC_BUCKETS];
  _Atomic uint64_t sum_ns;
};

struct obs_worker {
#define X(field, name, labels, help) _Atomic uint64_t field;
  METRIC_COUNTERS(X)
#undef X
#define X(field, name, labels, help) _Atomic int64_t field;
  METRIC_GAUGES(X)
#undef X
#define X(field, name, help) struct histogram field;
  METRIC_HISTOGRAMS(X)
#undef X
} __attribute__((aligned(128)));

// metric_add and gauge_add are for the thread that owns the set; metric_add_shared for sets that several threads write.
static inline void metric_add(_Atomic uint64_t *m, uint64_t n) {
  atomic_store_explicit(m, atomic_load_explicit(m, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void metric_inc(_Atomic uint64_t *m) { metric_add(m, 1); }
static inline void gauge_add(_Atomic int64_t *g, int64_t n) {
  atomic_store_explicit(g, atomic_load_explicit(g, memory_order_relaxed) + n, memory_order_relaxed);
}
static inline void metric_add_shared(_Atomic uint64_t *m, uint64_t n) {
  atomic_fetch_add_explicit(m, n, memory_order_relaxed);
}
static inline void gauge_add_shared(_Atomic int64_t *g, int64_t n) {
  atomic_fetch_add_explicit(g, n, memory_order_relaxed);
}

static inline unsigned histogram_bucket(uint64_t ns) {
  uint64_t us8 = ns >> 13; // 8.192 µs steps: the bounds printed are these
  unsigned b = us8 ? 64u - (unsigned)__builtin_clzll(us8) : 0;
  return b < METRIC_BUCKETS ? b : METRIC_BUCKETS - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t ns) {
  metric_add(&h->buckets[histogram_bucket(ns)], 1);
  metric_add(&h->sum_ns, ns);
}

void histogram_add_shared(struct histogram *h, uint64_t ns);

// metrics_write appends Prometheus text (exposition format 0.0.4): every metric per set (label worker="0"… or the set's
// name) — `num` sets, `names[i]` their label values. Sums are left to the reader, as Prometheus does.
void metrics_write(struct writer *w, const struct obs_worker *const *sets, const char *const *names, unsigned num);

// metrics_room is how many bytes metrics_write appends at most for `num` sets, whatever they hold, with names of up to 6 bytes.
size_t metrics_room(unsigned num);

// metrics_sum adds all sets into `out` (for /status).
void metrics_sum(struct obs_worker *out, const struct obs_worker *const *sets, unsigned num);

// What workers report. All inline, a few plain adds each.
enum obs_error {
#define X(name) OBS_##name,
#define OBS_ERRORS(X)                                                                                                    \
  X(err_bad_request) X(err_not_found) X(err_forbidden) X(err_method) X(err_gone) X(err_range) X(err_no_key)              \
  X(err_overload) X(err_source_changed) X(err_source_io) X(err_source_invalid) X(err_reset) X(err_timeout)               \
  X(err_internal) X(err_upstream)
  OBS_ERRORS(X)
#undef X
};

void obs_error(struct obs_worker *m, enum obs_error e);

// obs_request: a response's last byte was handed over, or its connection ended before that. `bytes` with its head, as sent.
static inline void obs_request(struct obs_worker *m, unsigned status, uint64_t bytes, uint64_t ttfb_ns, uint64_t total_ns) {
  metric_inc(status < 300   ? &m->status_2xx
             : status < 400 ? &m->status_3xx
             : status < 500 ? &m->status_4xx
                            : &m->status_5xx);
  metric_add(&m->bytes_sent, bytes);
  histogram_add(&m->ttfb, ttfb_ns);
  histogram_add(&m->latency, total_ns);
}

static inline void obs_conn_open(struct obs_worker *m) {
  metric_inc(&m->connections_accepted);
  gauge_add(&m->connections, 1);
  gauge_add(&m->connections_idle, 1); // until it has a request
}
static inline void obs_conn_close(struct obs_worker *m) {
  metric_inc(&m->connections_closed);
  gauge_add(&m->connections, -1);
}
static inline void obs_conn_refused(struct obs_worker *m) { metric_inc(&m->connections_refused); }
