// Where the parts of weights and rows lie. Plain code: the engine knows it on every processor.

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
  int parts;

  template <class V>
  FASTRNN_FN SplitPanels(const Panels<V>& panels, Index K, int p) : depth(tile_depth(K)), parts(p) {
    stride = depth * panels.U * panels.G * parts * kTileSize;
    at_tiles = (panels.count() * Index(sizeof(Range) / sizeof(Half)) + 31) / 32 * 32;
    size = at_tiles + depth * panels.vectors() * panels.G * parts * kTileSize;
  }
  FASTRNN_FN const Half* tiles(const Half* data, Index p) const {
    return data + at_tiles + p * stride;
  }
  FASTRNN_FN Half* tiles(Half* data, Index p) const { return data + at_tiles + p * stride; }
};

// Another product that is added to a stage's own: of rows (K,) and the parts of panels that lie as the
// stage's do.
struct SplitInput {
  const float* const* rows = nullptr;
  const Half* split = nullptr;
  Index K = 0;
};

// Rows are split in groups of blocks of 16 whose tiles stay in the L2 cache beside a panel's.
constexpr Index kGroupBlocks = 12, kGroupHalves = 320 * 1024;

FASTRNN_FN Index row_blocks(Index rows) { return (rows + kTileRows - 1) / kTileRows; }

FASTRNN_FN Index split_group(Index rows, Index K, int parts) {
  const Index most = kGroupHalves / (tile_depth(K) * parts * kTileSize) / 2 * 2;
  return smaller(row_blocks(rows), larger(2, smaller(kGroupBlocks, most)));
}

// Halves of memory for groups of up to so many rows and K.
FASTRNN_FN Index split_scratch(Index rows, Index K, int parts) {
  const Index block = tile_depth(K) * parts * kTileSize;
  return smaller(smaller(row_blocks(rows), kGroupBlocks) * block, larger(kGroupHalves, 2 * block));
}
