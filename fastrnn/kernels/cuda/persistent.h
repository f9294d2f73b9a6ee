// What the kernels that run all steps of a pass in one launch share. A block owns some hidden units
// and keeps their recurrent weights in registers and shared memory; after each step the blocks
// meet, and each reads what the others published. All blocks must run at the same time: the launch is
// cooperative, and its size was asked for.
//
// The grid is blocks of units x groups of rows of the batch; groups never wait for each other. Rows
// are packed (fastrnn/backends/packing.py): row m of step t is at starts[t] + m, and the rows of a
// step are the first ones of the batch. Letters as in step.h; T steps, B batch.
//
// Options of the program, chosen by fastrnn/backends/cuda/persistent.py:
//   FASTRNN_PATH     how products are computed, of tile.h
//   FASTRNN_TILES    tiles of a block's rows of weights
//   FASTRNN_COLUMNS  tiles of the batch's rows that are multiplied at once
//   FASTRNN_HELD     chunks of k whose weights a warp keeps in registers

using Path = FASTRNN_PATH;
constexpr int kTiles = FASTRNN_TILES, kColumns = FASTRNN_COLUMNS, kHeld = FASTRNN_HELD;
constexpr int kRowsAtOnce = kColumns * kTileColumns;
constexpr int kStride = kTiles * kTileRows + 4;  // of the sums in shared memory, against conflicts
constexpr int kThreads = 256;
constexpr Word kPatience = 2000000000;  // nanoseconds until a block gives the others up

// A block's weights (kTiles * kTileRows, K) and their products with rows of K values. Warp w has
// every chunk of k whose number is w modulo the number of warps, for all rows; so every value is
// loaded once, straight from the L2 cache into the registers of a lane that multiplies it.
template <class Path>
struct Product {
  Lane lane;
  int K, warp, warps, steps;
  typename Path::Weights held[kHeld ? kTiles : 1][kHeld ? kHeld : 1];
  Real* sums;             // [warp][row of values][row of weights]
  unsigned char* shared;  // the other weights, [step][warp][tile]

  FASTRNN_FN explicit Product(Index K_)
      : K(static_cast<int>(K_)),
        warp(static_cast<int>(threadIdx.x) / 32),
        warps(static_cast<int>(blockDim.x) / 32),
        steps((K + kChunk * warps - 1) / (kChunk * warps)),
        sums(shared_memory<Real>()),
        shared(reinterpret_cast<unsigned char*>(sums + warps * kRowsAtOnce * kStride)) {}

  // K, and zeros up to where the chunks end.
  FASTRNN_FN int padded() const { return steps * warps * kChunk; }
  FASTRNN_FN int place(int step, int tile) const {
    return (((step - kHeld) * warps + warp) * kTiles + tile) * Path::kBytes;
  }
  FASTRNN_FN int first_k(int step) const {
    return (step * warps + warp) * kChunk + 4 * lane.member;
  }

