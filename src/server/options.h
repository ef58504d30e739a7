// The configuration: one table gives every option's name, type, default, limits and documentation; from it come the YAML
// reader, the flags, `--check`, `--help`, the man pages and docs/configuration.md.
//
// An option `cache_size` is the key `cache_size` of the YAML file and the flag `--cache-size`. Flags override the file.
// A `struct config` is immutable once read: SIGHUP makes a new one and swaps the pointer.
#pragma once
#include <stdio.h>

#include "cenc/plan.h"
#include "keys/epochs.h"

enum option_type {
  OPT_BOOL,     // bool: true/false, yes/no, on/off; as a flag the value may be left out: true
  OPT_COUNT,    // uint64_t
  OPT_SIZE,     // uint64_t bytes: 512, 64K, 16M, 2G (1024-based); off: 0, where that is allowed; on, where it is the default: the most
  OPT_DURATION, // uint64_t ms: 250ms, 2s, 5m, 24h, 7d; 0
  OPT_TEXT,     // char *
  OPT_PATH,     // char *, relative to the working directory
  OPT_ENUM,     // unsigned: place in `allowed`
  OPT_ADDRS,    // struct config_addrs: "127.0.0.1:8080", "[::1]:8080", or a list of them
  OPT_SCHEMES,  // unsigned: bits 1 << enum scheme; a list of scheme names
  OPT_CERTS,    // struct config_certs: list of {cert, key, ocsp}; as a flag: CERT:KEY, repeatable
  OPT_RULES,    // struct config_rules: list of {prefix, schemes}
};

enum config_io { IO_AUTO, IO_URING, IO_EPOLL };
enum config_cenc_iv { CENC_IV_8, CENC_IV_16 };
enum config_steering { STEER_AUTO, STEER_TURNS, STEER_CPU, STEER_HASH };

struct config_addr {
  char *text; // as written
  char *host; // without brackets
  uint16_t port;
};
struct config_addrs {
  struct config_addr *a;
  unsigned num;
};
struct config_cert {
  char *cert, *key; // PEM files: chain, private key
  char *ocsp;       // DER response to staple, or NULL
};
struct config_certs {
  struct config_cert *a;
  unsigned num;
};
// The longest matching rule decides; `prefix` "album/" matches what is below it, "album/track" that asset alone.
struct config_rule {
  char *prefix;
  unsigned schemes;
};
struct config_rules {
  struct config_rule *a;
  unsigned num;
};

enum { CONFIG_MAX_LISTENERS = 64, CONFIG_MAX_ADMIN = 16, CONFIG_MAX_CERTIFICATES = 64 };

