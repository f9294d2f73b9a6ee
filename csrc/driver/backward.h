// Backpropagation through time (Werbos 1990) over a pass: knows time, batch and threads, but no cell
// and no vector.
//
// Steps run against forward's order, in chunks. In a chunk the time loop leaves the gradients of the
// pre-activations, a row (dgates) for every row of every step; then come the large products: weight
// gradients, which sum over those rows in the order in which they were made, and dx.
//
// Sums over all rows of a long sequence would lose what a float cannot hold beside them, so they have three
// levels: a chain over the rows of a chunk; a sum of chunks; and from kSettledRows rows on, a sum of such
// sums together with what its roundings left (docs/accuracy.md). A chunk that a span ends in goes on in
// the next one, so that spans change no bit.
#pragma once

#include "driver/schedule.h"
#include "driver/weights.h"
#include "driver/workspace.h"
#include "runtime/interrupt.h"
#include "runtime/threads.h"

namespace fastrnn {

template <class Real>
class BackwardPass {
 public:
  using Call = BackwardCall<Real>;

  // Lays out the buffers in `work`; with no memory it only measures.
  BackwardPass(const Kernels<Real>&, const CellKernels<Real>&, const Call&, const Partition&,
               void* work);

  Index work_size() const { return work_size_; }
  void run(const ThreadTeam& lease);

 private:
  struct Thread {
    explicit Thread(const Place& at) : place(at) {}

    Place place;
    Share units{0, 0}, h_units{0, 0};  // its own of H and P, in the time loop
    BackwardStep<Real> step = {};
    const Real** in = nullptr;  // rows of a product
    Real** out = nullptr;
    Products<Real> products = {};
    TileBuffer<Real>* buffer = nullptr;
    std::optional<StepMatmul<Real>> recurrent, reset, project;
    // By row of the chunk; every thread knows them all, and waits for no other.
    const Real **x = nullptr, **h_prev = nullptr, **c_prev = nullptr, **c = nullptr;
    Real **dgates = nullptr, **dx = nullptr;  // of its own rows
    Index own = 0;                            // of which there are so many
  };

  // What the sums over a chunk's rows are taken with.
  struct Chunk {
    Panels panels;
    Real* packed;  // [panel][row][vector][lane]
    Half* split;   // the same in bfloat16 terms
  };

  // One of the products of the same columns of dgates.
  struct Outer {
    const Chunk& chunk;
    Real *total, *open;
  };

  // How a sum over rows begins and ends.
  struct Ends {
    bool resumes;  // from what is open
    bool closes;   // else it stays open
    bool adds;     // closing, to the chunks before

    const Real* from(const Real* open) const { return resumes ? open : nullptr; }
    Real* into(Real* total, Real* open) const { return closes ? total : open; }
  };

  // Numbers of a parameter that is there.
  using Member = Real* Weights<Real>::*;
  struct Parameter {
    Member member;
    Index size;
  };
  static constexpr int kParameters = 6;

  Chunk take_chunk(Arena& arena, Index N, Index rows) const;
  Index scratch_size(Index own, Index chunk, Index in_sum) const;
  Share own_units(const Place& place, Index N) const;
  Index time(Index s) const { return call_.rows.reverse ? s : z_.T - 1 - s; }
  void wait(const Thread& me) {  // for those that share rows
    if (me.place.ranks > 1) step_barrier_.wait();
  }
  void wait_for_all() {
    if (partition_.threads > 1) barrier_.wait();
  }

  static void enter(void* self, int rank);
  void run(Thread& me);
  void step(Thread& me, Index t, Index first);
  void list_rows(Thread& me, Index t, Index first, Index count) const;
  void list_own_rows(Thread& me, Index t, Index first, Index rows) const;
  void project(Thread& me, Index rows, bool below_min_rows);
  void reset(const Thread& me, Index t, Index rows) const;
  void pack_share(const Share& share, Index rows, const Chunk& out,
                  const RowsAt<const Real>& from) const;
  void pack_chunk(const Thread& me, const Share& rows) const;
  void pack_extra(const Thread& me, const Share& rows) const;
  void input_gradients(const Thread& me) const;
  void list_parameters(const Weights<Real>& grads, Parameter (&all)[kParameters]) const;
  Weights<Real> in_vector(const Weights<Real>& grads, Real* at) const;
  void weight_gradients(const Thread& me, const Share& rows, Sums<Real>& sums, bool closes) const;
  template <int n>
  void outer(const Thread& me, const Share& rows, Index from, Index M, const Ends& ends,
             const Outer (&products)[n]) const;
  void settle(const Thread& me, Sums<Real>& sums, bool last) const;
  void prepare(Thread& me) const;

  const Kernels<Real>& kernels_;
  const CellKernels<Real>& cell_;
  const CellTraits& traits_;
  Call call_;
  Sizes z_;
  Partition partition_;
  BackwardWeights<Real> weights_;
  Barrier barrier_, step_barrier_;
  Interrupt interrupt_;
  Index chunk_;       // rows, if a step has no more
  Index extra_, ld_;  // a row of dgates: where what follows the blocks begins; its length
  Real *zero_, *dgates_;
  Real* d_out_;  // (B, H) gradient of the cell's output, before a projection
  Chunk right_x_, right_h_, right_extra_;
  Thread* threads_;
  Index work_size_;
};

}  // namespace fastrnn
