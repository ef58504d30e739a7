// Correctness under load: what a response holds must decrypt to the clear source, under the key that its URL stands for,
// with IVs that never serve two places. Reads the response's own boxes (tenc, trun, senc): nothing of the server's plan is
// used, so that a fault in the plan shows.
#pragma once
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
};

struct verifier;

// verifier_new takes memory for `max_segments` distinct segments; NULL when there is none.
struct verifier *verifier_new(const struct verify_world *world, const struct aes_ops *ops, uint32_t max_segments);
void verifier_free(struct verifier *v);

struct verify_response {
  const char *asset, *path; // path as requested: /<asset>/<scheme>/<epoch>/<track>/<n>.m4s
  struct bytes init, body;
  const struct media_list *list; // the playlist it came from: its KID is compared
  bool ranged;
  uint64_t range_from;
  struct bytes whole; // ranged: the whole segment, received before
};

// verify_response returns true when every byte is right; else false, and one sentence with path, offset and sample.
bool verify_response(struct verifier *v, const struct verify_response *r, char *what, size_t cap);
