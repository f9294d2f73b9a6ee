// The contract of an instruction set: what the bindings hand over and the functions they call.
//
// One call is one *pass*: one layer in one direction over a span of time.
// Letters: T time steps, B batch, I input size, H hidden size, P projection size (H without one),
// G gates, S values saved a unit. Everything is trusted here; Python has checked it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastrnn {

using Index = std::ptrdiff_t;

struct Sizes {
  Index T, B, I, H, P;
  bool projected;  // h = W_hr m, with m (H,) the cell's output
};

// Rows of a (T, B, n) array of any strides in time and batch; the last axis is contiguous.
template <class Real>
struct Sequence {
  Real* data;
  Index stride_t, stride_b;  // in elements

  Real* at(Index t, Index b) const { return data + t * stride_t + b * stride_b; }
  explicit operator bool() const { return data != nullptr; }
};

// Which rows run at which step.
struct Rows {
  const std::int64_t* order;   // (B,) rows by falling length, or null: 0 .. B-1
  const std::int64_t* counts;  // (T,) order[:counts[t]] run at time t, or null: all
  const std::uint8_t* cut;     // (T, B) nonzero: this row's step starts from zero state, or null
  bool reverse;                // t = T-1 .. 0

  Index row(Index m) const { return order ? order[m] : m; }
  Index count(Index t, Index B) const { return counts ? counts[t] : B; }
};

// The parameters as Python holds them; null where absent.
template <class Real>
struct Weights {
  Real* ih;        // (G*H, I)
  Real* hh;        // (G*H, P)
  Real* b_ih;      // (G*H,)
  Real* b_hh;      // (G*H,)
  Real* hr;        // (P, H)
  Real* peephole;  // (3*H,)
};

// bfloat16: the upper half of a float
using Half = std::uint16_t;

// Whether and how a product multiplies floats as sums of bfloat16.
struct Halves {
  int parts;    // of a float, 1 .. 3; 0: floats are multiplied as they are
  bool dots;    // by dot products of vectors, which take one part; else by the tile unit
  Index least;  // rows of a step; one of fewer, as ragged rows have, multiplies floats as they are

  bool tiles() const { return parts > 0 && !dots; }
};

// The same for the products of a step's rows, and for those that take the rows of many steps at once:
// the input's, and the sums that are the weights' gradients.
struct Ways {
  Halves step, chunk;
};

// Weights in parts of bfloat16.
struct SplitWeights {
  const Half* data;
  Ways how;
};

// How weights lie in memory: packed, the narrow ones only of floats and only forward; or as Python
// holds them, for a forward call of one step, which reads them once.
enum class WeightType { real, bfloat16, int8, unpacked };

// Who may want a call to end before its time. Asked now and then, by the thread that made the call.
class Listener {
 public:
  virtual bool interrupted() = 0;  // the call then ends soon, and leaves its results unset

 protected:
  ~Listener() = default;
};

template <class Real>
struct ForwardCall {
  Sizes sizes;
  Rows rows;
  int threads;
  WeightType type;
  const Real* packed;              // pack(sizes, weights, forward), or what narrow() made of it
  Weights<const Real> parameters;  // unpacked: T is 1 and `packed` null
  SplitWeights split;              // split(sizes, forward, packed)
  Sequence<const Real> x;          // (T, B, I)
  const Real* h0;                  // (B, P)
  const Real* c0;                  // (B, H) LSTM
  Real* hn;                        // (B, P) out; may be h0
  Real* cn;                        // (B, H) out; may be c0
  Sequence<Real> y;                // (T, B, P) out; rows that do not run are left alone
  // What is kept for backward, or null. Of gates and c rows that do not run are left alone, too.
  Real* kept_y;        // (T, B, P) out: the same as y
  Real* gates;         // (T, B, S*H) out
  Real* c;             // (T, B, H) out: LSTM
  void* work;          // forward_work(...) bytes
  Listener* listener;  // or null
  bool down;  // the first step goes through the weights from their end, the next one from their
              // beginning, and so on: what was used last may still be in a cache
};

// Sums over rows are settled, once there are so many (backward.h).
constexpr Index kSettledRows = 16384;

// The parameters' gradients: sums over the rows of one call, or of several where these are the spans of
// a sequence. `open` and `settled` hold all parameters that are there, one behind the other.
template <class Real>
struct Sums {
  Weights<Real> grads;   // out: set
  Real* open;            // a chunk that a span has begun; null: of one call
  Real *settled, *left;  // null: fewer than kSettledRows rows come together
  Index open_rows = 0;   // in `open`
  Index rows = 0;        // in `grads`
  bool any_settled = false;
  bool last = true;  // no span is to come
};

template <class Real>
struct BackwardCall {
  Sizes sizes;
  Rows rows;
  int threads;
  const Real* packed;       // pack(sizes, weights, backward)
  SplitWeights split;       // split(sizes, backward, packed)
  Sequence<const Real> x;   // as in forward
  const Real* h0;           // as in forward
  const Real* c0;           // as in forward
  Sequence<const Real> y;   // forward's y
  const Real* gates;        // forward's
  const Real* c;            // forward's
  Sequence<const Real> dy;  // (T, B, P) or null
  Real* dh;                 // (B, P) in: gradient of hn; out: gradient of h0
  Real* dc;                 // (B, H) the same for c, LSTM
  Sequence<Real> dx;        // (T, B, I) out; rows that do not run are left alone
  Sums<Real>* sums;         // of the parameters
  void* work;               // backward_work(...) bytes
  Listener* listener;       // or null
};

enum class Phase { forward, backward };

// How a call would be run.
struct HowRun {
  int threads;
  bool by_rows;  // each thread has rows of its own; else they share the panels of every product
  int lanes;     // numbers in a vector
  int tile_rows, tile_vectors;  // the register tile of the recurrent product
};

template <class Real>
struct CellKernels {
  const char* name;
  int gates, saved;
  bool has_c;
  Index (*packed_size)(const Sizes&, Phase);  // in elements
  void (*pack)(const Sizes&, const Weights<const Real>&, Phase, int threads, Real* out);
  Index (*split_size)(const Sizes&, Phase, const Ways&);  // in Half; 0: there are none
  void (*split)(const Sizes&, Phase, const Ways&, int threads, const Real* packed, Half* out);
  Index (*narrow_size)(const Sizes&, WeightType);  // in bytes; 0: there are none
  void (*narrow)(const Sizes&, WeightType, const Real* packed, void* out);
  HowRun (*how_run)(const Sizes&, int threads, Halves step);
  Index (*forward_work)(const ForwardCall<Real>&);  // in bytes
  void (*forward)(const ForwardCall<Real>&);
  Index (*backward_work)(const BackwardCall<Real>&);
  void (*backward)(const BackwardCall<Real>&);
};

constexpr int kCells = 6;

template <class Real>
struct Kernels {
  CellKernels<Real> cells[kCells];
  void (*sigmoid)(const Real* x, Real* y, Index n);  // for the accuracy tests
  void (*tanh)(const Real* x, Real* y, Index n);
  double (*fma_loop)(Index rounds, Real* out);  // for the benchmarks: ceilings.h
  Real (*read_sum)(const Real* x, Index n, Index repeats);
};

struct KernelTable {
  const char* isa;
  bool dots, tile_unit;  // what multiplies bfloat16 here: such `Halves` are allowed
  Kernels<float> f32;
  Kernels<double> f64;

  template <class Real>
  const Kernels<Real>& of() const {
    if constexpr (sizeof(Real) == sizeof(float))
      return f32;
    else
      return f64;
  }
};

}  // namespace fastrnn
