// Forward over a pass: knows time, batch and threads, but no cell and no vector.
#pragma once

#include "driver/schedule.h"
#include "driver/weights.h"
#include "runtime/interrupt.h"
#include "runtime/threads.h"

namespace fastrnn {

template <class Real>
class ForwardPass {
 public:
  using Call = ForwardCall<Real>;

  // Lays out the buffers in `work`, once for any number of runs; with no memory it only measures.
  ForwardPass(const Kernels<Real>&, const CellKernels<Real>&, const Call&, const Partition&,
              void* work);

  Index work_size() const { return work_size_; }
  void run(const ThreadTeam& lease);
  void set_reverse_panels(bool reverse) { call_.reverse_panels = reverse; }  // of the next run

 private:
  struct Thread {
    explicit Thread(const Place& at) : place(at) {}

    Place place;
    const Real** x;  // rows of a chunk
    Real* gates;     // projected input of a chunk
    ForwardStep<Real> step;
    Products<Real> products;
    TileBuffer<Real>* buffer;
    std::optional<StepMatmul<Real>> recurrent, reset, project;
  };

  bool fuses_input() const;
  bool unpacked() const { return call_.type == WeightType::unpacked; }
  // The parameters that are no matrix, as `pack_vectors` leaves them.
  const Real* vectors() const { return unpacked() ? vectors_ : call_.packed; }
  Index scratch_size(Index rows) const;
  Index wide_size() const;
  Index time(Index s) const { return call_.rows.reverse ? z_.T - 1 - s : s; }
  void wait(const Thread& me) {
    if (me.place.ranks > 1) barrier_.wait();
  }

  static void enter(void* self, int rank);
  void run(Thread& me);
  Index list_inputs(Thread& me, Index s, Index* listed) const;
  void project_input(Thread& me, const Real* const* x, Index rows, bool below_min_rows);
  void step(Thread& me, Index t, const Real* const* x, Index rows, bool reverse);
  void list_rows(Thread& me, Index t, Index rows) const;
  void list_all_rows(Thread& me, Index t, Index rows) const;
  void prepare(Thread& me) const;
  Matmul<Real> from_gates(const Thread& me, const Matrix<Real>& matrix, const Real* const* rows,
                          Epilogue<Real> epilogue) const;
  void start_from_gates(const Thread& me, const Matrix<Real>& matrix, Matmul<Real>* of) const;
  void save_y(const Thread& me, Index begin, Index end) const;
  void final_state(const Place& own) const;

  const Kernels<Real>& kernels_;
  const CellKernels<Real>& cell_;
  const CellTraits& traits_;
  Call call_;
  Sizes z_;
  Partition partition_;
  ForwardWeights<Real> weights_;
  bool fuses_input_;
  Barrier barrier_;
  Interrupt interrupt_;
  Real* zero_;
  Real* vectors_;  // unpacked: the parameters that are no matrix
  Real* out_;      // (B, H) the cell's output, before a projection
  Real* reset_;    // (B, H) r * h
  Thread* threads_;
  Index work_size_;
};

}  // namespace fastrnn
