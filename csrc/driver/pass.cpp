#include "driver/pass.h"

#include "driver/backward.h"
#include "driver/forward.h"
#include "driver/quantize.h"
#include "driver/share_out.h"

namespace fastrnn {
namespace {

// The least rows that make it best for threads to share them. Half-empty blocks of the tile unit are
// worth it where each thread can keep all of the recurrent weights in its L2 cache.
Index least_rows(const CellTraits& cell, const Sizes& z, MatmulAlgorithm recurrent) {
  if (!recurrent.tiles()) return 4;
  const Index bytes = cell.gates * z.H * z.P * recurrent.terms * static_cast<Index>(sizeof(Half));
  return bytes <= 1 << 20 ? kTileRows / 2 : kTileRows;
}

Partition partition(const CellTraits& cell, const Sizes& z, int threads, MatmulAlgorithm recurrent,
                    double barrier_latency = 0) {
  return {z, cell.gates, threads, least_rows(cell, z, recurrent), barrier_latency};
}

// The memory for all threads that a call asks for, and for as few as may come: where some are missing
// it is half of them that run, a quarter, down to one, so that few sizes must be known beforehand. What
// a barrier costs does not matter: where it is too much, one runs.
template <class Direction, class Real>
Index work(const Kernels<Real>& kernels, const CellKernels<Real>& cell,
           const typename Direction::Call& call) {
  Index most = 0;
  for (int n = call.threads; n > 0; n /= 2) {
    const Partition each = partition(cell.traits, call.sizes, n, call.split.how.recurrent);
    most = larger(most, Direction(kernels, cell, call, each, nullptr).work_size());
  }
  return most;
}

// How many threads a call wants.
template <class Call>
Partition wanted(const CellTraits& cell, const Call& call) {
  return partition(cell, call.sizes, call.threads, call.split.how.recurrent,
                   barrier_latency_or_trial());
}

// Runs it on as many as come.
template <class Direction, class Real>
void run(const Kernels<Real>& kernels, const CellKernels<Real>& cell,
         const typename Direction::Call& call, const Partition& wanted) {
  const ThreadTeam lease(wanted.threads, wanted.microseconds);
  if (wanted.threads == 1) return Direction(kernels, cell, call, wanted, call.work).run(lease);
  int n = wanted.threads;
  while (n > lease.size()) n /= 2;
  const Partition had =
      partition(cell.traits, call.sizes, n, call.split.how.recurrent, barrier_latency());
  Direction(kernels, cell, call, had, call.work).run(lease);
}

}  // namespace

template <class Real>
BoundForward<Real>::BoundForward(const Kernels<Real>& kernels, const CellKernels<Real>& cell,
                                 const ForwardCall<Real>& call)
    : kernels_(kernels), cell_(cell), call_(call) {}

template <class Real>
BoundForward<Real>::BoundForward(BoundForward&&) noexcept = default;

template <class Real>
BoundForward<Real>::~BoundForward() = default;

template <class Real>
void BoundForward<Real>::run() {
  call_.reverse_panels = !call_.reverse_panels;
  if (!alone_ || call_.threads > 1) {
    const Partition how = wanted(cell_.traits, call_);
    if (how.threads > 1) {
      alone_.reset();
      return fastrnn::run<ForwardPass<Real>>(kernels_, cell_, call_, how);
    }
    if (!alone_)
      alone_ = std::make_unique<ForwardPass<Real>>(kernels_, cell_, call_, how, call_.work);
  }
  alone_->set_reverse_panels(call_.reverse_panels);
  alone_->run(ThreadTeam(1, 0));
}

template <class Real>
Index Pass<Real>::packed_size(const Sizes& z, Phase phase) const {
  return phase == Phase::forward ? ForwardWeights<Real>(cell_.traits, kernels_, z, {}).layout.size
                                 : BackwardWeights<Real>(cell_.traits, kernels_, z, {}).layout.size;
}

template <class Real>
void Pass<Real>::pack(const Sizes& z, const Weights<const Real>& w, Phase phase, int threads,
                      Real* out) const {
  const auto pack_as = [&](const auto& at) {
    share_out(threads, static_cast<double>(at.layout.size) / 2000,
              [&](int rank, int ranks) { at.pack(kernels_, w, rank, ranks, out); });
  };
  if (phase == Phase::forward)
    pack_as(ForwardWeights<Real>(cell_.traits, kernels_, z, {}));
  else
    pack_as(BackwardWeights<Real>(cell_.traits, kernels_, z, {}));
}

template <class Real>
Index Pass<Real>::split_size(const Sizes& z, Phase phase, const Algorithms& how) const {
  return phase == Phase::forward
             ? ForwardWeights<Real>(cell_.traits, kernels_, z, how).layout.split
             : BackwardWeights<Real>(cell_.traits, kernels_, z, how).layout.split;
}

template <class Real>
void Pass<Real>::split(const Sizes& z, Phase phase, const Algorithms& how, int threads,
                       const Real* packed, Half* out) const {
  const auto split_as = [&](const auto& at) {
    share_out(threads, static_cast<double>(at.layout.size) / 2000, [&](int rank, int ranks) {
      at.each([&](const Matrix<Real>& m) {
        split_panels(kernels_, m.panels, packed + m.at, m.K, m.how,
                     Share(m.panels.count, rank, ranks), out + m.at_split);
      });
    });
  };
  if (phase == Phase::forward)
    split_as(ForwardWeights<Real>(cell_.traits, kernels_, z, how));
  else
    split_as(BackwardWeights<Real>(cell_.traits, kernels_, z, how));
}

template <class Real>
Index Pass<Real>::quantized_size(const Sizes& z, WeightType type) const {
  if (!std::is_same_v<Real, float>) return 0;
  return ForwardWeights<Real>(cell_.traits, kernels_, z, {}, type).layout.quantized;
}

template <class Real>
void Pass<Real>::quantize(const Sizes& z, WeightType type, const Real* packed, void* out) const {
  if constexpr (std::is_same_v<Real, float>) {
    const ForwardWeights<float> at(cell_.traits, kernels_, z, {}, type);
    std::memcpy(out, packed, static_cast<std::size_t>(at.vectors_size()) * sizeof(float));
    at.each([&](const Matrix<float>& m) {
      quantize_panels(m.panels, m.K, type, packed + m.at, static_cast<char*>(out) + m.at_quantized);
    });
  }
}

template <class Real>
HowRun Pass<Real>::how_run(const Sizes& z, int threads, MatmulAlgorithm recurrent) const {
  const Panels panels(z.H, cell_.traits.first_gates(), kernels_.lanes, kernels_.half_panels);
  const int vectors = panels.together(panels.full());
  const Partition how = partition(cell_.traits, z, threads, recurrent, barrier_latency());
  return {how.threads, how.by_rows, kernels_.lanes, kernels_.rows.most_rows[vectors], vectors};
}

template <class Real>
Index Pass<Real>::forward_work(const ForwardCall<Real>& call) const {
  return work<ForwardPass<Real>>(kernels_, cell_, call);
}

template <class Real>
void Pass<Real>::forward(const ForwardCall<Real>& call) const {
  run<ForwardPass<Real>>(kernels_, cell_, call, wanted(cell_.traits, call));
}

template <class Real>
Index Pass<Real>::backward_work(const BackwardCall<Real>& call) const {
  return work<BackwardPass<Real>>(kernels_, cell_, call);
}

template <class Real>
void Pass<Real>::backward(const BackwardCall<Real>& call) const {
  run<BackwardPass<Real>>(kernels_, cell_, call, wanted(cell_.traits, call));
}

template class BoundForward<float>;
template class BoundForward<double>;
template class Pass<float>;
template class Pass<double>;

}  // namespace fastrnn
