// What the kernels that run all steps of a pass in one launch share. A block owns some hidden units
// and keeps their recurrent weights in registers and shared memory; at each step it publishes values
// and consumes those of all others. The blocks of a group must run at the same time: they are a cluster,
// or the launch is cooperative, and its size was asked for.
//
// The grid is blocks of units x groups of rows of the batch; groups never wait for each other. Rows
// are packed (fastrnn/backends/packed_sequence.py): row m of step t is at starts[t] + m, and the rows of a
// step are the first ones of the batch. Letters as in step.h; T steps, B batch.
//
// Options of the program, chosen by fastrnn/backends/cuda/persistent.py:
//   FASTRNN_PATH     how products are computed, of tile.h
//   FASTRNN_TILES    tiles of a block's rows of weights
//   FASTRNN_COLUMNS  tiles of the batch's rows that are multiplied at once
//   FASTRNN_REGISTER_CHUNKS  chunks of k whose weights a warp keeps in registers
//   FASTRNN_EXCHANGE how blocks exchange values, of exchange.h
//   FASTRNN_CLUSTER  blocks of a group, if they are a cluster

using Path = FASTRNN_PATH;
using Exchange = FASTRNN_EXCHANGE<Path::Word>;
constexpr int kTiles = FASTRNN_TILES, kColumns = FASTRNN_COLUMNS,
              kRegisterChunks = FASTRNN_REGISTER_CHUNKS;
constexpr int kRowsAtOnce = kColumns * kTileColumns;
constexpr int kStride = kTiles * kTileRows + 4;  // of the sums in shared memory, against conflicts
constexpr int kThreads = 256;

// A block's weights (kTiles * kTileRows, K) and their products with rows of K values. Warp w has
// every chunk of k whose number is w modulo the number of warps, for all rows; so every value is
// loaded once, straight from the L2 cache into the registers of a lane that multiplies it.
template <class Path>
struct Product {
  Lane lane;
  int K, warp, warps, steps;
  typename Path::Weights in_registers[kRegisterChunks ? kTiles : 1]
                                     [kRegisterChunks ? kRegisterChunks : 1];
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
  // Shared memory that is free.
  FASTRNN_FN void* end() const {
    return shared + (steps - kRegisterChunks) * warps * kTiles * Path::kBytes;
  }
  FASTRNN_FN int place(int step, int tile) const {
    return (((step - kRegisterChunks) * warps + warp) * kTiles + tile) * Path::kBytes;
  }
  FASTRNN_FN int first_k(int step) const {
    return (step * warps + warp) * kChunk + 4 * lane.member;
  }

  // weight(row, k) is asked for inside of (rows, K) alone.
  template <class Weight>
  FASTRNN_FN void load_weights(int rows, const Weight& weight) {
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
    if constexpr (kRegisterChunks > 0) {
      FASTRNN_UNROLL
      for (int step = 0; step < kRegisterChunks; ++step) {
        FASTRNN_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          part(step, tile, w);
          in_registers[tile][step] = Path::pack(w);
          __syncwarp();  // else the compiler has more on their way than there are registers
        }
      }
    }
    for (int step = kRegisterChunks; step < steps; ++step) {
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
  FASTRNN_FN void multiply(Exchange& exchange, const Row& row) {
    __syncwarp();  // tensor cores want all lanes at once
    const typename Path::Word* rows[kColumns];
    FASTRNN_UNROLL
    for (int n = 0; n < kColumns; ++n) rows[n] = row(n * kTileColumns + lane.group);
    Totals totals;
    if constexpr (kRegisterChunks > 0)
      add<kRegisterChunks>(exchange, totals, rows, 0, 0,
                           [&](int step, int tile) { return in_registers[tile][step]; });
    const auto in_shared = [&](int step, int tile) {
      return Path::load(shared + place(step, tile), lane);
    };
    constexpr int kTogether = Exchange::kTogether, kRound = kParts > kTogether ? kParts : kTogether;
    int step = kRegisterChunks;
    FASTRNN_UNROLL_BY(kRound > 1 ? 1 : 2)
    for (; step + kRound <= steps; step += kRound) {
      FASTRNN_UNROLL
      for (int i = 0; i < kRound; i += kTogether)
        add<kTogether>(exchange, totals, rows, step + i, kRegisterChunks + i, in_shared);
    }
    FASTRNN_UNROLL
    for (int i = 0; i < kRound - 1; ++i) {
      if (step + i < steps)
        add<1>(exchange, totals, rows, step + i, kRegisterChunks + i, in_shared);
    }
    FASTRNN_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      FASTRNN_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        if constexpr (kParts > 1) {
          FASTRNN_UNROLL
          for (int part = 1; part < kParts; ++part) totals[0][tile][n].add(totals[part][tile][n]);
        }
        Path::leave(totals[0][tile][n], lane,
                    sums + (warp * kRowsAtOnce + n * kTileColumns) * kStride + tile * kTileRows,
                    kStride);
      }
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
          totals[g] = fused(Exchange::reload(words + k), weight(row + g, k), totals[g]);
      }
    }
  }

 private:
  static constexpr float kLargest = 3.40282347e+38f;
  // Sums of each tile, to which chunks are added by turns: a tensor core's result is the next one's
  // operand, so that one sum alone is a chain of waits.
  static constexpr int kAtOnce = kTiles * kColumns;
  static constexpr int kParts = !Path::kInRegisters || kAtOnce > 2 ? 1 : 4 / kAtOnce;
  using Totals = typename Path::Sums[kParts][kTiles][kColumns];

  // Adds the products of N chunks, from a step's on. Which of the sums a chunk goes to depends on its
  // number alone, which is `number` but for a multiple of kParts: bits are those of any exchange.
  template <int N, class Weights>
  FASTRNN_FN void add(Exchange& exchange, Totals& totals,
                      const typename Path::Word* const (&rows)[kColumns], int step, int number,
                      const Weights& weights) const {
    Loaded<typename Path::Word> words[N * kColumns];
    exchange.consume(words,
                     [&](int i) { return rows[i % kColumns] + first_k(step + i / kColumns); });
    FASTRNN_UNROLL
    for (int i = 0; i < N; ++i) {
      typename Path::Values x[kColumns];
      FASTRNN_UNROLL
      for (int n = 0; n < kColumns; ++n) x[n] = Path::values(words[i * kColumns + n]);
      FASTRNN_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        const typename Path::Operand w = Path::operand(weights(step + i, tile));
        FASTRNN_UNROLL
        for (int n = 0; n < kColumns; ++n)
          Path::multiply(totals[(number + i) % kParts][tile][n], w, x[n]);
      }
    }
  }
};

// The rows of a group among the first n of the batch.
struct GroupRows {
  Index first;
  int many;

  FASTRNN_FN GroupRows(Index each, Index n) : first(blockIdx.y * each) {
    const Index left = n - first;
    many = static_cast<int>(left < 0 ? 0 : left < each ? left : each);
  }
};
