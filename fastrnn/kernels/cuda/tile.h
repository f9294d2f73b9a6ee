// The product of a tile, by one warp: 16 rows of weights times 8 rows of values over 16 k at a time.
// A path is one way to compute it, and all that differs between precisions:
//   Weights    what a lane keeps of 16 x 16 weights; `load` finds it in shared memory, where `store`
//              has left it in kBytes, and with kInRegisters `pack` makes it at once
//   Operand    what `operand` makes of Weights each time they are used
//   Word       a value as the block that computes it publishes it, by `word`
//   Values     what a lane takes of 8 x 16 values; `values` makes it of four words side by side
//   Sums       what a lane has of 16 x 8 sums; `multiply` adds to them, and their `add` others
//   leave      writes the sums of a warp to shared memory, each exactly once
//   kSplits    operands are split, which huge ones and inf do not survive: a sum is NaN or inf where
//              it need not be
//
// Which weights and values a lane brings along is the same for all paths. Lane l is number l % 4,
// its `member`, of group l / 4: it has the four k from 4 * member on, of the weights' rows `group`
// and `group + 8`, and of the values' row `group`.

constexpr int kTileRows = 16, kTileColumns = 8, kChunk = 16;

struct Lane {
  int index, group, member;

  FASTRNN_FN Lane()
      : index(static_cast<int>(threadIdx.x) % 32), group(index / 4), member(index % 4) {}
};

// Neighbours that one instruction loads and stores.
template <class T>
struct alignas(16) Four {
  T v[4];
};

// Four words of values side by side, as a lane loads them: those of 16 bits in pairs.
template <class Word>
struct Loaded {
  Word v[4];
};
template <>
struct Loaded<unsigned short> {
  unsigned v[2];
};

// Sums where tensor cores leave them: rows `group` and `group + 8`, columns 2 * member and the next.
FASTRNN_FN void leave_fragment(const float (&sums)[4], const Lane& lane, float* out, int stride) {
  FASTRNN_UNROLL
  for (int i = 0; i < 4; ++i)
    out[(2 * lane.member + i % 2) * stride + lane.group + i / 2 * 8] = sums[i];
}

// Words of 32 bits of all lanes, four of each lane side by side: no two lanes in one bank.
template <int N>
struct Words {
  static constexpr int kBytes = N * 32 * 4;
  unsigned v[N];

  FASTRNN_FN void store(void* memory, const Lane& lane) const {
    Four<unsigned>* fours = static_cast<Four<unsigned>*>(memory);
    FASTRNN_UNROLL
    for (int i = 0; i < N; i += 4)
      fours[i / 4 * 32 + lane.index] = {{v[i], v[i + 1], v[i + 2], v[i + 3]}};
  }
  FASTRNN_FN static Words load(const void* memory, const Lane& lane) {
    const Four<unsigned>* fours = static_cast<const Four<unsigned>*>(memory);
    Words words;
    FASTRNN_UNROLL
    for (int i = 0; i < N; i += 4) {
      const Four<unsigned> four = fours[i / 4 * 32 + lane.index];
      FASTRNN_UNROLL
      for (int j = 0; j < 4; ++j) words.v[i + j] = four.v[j];
    }
    return words;
  }
};

// One chain of fused multiply-adds for a lane's k, on GPUs without the tensor cores below and in
// double. A lane has a column of its own and all rows; `leave` adds a group's lanes up.
struct Chains {
  static constexpr bool kInRegisters = false, kSplits = false;
  static constexpr int kBytes = kTileRows * kChunk * static_cast<int>(sizeof(Real));

  struct Weights {
    const Four<Real>* rows;  // every fourth is of this lane's k
  };
  using Operand = Weights;
  using Word = Real;
  using Values = Loaded<Word>;
  struct Sums {
    Real v[kTileRows] = {};
  };

  FASTRNN_FN static void store(void* memory, const Lane& lane, const Real (&w)[2][4]) {
    Four<Real>* fours = static_cast<Four<Real>*>(memory);
    FASTRNN_UNROLL
    for (int i = 0; i < 2; ++i)
      fours[(lane.group + 8 * i) * 4 + lane.member] = {{w[i][0], w[i][1], w[i][2], w[i][3]}};
  }
  FASTRNN_FN static Weights load(const void* memory, const Lane& lane) {
    return {static_cast<const Four<Real>*>(memory) + lane.member};
  }
  FASTRNN_FN static Operand operand(const Weights& w) { return w; }
  FASTRNN_FN static Word word(Real x) { return x; }
  FASTRNN_FN static Values values(const Loaded<Word>& x) { return x; }

