// Correctness under load: what a response holds must decrypt to the clear source, under the key that its URL stands for,
// with IVs that never serve two places, in boxes that are the source's but for what protection adds. Reads the response's
// own boxes (tenc, trun, senc): nothing of the server's plan is used, so that a fault in the plan shows.
//
// Every byte of every response is compared. Once the bytes of a path have been found right, later responses of that path
// need only be the same bytes: their digest (XXH3, 128 bits) is compared instead.
#pragma once
#include "base/writer.h"
#include "load/playlist.h"
#include "mp4/index.h"

// What the verifier needs from outside its layer; all may be called from several threads.
struct verify_track {
  const struct track_index *ix; // of the clear source
  enum err (*read)(void *ctx, uint64_t off, void *buf, size_t n);
  void *ctx;
};

struct verify_world {
  void *ctx;
  // The clear track; NULL when there is none. Kept until the run's end.
  const struct verify_track *(*track)(void *ctx, const char *asset, const char *track);
  // The key that `kid` must have under this asset, scheme and epoch. False: that KID does not belong there.
  bool (*key)(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], uint8_t key[16]);
  // Writes pssh box number `n` of that key, in the order in which they stand in an init segment; nothing where its system has none.
  // `needed`: it must be there. False: there are no more.
  bool (*pssh)(void *ctx, const char *asset, const char *scheme, uint32_t epoch, const uint8_t kid[16], unsigned n, struct writer *w,
               bool *needed);
};

struct verifier;
struct verify_init; // an init segment that has been found right

// verifier_new takes memory for `max_segments` distinct segments; NULL when there is none. The IVs that were seen lie in
// memory that processes forked later share.
struct verifier *verifier_new(const struct verify_world *world, const struct aes_ops *ops, uint32_t max_segments);
void verifier_free(struct verifier *v);

// Where a path points.
struct verify_place {
  char scheme[16], track[256];
  uint32_t epoch, segment; // segment from 1; 0: the init segment
};

// verify_place_read reads the path of a segment or init segment of this asset, as a sluice has them, with a query or without. False: it is none.
bool verify_place_read(struct verify_place *out, const char *asset, const char *uri);

struct verify_response {
  const char *asset, *scheme; // that were asked for
  const char *path;           // as requested, without a query: /<asset>/<scheme>/<epoch>/<track>/<n>.m4s or …/init.mp4
  struct bytes body;
  const struct verify_init *init; // segments: as verify_init gave it
  const struct media_list *list;  // the playlist it came from: its KID is compared, its length, the order of its segments
};

// verify_init returns the init segment for verify_segment, NULL when it is wrong: then `what` is one sentence.
const struct verify_init *verify_init(struct verifier *v, const struct verify_response *r, char *what, size_t cap);

// verify_segment returns true when every byte is right; else false, and one sentence with path, offset and sample.
bool verify_segment(struct verifier *v, const struct verify_response *r, char *what, size_t cap);

// verify_range compares a part with the whole segment, received before.
bool verify_range(const char *path, struct bytes part, struct bytes whole, uint64_t from, char *what, size_t cap);

// verify_counts: segments that were decrypted and compared, and those that had the bytes of one that was.
void verify_counts(const struct verifier *v, uint64_t *compared, uint64_t *same);

// verify_ivs_left_out says whether there were more segments than the verifier has room for: the IVs of some were not compared.
bool verify_ivs_left_out(const struct verifier *v);