// X(field, type, default, min, max, reload, doc). min and max bound numbers (in the option's unit).
// reload: taken over by SIGHUP; the others need a restart.
#define CONFIG_OPTIONS(X)                                                                                                \
  X(media, OPT_PATH, "", 0, 0, false, "Folder of the clear media. Required. One folder below it is one asset.")          \
  X(listen, OPT_ADDRS, "0.0.0.0:8080", 0, 0, false,                                                                      \
    "Where players and CDNs connect (HTTP/1.1). `[::]:PORT` takes IPv4 too, unless `0.0.0.0:PORT` is there as well.")    \
  X(tls_listen, OPT_ADDRS, "", 0, 0, false, "Where they connect with TLS 1.3 or 1.2. Needs `tls_certificates`.")         \
  X(tls_certificates, OPT_CERTS, "", 0, 0, true,                                                                         \
    "Certificates with their keys, chosen by the server name that the client asks for (one with the very name before a " \
    "wildcard) and, of several for a name, by the kinds of keys that it can verify; the first is the default. "       \
    "`ocsp` names a DER response to staple: within its time and while it says good; one of another certificate is "      \
    "refused.")                                                                                                          \
  X(tls_certificate, OPT_PATH, "", 0, 0, true, "Short form for one certificate: PEM file with the chain.")               \
  X(tls_key, OPT_PATH, "", 0, 0, true, "PEM file with the private key of `tls_certificate`.")                                                           \
  X(tls_client_ca, OPT_PATH, "", 0, 0, true,                                                                        \
    "PEM file of authorities: clients must then show a certificate of theirs, with its chain of at most 32 KB. There are no " \
    "revocation lists.")                                                                                                  \
  X(ktls, OPT_BOOL, "true", 0, 0, false,                                                                                 \
    "Let the kernel seal TLS 1.3 records where it can (AES-GCM), so that hot segments leave with sendfile over TLS too.") \
  X(admin, OPT_ADDRS, "127.0.0.1:9090", 0, 0, false,                                                                     \
    "Where /live, /ready, /metrics, /status and rotation are served. Keep it off public networks.")                      \
  X(admin_hosts, OPT_TEXT, "", 0, 0, false,                                                                               \
    "Names by which browsers may read the page and /status, beside addresses, localhost and names in `admin`: \"origin1.example origin1\". " \
    "By any other a page could have led its own name there, and gets 403; /metrics, /live and /ready answer to all.")      \
  X(admin_token_file, OPT_PATH, "", 0, 0, true,                                                                           \
    "File with the token that rotations through the admin listener must carry (`Authorization: Bearer …`). Empty: none.") \
  X(workers, OPT_COUNT, "0", 0, 256, false,                                                                              \
    "Worker threads. 0: one for each CPU that the process may use, no more than a control group's quota lets run.")       \
  X(pin_workers, OPT_BOOL, "true", 0, 0, false,                                                                          \
    "Pin each worker to a CPU; under a quota of fewer CPUs than there are, only where `cpu_affinity` says which.")        \
  X(cpu_affinity, OPT_TEXT, "", 0, 0, false, "CPUs to pin workers to, in turn: \"0 2 4\"; empty: those the process may use.") \
  X(steering, OPT_ENUM, "auto", 0, 0, false,                                                                             \
    "Which worker gets a new connection: `turns`, one after the other; `cpu`, the one pinned where the packet came in, " \
    "for network cards with a queue for each worker; `hash`, the kernel's choice. `auto` takes turns where the kernel "  \
    "lets this process load the program for it, else the hash.")                                                         \
  X(io, OPT_ENUM, "auto", 0, 0, false,                                                                                   \
    "How sockets are driven. `auto` takes io_uring and falls back to epoll where it is not allowed.")                    \
  X(keys, OPT_PATH, "", 0, 0, true,                                                                                      \
    "Keys file. Without it keys are derived from a secret that is created in `state_dir` at the first start.")           \
  X(max_keys, OPT_COUNT, "20000", 16, 10000000, false,                                                                   \
    "Answers of key servers kept in memory: one for each asset, epoch and scheme that is played; some kilobytes each.")  \
  X(insecure_clearkey, OPT_BOOL, "false", 0, 0, true,                                                                    \
    "Hand out content keys to anyone who asks (ClearKey licences, HLS `identity` keys). For demos and tests only.")      \
  X(public_url, OPT_TEXT, "", 0, 400, true,                                                                               \
    "How players reach this server (https://origin.example), for the ClearKey licence URL in manifests. "                \
    "Empty: made from `listen`.")                                                                                        \
  X(schemes, OPT_SCHEMES, "cenc, cbcs", 0, 0, true,                                                                      \
    "Protection schemes that may be asked for. `clear` serves the media unprotected.")                                   \
  X(clear, OPT_BOOL, "false", 0, 0, true, "Short form: allow the scheme `clear` for every asset.")                       \
  X(assets, OPT_RULES, "", 0, 0, true,                                                                                   \
    "Rules for some assets: `{prefix: free/, schemes: [clear, cbcs]}`. The longest matching prefix decides; one that "   \
    "ends in `/` matches everything below, another that asset alone.")                                                   \
  X(segment_target, OPT_DURATION, "2s", 0, 600000, true,                                                                 \
    "Fragments are grouped into segments until they last this long, unless the source says where segments begin. "       \
    "0: every fragment is a segment. Rotate after a change: it changes old URLs.")                                                      \
  X(inband_pssh, OPT_BOOL, "false", 0, 0, true,                                                                          \
    "Put the DRM systems' `pssh` boxes into init segments too. Rotate after a change: it changes old URLs.")                            \
  X(cbcs_senc, OPT_BOOL, "true", 0, 0, true,                                                                             \
    "Write the count-only `senc` box in cbcs fragments, which some older players need. Rotate after a change: it changes old URLs.")    \
  X(cenc_iv_size, OPT_ENUM, "8", 0, 0, true,                                                                             \
    "Bytes of each sample's IV in cenc: `8`, or `16`, the same IV with 8 zero bytes behind it, for players that want that; PlayReady " \
    "before 4.0 cannot play it. Rotate after a change: it changes old URLs.")                                               \
  X(manifest_max_age, OPT_DURATION, "5s", 0, 86400000, true, "How long caches may keep playlists, MPDs and 410s.")       \
  X(cors_origin, OPT_TEXT, "*", 0, 512, true, "Value of Access-Control-Allow-Origin; empty sends no CORS headers.")        \
  X(revalidate, OPT_DURATION, "2s", 0, 3600000, true,                                                                    \
    "How long a file in use is believed unchanged before its size and time are looked at again.")                        \
  X(stale_if_error, OPT_DURATION, "1h", 0, 604800000, true,                                                              \
    "How long what is in memory is served as it was, eight times `revalidate` after it was last looked at, while storage " \
    "fails or does not answer. A rotation or a reload ends that.")                                                       \
  X(negative_ttl, OPT_DURATION, "1s", 0, 60000, true,                                                                    \
    "How long it is remembered that something is not there; in whole seconds, rounded up, also what caches are told of "  \
    "a 404 or 403.")                                                                                                     \
  X(cache_size, OPT_SIZE, "512M", 4 << 20, 1ULL << 44, false,                                                            \
    "RAM for segments, clear and encrypted together, with the tables that describe them; shared by all workers.")        \
  X(cache_clear, OPT_SIZE, "on", 1 << 20, 1ULL << 44, false,                                                             \
    "The most of `cache_size` that clear segments may take. on: all of it.")                                             \
  X(index_size, OPT_SIZE, "256M", 1 << 20, 1ULL << 44, false, "RAM for indexes, plans and manifests.")                   \
  X(cache_encrypted, OPT_SIZE, "on", 0, 1ULL << 44, false,                                                               \
    "The most of `cache_size` that segments may take that many clients ask for at the same time and that are therefore " \
    "kept encrypted. on: all of it; off: always encrypt afresh.")                                                        \
  X(huge_pages, OPT_BOOL, "true", 0, 0, false, "Ask for huge pages for the caches, where the system offers them.")       \
  X(helper_threads, OPT_COUNT, "4", 1, 64, false, "Threads that open tracks and read storage for the workers.")          \
  X(backlog, OPT_COUNT, "4096", 1, 65535, false, "Connections that may wait to be accepted, for each worker.")              \
  X(max_connections, OPT_COUNT, "20000", 1, 10000000, false,                                                             \
    "Client connections of one worker, idle or with a request. To more, those give way that wait for a request, longer than a " \
    "second, the longest first; where there is none they are refused. Fewer where the process may not open "     \
    "as many descriptors (`ulimit -n`), of which some are kept for media; the log says so. An idle one takes less than "  \
    "512 bytes of memory, one with a request up to 55 KB; over TLS 6 KB more (13 KB with a client's certificate), until the " \
    "handshake is done up to 26 KB (50 KB with `tls_client_ca`).")                                                               \
  X(output_buffers, OPT_COUNT, "256", 8, 65536, false, "Response buffers of one worker; they bound its memory.")         \
  X(keepalive_requests, OPT_COUNT, "0", 0, 1000000000, true, "Requests on one connection before it is closed. 0: no limit.") \
  X(header_timeout, OPT_DURATION, "10s", 100, 3600000, true, "Time for a client to send a request's head.")              \
  X(idle_timeout, OPT_DURATION, "75s", 100, 86400000, true, "Time that an idle connection is kept.")                     \
  X(stall_timeout, OPT_DURATION, "5s", 100, 3600000, true,                                                               \
    "Time without progress after which a slow reader's response buffer is taken back and refilled when it reads on.")    \
  X(write_timeout, OPT_DURATION, "60s", 100, 86400000, true,                                                             \
    "Time without progress after which a connection is closed. The kernel holds up to 256 KiB of a response: who reads "  \
    "less than half of that in this time makes none.")                                                                   \
  X(drain_timeout, OPT_DURATION, "30s", 0, 3600000, true, "Time that SIGTERM leaves to requests under way. A second one ends them at once.")             \
  X(congestion_control, OPT_TEXT, "", 0, 0, false, "TCP congestion control of the listeners; empty: the system's.")      \
  X(state_dir, OPT_PATH, "/var/lib/sluice", 0, 0, false, "Folder for the derivation secret and the rotation journal, of one server alone: it is locked.")   \
  X(cache_dir, OPT_PATH, "", 0, 0, false,                                                                                \
    "Folder for sidecar indexes of media folders that are read-only for the server. Empty: such indexes stay in memory.")               \
  X(write_sidecars, OPT_BOOL, "true", 0, 0, true,                                                                   \
    "Write sidecar indexes, beside the media where that is possible, else into `cache_dir`. false: nowhere; a track without one is " \
    "read whole each time it is opened.")      \
  X(rotation_grace, OPT_DURATION, "24h", 0, EPOCH_MAX_GRACE_DAYS * 86400000ULL, true,                                      \
    "How long an old key epoch answers, unless `rotate` or the keys file's `epochs` says otherwise, within the same bounds.") \
  X(access_log, OPT_PATH, "", 0, 0, false,                                                                               \
    "Access log file, `-` for standard output, empty or `off` for none. A response that was cut off has a line too: its " \
    "status as sent, the bytes that were sent. SIGUSR1 opens it anew, for logrotate. A pipe whose reader stops costs lines, " \
    "which are counted, and nothing else.")                                                                               \
  X(access_format, OPT_ENUM, "combined", 0, 0, false, "Form of access log lines. `json` has ranges, times and what a CDN says in X-Forwarded-For, unproven, as well.")                                       \
  X(log_level, OPT_ENUM, "info", 0, 0, true, "What goes to standard error; `debug` adds why TLS handshakes and connections failed.")                                             \
  X(sandbox, OPT_BOOL, "true", 0, 0, false,                                                                              \
    "Give up file access, system calls and capabilities that are no longer needed once serving. What a reload reads may be " \
    "replaced, or linked anew, within the folders that the names have at the start and those that links lead to then.")

