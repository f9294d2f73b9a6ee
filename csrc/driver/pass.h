// One call of the engine: one *pass*, which is one layer in one direction over a span of time.
//
// What the bindings hand over, and what they call. Everything is trusted here; Python has checked it.
// Letters: T time steps, B batch, I input size, H hidden size, P projection size (H without one),
// G gates, S values saved a unit.
#pragma once

#include <memory>

#include "kernels/table.h"

namespace fastrnn {

struct Sizes {
  Index T, B, I, H, P;
  bool projected;  // h = W_hr m, with m (H,) the cell's output
};

// Rows of a (T, B, n) array of any strides in time and batch; the last axis is contiguous.
template <class Real>
struct Sequence {
  Real* data;
  Index stride_t, stride_b;  // in elements

  FASTRNN_FN Real* at(Index t, Index b) const { return data + t * stride_t + b * stride_b; }
  FASTRNN_FN explicit operator bool() const { return data != nullptr; }
};

// The row schedule: which rows run at which step.
struct RowSchedule {
  const std::int64_t* sorted_indices;  // (B,) rows by falling length, or null: 0 .. B-1
  const std::int64_t* batch_sizes;  // (T,) sorted_indices[:batch_sizes[t]] run at t, or null: all
  const std::uint8_t* reset_mask;   // (T, B) nonzero: this row's step starts from zeros, or null
  bool reverse;                     // t = T-1 .. 0

  // All rows run at all steps, in their order, and none starts anew.
  FASTRNN_FN bool plain() const { return !sorted_indices && !batch_sizes && !reset_mask; }
  FASTRNN_FN Index row(Index m) const { return sorted_indices ? sorted_indices[m] : m; }
  FASTRNN_FN Index batch_size(Index t, Index B) const { return batch_sizes ? batch_sizes[t] : B; }
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

// Whether and how a product multiplies floats as sums of bfloat16 terms.
struct MatmulAlgorithm {
  int terms = 0;      // of a float, 1 .. 3; 0: floats are multiplied as they are
  bool dots = false;  // by dot products of vectors, which take one term; else by the tile unit
  Index min_rows =
      0;  // of a step; one of fewer, as ragged rows have, multiplies floats as they are

  FASTRNN_FN bool tiles() const { return terms > 0 && !dots; }
};

// The same for the products of a step's rows, and for those of the rows of many steps at once: the
// input's, and the sums that are the weights' gradients.
struct Algorithms {
  MatmulAlgorithm recurrent, batched;
};

// Weights in bfloat16 terms.
struct SplitWeights {
  const Half* data;
  Algorithms how;
};

// How weights lie in memory: packed, the quantised ones only of floats and only forward; or as Python
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
  RowSchedule rows;
  int threads;
  WeightType type;
  CellOptions<Real> options;       // of a cell that has some
  const Real* packed;              // pack(sizes, weights, forward), or what quantize() made of it
  Weights<const Real> parameters;  // unpacked: T is 1 and `packed` null
  SplitWeights split;              // split(sizes, forward, packed)
  Sequence<const Real> x;          // (T, B, I)
  const Real* h0;                  // (B, P)
  const Real* c0;                  // (B, H) LSTM
  Real* hn;                        // (B, P) out; may be h0
  Real* cn;                        // (B, H) out; may be c0
  Sequence<Real> y;                // (T, B, P) out; rows that do not run are left alone
  // What is saved for backward, or null. Of gates and c rows that do not run are left alone, too.
  Real* saved_y;        // (T, B, P) out: the same as y
  Real* gates;          // (T, B, S*H) out
  Real* c;              // (T, B, H) out: LSTM
  void* work;           // forward_work(...) bytes
  Listener* listener;   // or null
  bool reverse_panels;  // the first step goes through the weights from their end, the next one from
                        // their beginning, and so on: what was used last may still be in a cache
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
  RowSchedule rows;
  int threads;
  CellOptions<Real> options;  // forward's
  const Real* packed;         // pack(sizes, weights, backward)
  SplitWeights split;         // split(sizes, backward, packed)
  Sequence<const Real> x;     // as in forward
  const Real* h0;             // as in forward
  const Real* c0;             // as in forward
  Sequence<const Real> y;     // forward's y
  const Real* gates;          // forward's
  const Real* c;              // forward's
  Sequence<const Real> dy;    // (T, B, P) or null
  Real* dh;                   // (B, P) in: gradient of hn; out: gradient of h0
  Real* dc;                   // (B, H) the same for c, LSTM
  Sequence<Real> dx;          // (T, B, I) out; rows that do not run are left alone
  Sums<Real>* sums;           // of the parameters
  void* work;                 // backward_work(...) bytes
  Listener* listener;         // or null
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
class ForwardPass;

// A forward call that is made again and again, of other numbers at the same places, each time through
// the weights the other way.
template <class Real>
class BoundForward {
 public:
  BoundForward(const Kernels<Real>&, const CellKernels<Real>&, const ForwardCall<Real>&);
  BoundForward(BoundForward&&) noexcept;
  ~BoundForward();

  void run();

 private:
  const Kernels<Real>& kernels_;
  const CellKernels<Real>& cell_;
  ForwardCall<Real> call_;
  std::unique_ptr<ForwardPass<Real>>
      alone_;  // laid out for one thread, as long as none shares the work
};

// A cell on an instruction set.
template <class Real>
class Pass {
 public:
  Pass(const KernelTable& table, int cell)
      : kernels_(table.of<Real>()), cell_(table.of<Real>().cells[cell]) {}

  const CellTraits& traits() const { return cell_.traits; }

  Index packed_size(const Sizes&, Phase) const;  // in elements
  void pack(const Sizes&, const Weights<const Real>&, Phase, int threads, Real* out) const;
  Index split_size(const Sizes&, Phase, const Algorithms&) const;  // in Half; 0: there are none
  void split(const Sizes&, Phase, const Algorithms&, int threads, const Real* packed,
             Half* out) const;
  Index quantized_size(const Sizes&, WeightType) const;  // in bytes; 0: there are none
  void quantize(const Sizes&, WeightType, const Real* packed, void* out) const;
  HowRun how_run(const Sizes&, int threads, MatmulAlgorithm recurrent) const;
  Index forward_work(const ForwardCall<Real>&) const;  // in bytes
  void forward(const ForwardCall<Real>&) const;
  BoundForward<Real> bind(const ForwardCall<Real>& call) const { return {kernels_, cell_, call}; }
  Index backward_work(const BackwardCall<Real>&) const;
  void backward(const BackwardCall<Real>&) const;

 private:
  const Kernels<Real>& kernels_;
  const CellKernels<Real>& cell_;
};

extern template class BoundForward<float>;
extern template class BoundForward<double>;
extern template class Pass<float>;
extern template class Pass<double>;

}  // namespace fastrnn
