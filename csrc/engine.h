// The engine, compiled once for each instruction set: included by csrc/isa_*.cpp inside the target
// region and an anonymous namespace, after that instruction set's Vec. Nothing of it may be shared
// by the linker, or an AVX-512 copy could end up on the scalar path.

#include "activations.h"
#include "cells/unit.h"
#include "cells/all.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "workspace.h"
#include "plan.h"
#include "panels.h"
#include "tile.h"
#include "stages.h"
#include "forward.h"
#include "backward.h"
#include "ceilings.h"

template <class V, class Cell>
struct Entry {
  using Real = typename V::Real;

  static Index packed_size(const Sizes& z, Phase phase) {
    return phase == Phase::forward ? ForwardWeights<V, Cell>(z).size
                                   : BackwardWeights<V, Cell>(z).size;
  }
  static void pack(const Sizes& z, const Weights<const Real>& w, Phase phase, Real* out) {
    if (phase == Phase::forward)
      ForwardWeights<V, Cell>::pack(z, w, out);
    else
      BackwardWeights<V, Cell>::pack(z, w, out);
  }

  // The memory for `threads` threads, and for one, which a call gets when the pool is busy.
  template <class Pass, class Call>
  static Index work(const Call& call) {
    const Plan many(call.sizes, Cell::kGates, call.threads), one(call.sizes, Cell::kGates, 1);
    return larger(Pass(call, many, nullptr).work_size(), Pass(call, one, nullptr).work_size());
  }
  template <class Pass, class Call>
  static void run(const Call& call) {
    const Lease lease(Plan(call.sizes, Cell::kGates, call.threads).threads);
    const Plan plan(call.sizes, Cell::kGates, lease.size());
    Pass(call, plan, call.work).run(lease);
  }

  static constexpr CellKernels<Real> kernels(const char* name) {
    using Forward = ForwardPass<V, Cell>;
    using Backward = BackwardPass<V, Cell>;
    return {name,
            Cell::kGates,
            Cell::kSaved,
            Cell::kHasC,
            packed_size,
            pack,
            work<Forward, ForwardCall<Real>>,
            run<Forward, ForwardCall<Real>>,
            work<Backward, BackwardCall<Real>>,
            run<Backward, BackwardCall<Real>>};
  }
};

template <class V>
void sigmoid_of(const typename V::Real* x, typename V::Real* y, Index n) {
  for (Index i = 0; i < n; i += V::kLanes) sigmoid(V::load(x + i, n - i)).store(y + i, n - i);
}

template <class V>
void tanh_of(const typename V::Real* x, typename V::Real* y, Index n) {
  for (Index i = 0; i < n; i += V::kLanes) tanh(V::load(x + i, n - i)).store(y + i, n - i);
}

template <class V>
constexpr Kernels<typename V::Real> make_kernels() {
#define FASTRNN_ENTRY(name, type) Entry<V, type>::kernels(#name),
  return {{FASTRNN_CELLS(FASTRNN_ENTRY)}, sigmoid_of<V>, tanh_of<V>, fma_loop<V>, read_sum<V>};
#undef FASTRNN_ENTRY
}

constexpr KernelTable make_table() {
  return {Vec<float>::kIsa, make_kernels<Vec<float>>(), make_kernels<Vec<double>>()};
}
