// One entry of `providers` in the keys file: its options, their defaults and what they may be together.
#include "keys/keysfile_fields.h"

#define REMOTE(f) offsetof(struct key_remote, f)
enum { P_TYPE, P_MATCH, P_URL, P_FILE, P_CA, P_BEARER, P_BASIC, P_CERT, P_KEY, P_EPOCH, P_SCHEME, P_LIFETIME, P_REFRESH, P_MORE };
const struct field remote_fields[] = {
    [P_TYPE] = {"type", K_TEXT, REMOTE(type), NULL},
    [P_MATCH] = {"match", K_TEXT, REMOTE(match), NULL},
    [P_URL] = {"url", K_TEXT, REMOTE(url), NULL},
    [P_FILE] = {"file", K_TEXT, REMOTE(file), NULL},
    [P_CA] = {"ca_file", K_TEXT, REMOTE(ca_file), NULL},
    [P_BEARER] = {"bearer_file", K_TEXT, REMOTE(bearer_file), NULL},
    [P_BASIC] = {"basic_file", K_TEXT, REMOTE(basic_file), NULL},
    [P_CERT] = {"client_cert", K_TEXT, REMOTE(client_cert), NULL},
    [P_KEY] = {"client_key", K_TEXT, REMOTE(client_key), NULL},
    [P_EPOCH] = {"epoch", K_U32, REMOTE(epoch), NULL},
    [P_SCHEME] = {"scheme", K_SCHEME, REMOTE(scheme), NULL},
    [P_LIFETIME] = {"lifetime", K_TIME, REMOTE(lifetime_ms), NULL},
    [P_REFRESH] = {"refresh", K_TIME, REMOTE(refresh_ms), NULL},
    [P_MORE] = {"stale", K_TIME, REMOTE(stale_ms), NULL},
    {"negative", K_TIME, REMOTE(negative_ms), NULL},
    {"connect_timeout", K_TIME, REMOTE(connect_ms), NULL},
    {"tls_timeout", K_TIME, REMOTE(tls_ms), NULL},
    {"answer_timeout", K_TIME, REMOTE(answer_ms), NULL},
    {"timeout", K_TIME, REMOTE(total_ms), NULL},
    {"attempts", K_U32, REMOTE(attempts), NULL},
    {"retry", K_TIME, REMOTE(retry_ms), NULL},
    {"retry_max", K_TIME, REMOTE(retry_max_ms), NULL},
    {"connections", K_U32, REMOTE(connections), NULL},
    {0}};

const struct key_remote remote_defaults = {
    .epoch = 1, .scheme = SCHEME_CLEAR, .connect_ms = 2000, .tls_ms = 3000, .answer_ms = 5000, .total_ms = 10000, .attempts = 3,
    .retry_ms = 200, .retry_max_ms = 15000, .connections = 4, .lifetime_ms = 3600000, .refresh_ms = 600000,
    .stale_ms = 24 * 3600000, .negative_ms = 10000};

static const char *remote_fault(const struct key_remote *r, uint64_t seen) {
  const uint64_t of_url = 1u << P_URL | 1u << P_CA | 1u << P_BEARER | 1u << P_BASIC | 1u << P_CERT | 1u << P_KEY;
  const uint64_t of_file = 1u << P_FILE | 1u << P_EPOCH | 1u << P_SCHEME;
  enum { DAY = 86400000, MINUTE = 60000 };
  if (!r->provider && !bytes_eq(r->type, BYTES_LIT("cpix")))
    return "type: give speke2.0, speke2.1, json or cpix";
  if (!r->provider && (!r->file.n || (seen & of_url) || r->match.n || seen >> P_LIFETIME))
    return "cpix: give file, and where needed epoch and scheme; nothing else";
  if (!r->provider)
    return NULL;
  if (!r->url.n || (seen & of_file))
    return "give url; file, epoch and scheme are for cpix";
  if (r->bearer_file.n && r->basic_file.n)
    return "give bearer_file or basic_file, not both";
  if (!r->client_cert.n != !r->client_key.n)
    return "client_cert and client_key go together; one of them is missing";
  if (!r->lifetime_ms || r->refresh_ms >= r->lifetime_ms)
    return "refresh must be shorter than lifetime";
  if (r->lifetime_ms > 366ull * DAY || r->stale_ms > 366ull * DAY || r->negative_ms > 60 * MINUTE || r->negative_ms < 10)
    return "lifetime and stale: at most 366d; negative: 10ms to 1h";
  if (!r->connect_ms || !r->tls_ms || !r->answer_ms || !r->total_ms || r->connect_ms > 10 * MINUTE || r->tls_ms > 10 * MINUTE ||
      r->answer_ms > 10 * MINUTE || r->total_ms > 10 * MINUTE)
    return "timeouts: 1ms to 10m";
  if (r->retry_ms < 10 || r->retry_max_ms < r->retry_ms || r->retry_max_ms > 60 * MINUTE)
    return "retry: at least 10ms; retry_max: at least as much, at most 1h";
  if (r->attempts > 10 || r->connections > 64)
    return "attempts: 1 to 10; connections: 1 to 64";
  return NULL;
}

const char *remote_settle(struct key_remote *r, uint64_t seen) {
  if (!(seen >> P_REFRESH & 1) && r->refresh_ms >= r->lifetime_ms)
    r->refresh_ms = r->lifetime_ms / 4;
  r->provider = key_provider_find(r->type);
  return remote_fault(r, seen);
}