#define CONFIG_FIELD_OPT_BOOL bool
#define CONFIG_FIELD_OPT_COUNT uint64_t
#define CONFIG_FIELD_OPT_SIZE uint64_t
#define CONFIG_FIELD_OPT_DURATION uint64_t
#define CONFIG_FIELD_OPT_TEXT char *
#define CONFIG_FIELD_OPT_PATH char *
#define CONFIG_FIELD_OPT_ENUM unsigned
#define CONFIG_FIELD_OPT_ADDRS struct config_addrs
#define CONFIG_FIELD_OPT_SCHEMES unsigned
#define CONFIG_FIELD_OPT_CERTS struct config_certs
#define CONFIG_FIELD_OPT_RULES struct config_rules

struct config {
#define X(field, type, def, min, max, reload, doc) CONFIG_FIELD_##type field;
  CONFIG_OPTIONS(X)
#undef X
  char *file; // the YAML file read, or NULL
  char *text; // what stood in it, text_len bytes
  size_t text_len;
};

struct option {
  const char *name;
  enum option_type type;
  const char *def; // as text
  uint64_t min, max; // of numbers; of OPT_TEXT the most bytes, 0: any
  bool reload;
  const char *doc;
  size_t offset; // in struct config
};
enum {
#define X(field, type, def, min, max, reload, doc) OPTION_##field,
  CONFIG_OPTIONS(X)
#undef X
      NUM_OPTIONS
};
extern const struct option config_options[NUM_OPTIONS];