  // weight(row, k) is asked for inside of (rows, K) alone.
  template <class Weight>
  FASTRNN_FN void keep(int rows, const Weight& weight) {
    const auto part = [&](int step, int tile, Real(&w)[2][4]) {
      FASTRNN_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int row = tile * kTileRows + lane.group + 8 * i;
        FASTRNN_UNROLL
        for (int j = 0; j < 4; ++j) {
          const int k = first_k(step) + j;
          w[i][j] = row < rows && k < K ? weight(row, k) : Real(0);
        }
      }
    };
    Real w[2][4];
    if constexpr (kHeld > 0) {
      FASTRNN_UNROLL
      for (int step = 0; step < kHeld; ++step) {
        FASTRNN_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          part(step, tile, w);
          held[tile][step] = Path::pack(w);
          __syncwarp();  // else the compiler has more on their way than there are registers
        }
      }
    }
    for (int step = kHeld; step < steps; ++step) {
      for (int tile = 0; tile < kTiles; ++tile) {
        part(step, tile, w);
        Path::store(shared + place(step, tile), lane, w);
      }
    }
    __syncthreads();
  }

  // Leaves the products with the rows m < kRowsAtOnce; row(m) is where the words of one begin.
  // Afterwards `sum` gives them, until the next call.
  template <class Row>
  FASTRNN_FN void multiply(const Row& row) {
    __syncwarp();  // tensor cores want all lanes at once
    const typename Path::Word* rows[kColumns];
    FASTRNN_UNROLL
    for (int n = 0; n < kColumns; ++n) rows[n] = row(n * kTileColumns + lane.group);
    typename Path::Sums totals[kTiles][kColumns];
    if constexpr (kHeld > 0) {
      FASTRNN_UNROLL
      for (int step = 0; step < kHeld; ++step)
        add(totals, rows, first_k(step), [&](int tile) { return held[tile][step]; });
    }
    FASTRNN_UNROLL_BY(2)
    for (int step = kHeld; step < steps; ++step)
      add(totals, rows, first_k(step),
          [&](int tile) { return Path::load(shared + place(step, tile), lane); });
    FASTRNN_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      FASTRNN_UNROLL
      for (int n = 0; n < kColumns; ++n)
        Path::leave(totals[tile][n], lane,
                    sums + (warp * kRowsAtOnce + n * kTileColumns) * kStride + tile * kTileRows,
                    kStride);
    }
    __syncthreads();
  }

  // The products of row m, which begins at `words`, with the weights' rows from `row` on; the rest is
  // that of the calls before.
  template <int G, class Weight>
  FASTRNN_FN void sum(int m, int row, const typename Path::Word* words, const Weight& weight,
                      Real (&totals)[G]) const {
    FASTRNN_UNROLL
    for (int g = 0; g < G; ++g) totals[g] = 0;
    for (int w = 0; w < warps; ++w) {
      const Real* of_warp = sums + (w * kRowsAtOnce + m) * kStride + row;
      if constexpr (G == 4) {  // then `row` is a multiple of 4
        const Four<Real> four = *reinterpret_cast<const Four<Real>*>(of_warp);
        FASTRNN_UNROLL
        for (int g = 0; g < G; ++g) totals[g] += four.v[g];
      } else {
        FASTRNN_UNROLL
        for (int g = 0; g < G; ++g) totals[g] += of_warp[g];
      }
    }
    if constexpr (Path::kSplits) {
      FASTRNN_UNROLL
      for (int g = 0; g < G; ++g) {
        if (magnitude(totals[g]) <= kLargest) continue;
        totals[g] = 0;
        FASTRNN_UNROLL_BY(1)
        for (int k = 0; k < K; ++k)
          totals[g] = fused(load_fresh(words + k), weight(row + g, k), totals[g]);
      }
    }
  }

 private:
  static constexpr float kLargest = 3.40282347e+38f;
  using Totals = typename Path::Sums[kTiles][kColumns];

  template <class Weights>
  FASTRNN_FN void add(Totals& totals, const typename Path::Word* const (&rows)[kColumns], int k,
                      const Weights& weights) const {
    typename Path::Values x[kColumns];
    FASTRNN_UNROLL
    for (int n = 0; n < kColumns; ++n) x[n] = Path::values(rows[n] + k);
    FASTRNN_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      const typename Path::Operand w = Path::operand(weights(tile));
      FASTRNN_UNROLL
      for (int n = 0; n < kColumns; ++n) Path::multiply(totals[tile][n], w, x[n]);
    }
  }
};

// What the blocks of a launch share, zeros at its start: the counters of their meetings, 128 bytes
// for each group of rows, then rows of words, in slots of a batch each. A slot is written again two
// steps later, when nobody reads it any more.
template <class Path>
struct Published {
  typename Path::Word* words;
  Index B;
  int stride;

  FASTRNN_FN Published(unsigned* shared, Index B_, int stride_)
      : words(reinterpret_cast<typename Path::Word*>(shared + 32 * gridDim.y)),
        B(B_),
        stride(stride_) {}
  FASTRNN_FN typename Path::Word* row(int slot, Index m) const {
    return words + (slot * B + m) * stride;
  }
};

// Where the blocks of a group of rows meet: a counter of arrivals. A block that waits too long marks
// it, and from then on none waits: the results are NaN, and the GPU is free again.
struct Meeting {
  static constexpr unsigned kFailed = 1u << 31;
  unsigned* arrivals;
  unsigned target = 0;

  FASTRNN_FN explicit Meeting(unsigned* shared) : arrivals(shared + 32 * blockIdx.y) {}

  // What the block has written until here, others see after `wait`.
  FASTRNN_FN void arrive() {
    target += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0 && gridDim.x > 1) add_release(arrivals, 1);
  }

  // Returns whether all came, the same to all threads of a block.
  FASTRNN_FN bool wait() {
    if (gridDim.x == 1) return true;
    int failed = 0;
    if (threadIdx.x == 0) {
      const Word begin = nanoseconds();
      unsigned here = load_acquire(arrivals);
      while (here < target) {
        if (nanoseconds() - begin > kPatience) or_release(arrivals, kFailed);
        wait_a_little();
        here = load_acquire(arrivals);
      }
      failed = here >= kFailed;
    }
    return !__syncthreads_or(failed);
  }
};

// The rows of a group among the first n of the batch.
struct Rows {
  Index first;
  int many;

  FASTRNN_FN Rows(Index each, Index n) : first(blockIdx.y * each) {
    const Index left = n - first;
    many = static_cast<int>(left < 0 ? 0 : left < each ? left : each);
  }
};
