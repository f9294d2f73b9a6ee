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
#include "index.h"
#include "plan.h"
#include "panels.h"
#include "tile.h"
#include "stages.h"
#include "amx/layout.h"
#ifdef FASTRNN_TILE_UNIT
FASTRNN_REGION(FASTRNN_TILE_UNIT)
#include "amx/tiles.h"
#include "amx/parts.h"
#include "amx/product.h"
FASTRNN_REGION_END
template <class V>
constexpr bool kTiles = std::is_same_v<V, Vec<float>>;
#else
template <class V>
constexpr bool kTiles = false;
#endif
#ifdef FASTRNN_DOTS
template <class V>
constexpr bool kDots = std::is_same_v<V, Vec<float>>;
#else
template <class V>
constexpr bool kDots = false;
#endif
#include "dots.h"
#include "narrow.h"
#include "weights.h"
#include "forward.h"
#include "backward.h"
#include "ceilings.h"

template <class V, class Cell>
struct Entry {
  using Real = typename V::Real;

  static Index packed_size(const Sizes& z, Phase phase) {
    return phase == Phase::forward ? ForwardWeights<V, Cell>(z, {}).layout.size
                                   : BackwardWeights<V, Cell>(z, {}).layout.size;
  }
  static Index split_size(const Sizes& z, Phase phase, const Ways& how) {
    return phase == Phase::forward ? ForwardWeights<V, Cell>(z, how).layout.split_size
                                   : BackwardWeights<V, Cell>(z, how).layout.split_size;
  }

  // Runs task(rank, ranks) on up to `threads` threads.
  template <class Task>
  static void share_out(int threads, Index size, const Task& task) {
    struct Job {
      const Task& task;
      int ranks;
      static void enter(void* self, int rank) {
        const Job& job = *static_cast<Job*>(self);
        job.task(rank, job.ranks);
      }
    };
    // below some ten thousand numbers, waking a thread takes longer than packing
    const Lease lease(size < 30000 ? 1 : threads, static_cast<double>(size) / 2000);
    Job job{task, lease.size()};
    lease.run(lease.size(), Job::enter, &job);
  }

  template <class PhaseWeights>
  struct Packing {
    const PhaseWeights& at;
    const Weights<const Real>& weights;
    Real* out;
    void operator()(int rank, int ranks) const { at.pack(weights, rank, ranks, out); }
  };
  template <class PhaseWeights>
  static void pack_as(const PhaseWeights& at, const Weights<const Real>& w, int threads,
                      Real* out) {
    share_out(threads, at.layout.size, Packing<PhaseWeights>{at, w, out});
  }
  static void pack(const Sizes& z, const Weights<const Real>& w, Phase phase, int threads,
                   Real* out) {
    if (phase == Phase::forward)
      pack_as(ForwardWeights<V, Cell>(z, {}), w, threads, out);
    else
      pack_as(BackwardWeights<V, Cell>(z, {}), w, threads, out);
  }

  template <class PhaseWeights>
  struct Splitting {
    const PhaseWeights& at;
    const Real* packed;
    Half* out;
    void operator()(int rank, int ranks) const { at.each(One{*this, rank, ranks}); }

    struct One {
      const Splitting& all;
      int rank, ranks;
      void operator()(const Matrix<V>& m) const {
        if (m.present)
          split_panels(m.panels, all.packed + m.at, m.K, m.how,
                       Share(m.panels.count(), rank, ranks), all.out + m.at_split);
      }
    };
  };
  template <class PhaseWeights>
  static void split_as(const PhaseWeights& at, int threads, const Real* packed, Half* out) {
    share_out(threads, at.layout.size, Splitting<PhaseWeights>{at, packed, out});
  }
  static void split(const Sizes& z, Phase phase, const Ways& how, int threads, const Real* packed,
                    Half* out) {
    if (phase == Phase::forward)
      split_as(ForwardWeights<V, Cell>(z, how), threads, packed, out);
    else
      split_as(BackwardWeights<V, Cell>(z, how), threads, packed, out);
  }

  static Index narrow_size(const Sizes& z, WeightType type) {
    return kNarrows<V> ? ForwardWeights<V, Cell>(z, {}, type).layout.narrow_size : 0;
  }

  struct Narrowing {
    WeightType type;
    const Real* packed;
    char* out;
    void operator()(const Matrix<V>& m) const {
      if (m.present) narrow_panels(m.panels, m.K, type, packed + m.at, out + m.at_narrow);
    }
  };
  static void narrow(const Sizes& z, WeightType type, const Real* packed, void* out) {
    if constexpr (kNarrows<V>) {
      const ForwardWeights<V, Cell> at(z, {}, type);
      for (Index i = 0; i < at.input.at; ++i) static_cast<Real*>(out)[i] = packed[i];
      at.each(Narrowing{type, packed, static_cast<char*>(out)});
    }
  }

  // The least rows that make it best for threads to share them. Half-empty blocks of the tile unit are
  // worth it where each thread can keep all of the recurrent weights in its L2 cache.
  static Index least_rows(const Sizes& z, Halves step) {
    if (!step.tiles()) return 4;
    const Index bytes = Cell::kGates * z.H * z.P * step.parts * static_cast<Index>(sizeof(Half));
    return bytes <= 1 << 20 ? kTileRows / 2 : kTileRows;
  }
  static Plan plan(const Sizes& z, int threads, Halves step, double meeting) {
    return Plan(z, Cell::kGates, threads, least_rows(z, step), meeting);
  }
  template <class Call>
  static Plan plan(const Call& call, int threads, double meeting = 0) {
    return plan(call.sizes, threads, call.split.how.step, meeting);
  }
  static HowRun how_run(const Sizes& z, int threads, Halves step) {
    constexpr int first = ForwardWeights<V, Cell>::kFirst;
    constexpr int vectors = Panels<V>::units(first) * first;
    const Plan how = plan(z, threads, step, meeting());
    return {how.threads, how.by_rows, V::kLanes, V::tile_rows(vectors), vectors};
  }

  // The memory for all threads that a call asks for, and for as few as may come: where some are missing
  // it is half of them that run, a quarter, down to one, so that few sizes must be known beforehand. What
  // a meeting costs does not matter: where it is too much, one runs.
  template <class Pass, class Call>
  static Index work(const Call& call) {
    Index most = 0;
    for (int n = call.threads; n > 0; n /= 2)
      most = larger(most, Pass(call, plan(call, n), nullptr).work_size());
    return most;
  }
  template <class Pass, class Call>
  static void run(const Call& call) {
    const Plan wanted = plan(call, call.threads, meeting_or_trial());
    const Lease lease(wanted.threads, wanted.microseconds);
    int n = wanted.threads;
    while (n > lease.size()) n /= 2;
    Pass(call, plan(call, n, meeting()), call.work).run(lease);
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
            split_size,
            split,
            narrow_size,
            narrow,
            how_run,
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

constexpr KernelTable make_table(const char* isa, bool dots = false, bool tile_unit = false) {
  return {isa, dots, tile_unit, make_kernels<Vec<float>>(), make_kernels<Vec<double>>()};
}
