// Where the bfloat16 factors of weights and rows lie: for dot products, and in terms for the tile
// unit. Plain arithmetic, for the drivers too.
#pragma once

#include "kernels/table.h"

namespace fastrnn {

// ---- Dot products: tile, panels and driver are those of floats, of half the depth; where a number
// lies there, a pair of k lies here. ----

constexpr Index kPairsAtOnce = 128 * 1024 / 2;  // of rows, so that they stay in the L2 cache

FASTRNN_FN Index pairs_of(Index K) { return (K + 1) / 2; }
FASTRNN_FN Index whole_vectors(Index n) { return (n + 15) / 16 * 16; }

// Rows that are rounded at once, whole tiles of six or eight.
FASTRNN_FN Index dot_group(Index rows, Index K) {
  // a chunk of steps may have no rows to sum over: K = 0
  const Index most = kPairsAtOnce / whole_vectors(larger(1, pairs_of(K))) / 24 * 24;
  return smaller(rows, larger(24, most));
}

// From one pair of k to the next when rows are columns: an odd number of cache lines, so that they do
// not fall on one set of the cache.
FASTRNN_FN Index dot_stride(Index columns) { return whole_vectors(columns) | 16; }

// Memory, counted in bfloat16, for products of up to so many rows and K.
FASTRNN_FN Index dot_scratch(Index rows, Index K) {
  return 2 * whole_vectors(pairs_of(K)) * dot_stride(dot_group(rows, K));
}

FASTRNN_FN Index dot_panels_size(const Panels& panels, Index K) {
  return 2 * panels.size(pairs_of(K));
}

// ---- The tile unit ----

constexpr Index kTileRows = 16;   // rows of A, or pairs of k of B
constexpr Index kTileDepth = 32;  // k of a tile
constexpr Index kTileSize = kTileRows * kTileDepth;

FASTRNN_FN Index tile_depth(Index K) { return (K + kTileDepth - 1) / kTileDepth; }

// Magnitudes of what is not zero, as floats: NaN is above infinity here.
struct Range {
  float low = 0x1.fffffep+127f, high = 0;

  FASTRNN_FN void join(const Range& other) {
    if (other.low < low) low = other.low;
    if (other.high > high || other.high != other.high) high = other.high;  // NaN stays
  }

  // No part of a product of two numbers flushes to zero or overflows. 2^-126 is the least normal
  // number, the last product's weight is 2^-16 and rounding can take it one lower.
  FASTRNN_FN bool fits(const Range& other) const {
    return low * other.low >= 0x1p-100f && high * other.high <= 0x1p100f && low >= 0x1p-100f &&
           other.low >= 0x1p-100f && high <= 0x1p120f && other.high <= 0x1p120f;
  }
};

// Where the tiles of the panels of K rows lie: a range each, then the tiles.
struct SplitPanels {
  Index depth, stride, at_tiles, size;  // in Half
  int terms;

  FASTRNN_FN SplitPanels(const Panels& panels, Index K, int t) : depth(tile_depth(K)), terms(t) {
    stride = depth * panels.full() * terms * kTileSize;
    at_tiles = (panels.count * Index(sizeof(Range) / sizeof(Half)) + 31) / 32 * 32;
    size = at_tiles + depth * panels.size(1) / panels.lanes * terms * kTileSize;
  }
  FASTRNN_FN const Half* tiles(const Half* data, Index p) const {
    return data + at_tiles + p * stride;
  }
  FASTRNN_FN Half* tiles(Half* data, Index p) const { return data + at_tiles + p * stride; }
};

// Rows are split in groups of blocks of 16 whose tiles stay in the L2 cache beside a panel's.
constexpr Index kGroupBlocks = 12, kGroupHalves = 320 * 1024;

FASTRNN_FN Index row_blocks(Index rows) { return (rows + kTileRows - 1) / kTileRows; }

FASTRNN_FN Index split_group(Index rows, Index K, int terms) {
  const Index most = kGroupHalves / (tile_depth(K) * terms * kTileSize) / 2 * 2;
  return smaller(row_blocks(rows), larger(2, smaller(kGroupBlocks, most)));
}

// Memory, counted in bfloat16, for groups of up to so many rows and K.
FASTRNN_FN Index split_scratch(Index rows, Index K, int terms) {
  const Index block = tile_depth(K) * terms * kTileSize;
  return smaller(smaller(row_blocks(rows), kGroupBlocks) * block, larger(kGroupHalves, 2 * block));
}

}  // namespace fastrnn