// config_nearest gives the option whose name is most like a word that is none; NULL where none is like it.
const struct option *config_nearest(const char *name);

// config_allowed gives the NULL-terminated words of an OPT_ENUM option.
const char *const *config_allowed(const struct option *o);

// Whether an OPT_SIZE option takes the words `on` (it is the default then) and `off` (where 0 is allowed).
bool config_takes_on(const struct option *o);
bool config_takes_off(const struct option *o);

// config_set reads `text` into an option; list types get one more element when `append`. False, with what is wrong and what
// is allowed in `why`, leaves the option as it was. config_add_rule and config_add_cert add one element.
enum { CONFIG_WHY = 240 };
bool config_set(struct config *c, const struct option *o, const char *text, bool append, char why[CONFIG_WHY]);
bool config_add_cert(struct config *c, const struct option *o, const char *cert, const char *key, const char *ocsp);
bool config_add_rule(struct config *c, const struct option *o, const char *prefix, unsigned schemes, char why[CONFIG_WHY]);
void config_clear(struct config *c, const struct option *o); // back to empty, memory freed
bool config_scheme_bits(unsigned *out, const char *text, char why[CONFIG_WHY]);

// A fault of configuration: one line: "sluice.yaml:12: workers: 9999 is more than 256".
struct config_error {
  char text[600];
  bool in_file; // of config_load: the file is at fault, not the flags
};

