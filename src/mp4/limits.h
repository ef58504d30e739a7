// Bounds of every loop over input that the size of the input does not bound well enough. Those that readers of an
// index rely on are in mp4/index.h (IX_MAX_*).
#pragma once

enum {
  LIMIT_DEPTH = 12,               // nesting of boxes that is followed
  LIMIT_MOOF = 1 << 28,           // bytes of one moof
  LIMIT_FREE_SAMPLES = 1 << 16,   // samples of a file that cost neither header nor data bytes
  LIMIT_UNORDERED_RUNS = 1 << 13, // truns of a fragment whose data is not in their order
  LIMIT_SUBSEGMENTS = 1 << 22,    // references of all sidx boxes
  LIMIT_DESCRIPTORS = 16,         // MPEG-4 descriptors looked at in one esds
};
