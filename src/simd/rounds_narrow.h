// AES rounds over registers of one or two blocks (WIDTH). The including file defines
//   vec          the type of a register, and v_xor and v_key (a round key in every place) on it
//   v_round      a round, v_last the last with the keys of the ninth and the tenth; v_unround and v_unlast of decryption
//   KEY_FIRST    whether these add a key before the round, that of the round before, instead of their own after it
#pragma once
#define INLINE __attribute__((always_inline)) static inline

// Input before the first round, with key 0. Where keys come first, round 1 adds it.
INLINE vec v_open(vec in, vec key) {
  return KEY_FIRST ? in : v_xor(in, key);
}

INLINE vec v_close(vec x, vec in, vec key) {
  return v_xor(x, v_open(in, key));
}

// The key that v_round and v_unround take in round r.
INLINE vec v_round_key(const uint8_t rk[11][16], int r) {
  return v_key(rk[r - KEY_FIRST]);
}

// Rounds 1 to 10 of `n` registers (a constant).
INLINE void rounds(const uint8_t rk[11][16], vec *x, const int n) {
  UNROLL for (int r = 1; r < 10; r++) {
    vec key = v_round_key(rk, r);
    UNROLL for (int i = 0; i < n; i++)
      x[i] = v_round(x[i], key);
  }
  vec ninth = v_round_key(rk, 10), tenth = v_key(rk[10]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_last(x[i], ninth, tenth);
}

INLINE void inv_rounds(const uint8_t rk[11][16], vec *x, const int n) {
  UNROLL for (int r = 1; r < 10; r++) {
    vec key = v_round_key(rk, r);
    UNROLL for (int i = 0; i < n; i++)
      x[i] = v_unround(x[i], key);
  }
  vec ninth = v_round_key(rk, 10), tenth = v_key(rk[10]);
  UNROLL for (int i = 0; i < n; i++)
    x[i] = v_unlast(x[i], ninth, tenth);
}
