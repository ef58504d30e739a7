// Fragmented audio files made from a description: the structures that no real file at hand has.
// Sample bytes are pseudo-random, a function of the sample's number, so that any test can tell them.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum synth_base { SYNTH_BASE_MOOF, SYNTH_BASE_ABSOLUTE, SYNTH_BASE_IMPLIED };
enum synth_sizes { SYNTH_SIZES_TRUN, SYNTH_SIZES_TFHD, SYNTH_SIZES_TREX };

struct synth_options {
  uint32_t num_frags, samples_per_trun, truns_per_traf, trafs_per_frag; // 0: 1 each
  uint32_t min_size, max_size;   // of samples; sizes run through the range again and again, or at random
  bool random_sizes;
  enum synth_base base;          // how trafs say where data offsets count from
  enum synth_sizes sizes;        // where sample sizes stand (the same size for all but in the first)
  bool mdat_first;               // the mdat stands before its moof: negative data offsets
  bool wide;                     // 64-bit sizes in all boxes from moov and moof down to trun, and mdat
  bool to_end;                   // the last mdat says size 0, in a folder that of each part
  bool implied_offsets;          // only the first trun of a traf has a data offset (none with SYNTH_BASE_ABSOLUTE)
  bool empty_truns;              // a trun without samples before and behind each other one
  bool empty_places;             // an empty trun before each other one has the data offset that the other lacks
  bool empty_traf;               // a traf without samples before the others
  bool reversed;                 // data of a fragment's truns stands in the opposite order
  bool styp, prft, emsg, free_boxes, sidx, sidx_each, ssix, mfra, groups; // groups: sgpd and sbgp in each traf
  bool no_tfdt, tfdt_v0, trun_v0;
  bool offsets;                  // composition offsets in truns (signed in version 1)
  bool fields;                   // tfhd says sample description, duration and flags, each trun its first sample's flags
  bool each;                     // truns say duration and flags of each sample
  bool aux;                      // saiz and saio of a type that nobody knows, before the truns of each traf
  bool terminator;               // the sample entry ends with a 32-bit 0, as QuickTime's may
  uint32_t gap;                  // bytes of mdat between runs that belong to no sample
  uint32_t timescale, frame_ticks; // 0: 48000, 1024
  bool folder;                   // each fragment is a part of its own (synth.part_ends)
  const char *name;              // of the preset
};

struct synth_sample {
  uint64_t pos; // in the file, or the concatenation of the parts
  uint32_t len;
};

struct synth {
  uint8_t *file;
  size_t len, init_len;
  struct synth_sample *samples; // in decode order
  uint32_t num_samples, num_frags, num_parts;
  uint64_t *part_ends; // of a folder: init, then one for each fragment; else one
  uint64_t *frag_starts;
};

// synth_make builds the file; it ends the process when memory is out (tests only).
void synth_make(struct synth *s, const struct synth_options *o);
void synth_free(struct synth *s);

// synth_sample_bytes writes the bytes of sample `n`.
void synth_sample_bytes(uint8_t *out, uint32_t n, uint32_t len);

// synth_presets lists named descriptions that cover every structure, ending with a NULL name.
extern const struct synth_options synth_presets[];

// synth_write writes the file, or a folder with init.mp4, 1.m4s …, to disk. 0, or -1 and errno.
int synth_write(const struct synth *s, const char *path, bool folder);