  FASTRNN_FN static void multiply(Sums& sums, const Operand& w, const Values& x) {
    FASTRNN_UNROLL
    for (int row = 0; row < kTileRows; ++row) {
      const Four<Real> four = w.rows[row * 4];
      FASTRNN_UNROLL
      for (int k = 0; k < 4; ++k) sums.v[row] = fused(x.v[k], four.v[k], sums.v[row]);
    }
  }

  FASTRNN_FN static void leave(Sums& sums, const Lane& lane, Real* out, int stride) {
    share<8>(sums, lane);
    share<4>(sums, lane);
    FASTRNN_UNROLL
    for (int i = 0; i < 4; ++i) out[lane.group * stride + 4 * lane.member + i] = sums.v[i];
  }

 private:
  // Of two halves of rows a lane keeps one and gives the other, to the lane that keeps that.
  template <int kHalf>
  FASTRNN_FN static void share(Sums& sums, const Lane& lane) {
    const bool upper = lane.member & kHalf / 4;
    FASTRNN_UNROLL
    for (int i = 0; i < kHalf; ++i) {
      const Real given = upper ? sums.v[i] : sums.v[i + kHalf];
      const Real kept = upper ? sums.v[i + kHalf] : sums.v[i];
      sums.v[i] = kept + from_lane_xor(given, kHalf / 4);
    }
  }
};

// Operands rounded to TF32, sums in float.
struct Tf32 {
  static constexpr bool kInRegisters = true, kSplits = false;
  using Weights = Words<8>;
  using Operand = Weights;
  static constexpr int kBytes = Weights::kBytes;
  using Word = float;
  using Values = Loaded<Word>;
  struct Sums {
    float v[4] = {};

    FASTRNN_FN void add(const Sums& other) {
      FASTRNN_UNROLL
      for (int i = 0; i < 4; ++i) v[i] += other.v[i];
    }
  };

  FASTRNN_FN static Weights pack(const float (&w)[2][4]) {
    Weights words;
    FASTRNN_UNROLL
    for (int i = 0; i < 8; ++i) words.v[i] = to_tf32(w[i % 2][i / 2]);
    return words;
  }
  FASTRNN_FN static void store(void* memory, const Lane& lane, const float (&w)[2][4]) {
    pack(w).store(memory, lane);
  }
  FASTRNN_FN static Weights load(const void* memory, const Lane& lane) {
    return Weights::load(memory, lane);
  }
  FASTRNN_FN static Operand operand(const Weights& w) { return w; }
  FASTRNN_FN static Word word(float x) { return float_of(to_tf32(x)); }
  FASTRNN_FN static Values values(const Loaded<Word>& x) { return x; }
  // A fragment's k and k + 4 are neighbours here, in weights and values alike: a sum has no order.
  FASTRNN_FN static void multiply(Sums& sums, const Operand& w, const Values& x) {
    FASTRNN_UNROLL
    for (int j = 0; j < 4; j += 2)
      mma_tf32(sums.v, {w.v[2 * j], w.v[2 * j + 1], w.v[2 * j + 2], w.v[2 * j + 3]},
               {bits_of(x.v[j]), bits_of(x.v[j + 1])});
  }
  FASTRNN_FN static void leave(Sums& sums, const Lane& lane, float* out, int stride) {
    leave_fragment(sums.v, lane, out, stride);
  }
};

// Operands rounded to bfloat16, sums in float.
struct Bf16 {
  static constexpr bool kInRegisters = true, kSplits = false;
  using Weights = Words<4>;
  using Operand = Weights;
  static constexpr int kBytes = Weights::kBytes;
  using Word = unsigned short;
  using Values = Loaded<Word>;
  using Sums = Tf32::Sums;