// config_fail writes the error and returns false.
bool config_fail(struct config_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// config_read_yaml adds the options of a YAML document. `name` stands in errors.
bool config_read_yaml(struct config *c, const char *name, const char *text, size_t len, struct config_error *error);

// What is wrong with a pipe that was read before: taken for an empty file it would undo what was in force.
extern const char config_empty_pipe[];

// config_load makes a configuration from defaults, then the YAML `file` (NULL: none), then flags: `flags` are pairs as
// config_flag collected them. Everything is validated, but no other file is looked at.
// Returns NULL and the error. config_free(NULL) is a no-op.
struct config_flags {
  struct {
    unsigned option;
    const char *value;
  } a[128];
  unsigned num;
};
struct config *config_load(const char *file, const struct config_flags *flags, struct config_error *error);
void config_free(struct config *c);

// config_check looks at all options together, for config_load; those that are short for others are turned into them.
bool config_check(struct config *c, struct config_error *error);

// config_v6_only says whether `a` is [::] beside 0.0.0.0 with the same port: each takes its version then. Alone it takes both.
bool config_v6_only(const struct config *c, const struct config_addr *a);

// config_flag takes argv[*i] when it is one of the table's flags (and its value, in the same word after '=' or the next
// one), stepping *i over what it used. Returns 1 taken, 0 not a flag of the table, -1 with the error set.
int config_flag(struct config_flags *flags, int argc, char **argv, int *i, struct config_error *error);

// config_flag_add is for commands with options of their own: OPTION_… with its value, for which there has to be room. NULL: none.
void config_flag_add(struct config_flags *flags, unsigned option, const char *value);

// config_same says whether two configurations of one process, whose flags stay what they were, come from the same text.
bool config_same(const struct config *a, const struct config *b);

// config_restart_needed names the first option that differs between the two but cannot be changed while running, or NULL.
const char *config_restart_needed(const struct config *running, const struct config *fresh);

// config_old_urls names the options that differ between the two and change what URLs of epochs that have begun give: those
// were handed out to be kept for a year. "" when none does.
enum { CONFIG_OLD_URLS_MAX = 120 };
const char *config_old_urls(char out[CONFIG_OLD_URLS_MAX], const struct config *running, const struct config *fresh);

// config_schemes gives the bits 1 << enum scheme that are allowed for an asset.
unsigned config_schemes(const struct config *c, struct bytes asset);

// Documentation, all from the table.
void config_help(FILE *out);     // for `serve --help`
void config_markdown(FILE *out); // docs/configuration.md
void config_man5(FILE *out);     // sluice.yaml(5)
void config_man8(FILE *out);     // sluice-serve(8)