  FASTRNN_FN static Weights pack(const float (&w)[2][4]) {
    return {{to_bf16(w[0][0], w[0][1]), to_bf16(w[1][0], w[1][1]), to_bf16(w[0][2], w[0][3]),
             to_bf16(w[1][2], w[1][3])}};
  }
  FASTRNN_FN static void store(void* memory, const Lane& lane, const float (&w)[2][4]) {
    pack(w).store(memory, lane);
  }
  FASTRNN_FN static Weights load(const void* memory, const Lane& lane) {
    return Weights::load(memory, lane);
  }
  FASTRNN_FN static Operand operand(const Weights& w) { return w; }
  FASTRNN_FN static Word word(float x) { return static_cast<Word>(to_bf16(x, 0)); }
  FASTRNN_FN static Values values(const Loaded<Word>& x) { return x; }
  FASTRNN_FN static void multiply(Sums& sums, const Operand& w, const Values& x) {
    mma_bf16(sums.v, w.v, x.v);
  }
  FASTRNN_FN static void leave(Sums& sums, const Lane& lane, float* out, int stride) {
    leave_fragment(sums.v, lane, out, stride);
  }
};

// Sums as exact as those of fused multiply-adds: an operand is the sum of two of TF32, and of the four
// products the three large ones are computed; one product alone is within 12 x 2^-24 of itself. Tensor cores cut what they add up, so the large product starts
// from zero each time and is added by the ordinary, rounding addition (Ootomo and Yokota 2022).
struct ThreeTf32 {
  static constexpr bool kInRegisters = true, kSplits = true;
  using Weights = Words<8>;  // whole: they take half the room
  static constexpr int kBytes = Weights::kBytes;
  struct Operand {
    unsigned large[2][4], small[2][4];
  };
  using Word = float;
  struct Values {
    unsigned large[2][2], small[2][2];
  };
  struct Sums {
    float v[4] = {}, small[4] = {};

    FASTRNN_FN void add(const Sums& other) {
      FASTRNN_UNROLL
      for (int i = 0; i < 4; ++i) v[i] += other.v[i], small[i] += other.small[i];
    }
  };

  FASTRNN_FN static void split(float a, unsigned& large, unsigned& small) {
    large = to_near_tf32(a);
    small = to_near_tf32(a - float_of(large));
  }
  FASTRNN_FN static Weights pack(const float (&w)[2][4]) {
    Weights words;
    FASTRNN_UNROLL
    for (int i = 0; i < 8; ++i) words.v[i] = bits_of(w[i % 2][i / 2]);
    return words;
  }
  FASTRNN_FN static void store(void* memory, const Lane& lane, const float (&w)[2][4]) {
    pack(w).store(memory, lane);
  }
  FASTRNN_FN static Weights load(const void* memory, const Lane& lane) {
    return Weights::load(memory, lane);
  }
  FASTRNN_FN static Operand operand(const Weights& w) {
    Operand parts;
    FASTRNN_UNROLL
    for (int i = 0; i < 8; ++i)
      split(float_of(w.v[i]), parts.large[i / 4][i % 4], parts.small[i / 4][i % 4]);
    return parts;
  }
  FASTRNN_FN static Word word(float x) { return x; }
  FASTRNN_FN static Values values(const Loaded<Word>& x) {
    Values parts;
    FASTRNN_UNROLL
    for (int i = 0; i < 4; ++i) split(x.v[i], parts.large[i / 2][i % 2], parts.small[i / 2][i % 2]);
    return parts;
  }
  FASTRNN_FN static void multiply(Sums& sums, const Operand& w, const Values& x) {
    FASTRNN_UNROLL
    for (int j = 0; j < 2; ++j) {
      float product[4] = {};
      mma_tf32(sums.small, w.small[j], x.large[j]);
      mma_tf32(sums.small, w.large[j], x.small[j]);
      mma_tf32(product, w.large[j], x.large[j]);
      FASTRNN_UNROLL
      for (int i = 0; i < 4; ++i) sums.v[i] += product[i];
    }
  }
  FASTRNN_FN static void leave(Sums& sums, const Lane& lane, float* out, int stride) {
    FASTRNN_UNROLL
    for (int i = 0; i < 4; ++i) sums.v[i] += sums.small[i];
    leave_fragment(sums.v, lane, out, stride);
  }
};
