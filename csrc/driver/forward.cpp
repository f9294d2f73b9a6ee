#include "driver/forward.h"

#include <cstring>
#include <new>

#include "driver/workspace.h"

namespace fastrnn {

namespace {

// Terms of both matrices that stay in the L2 cache, beside a step's rows.
constexpr Index kFusedBytes = 1 << 19;

template <class Real>
void copy(const Real* from, Index n, Real* to) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(Real));
}

}  // namespace

template <class Real>
ForwardPass<Real>::ForwardPass(const Kernels<Real>& kernels, const CellKernels<Real>& cell,
                               const Call& call, const Partition& partition, void* work)
    : kernels_(kernels),
      cell_(cell),
      traits_(cell.traits),
      call_(call),
      z_(call.sizes),
      partition_(partition),
      weights_(cell.traits, kernels, call.sizes, call.split.how, call.type),
      fuses_input_(fuses_input()),
      barrier_(partition.threads),
      interrupt_(call.listener, partition.step(call.sizes.T)) {
  Arena arena(work);
  const Index G = traits_.gates;
  zero_ = arena.take<Real>(larger(z_.H, z_.P));
  vectors_ = unpacked() ? arena.take<Real>(weights_.vectors_size()) : nullptr;
  out_ = arena.take<Real>(z_.projected ? z_.B * z_.H : 0);
  reset_ = arena.take<Real>(traits_.reset_before ? z_.B * z_.H : 0);
  threads_ = arena.take<Thread>(partition_.threads);
  Real* gates =
      partition_.by_rows ? nullptr : arena.take<Real>(chunk_rows(z_.T, z_.B) * G * weights_.padded);
  for (int i = 0; i < partition_.threads; ++i) {
    Thread measured(Place(z_, call_.rows, partition_, i));
    Thread& thread = threads_ ? *new (threads_ + i) Thread(measured.place) : measured;
    const Index rows = thread.place.size();
    thread.products = {&kernels_,
                       call_.packed,
                       call_.type,
                       call_.parameters,
                       call_.split.data,
                       arena.take<Half>(scratch_size(rows)),
                       arena.take<Real>(wide_size())};
    thread.buffer = arena.take<TileBuffer<Real>>(1);
    thread.x = arena.take<const Real*>(chunk_rows(z_.T, rows));
    ForwardStep<Real>& step = thread.step;
    step.h_prev = arena.take<const Real*>(rows);
    step.c_prev = arena.take<const Real*>(rows);
    step.c = arena.take<Real*>(rows);
    step.h = arena.take<Real*>(rows);
    step.saved = arena.take<Real*>(rows);
    step.reset_h = arena.take<Real*>(rows);
    step.peephole = nullptr;
    step.H = z_.H;
    step.padded = weights_.padded;
    step.save = call_.gates != nullptr;
    step.options = call_.options;
    thread.gates =
        partition_.by_rows ? arena.take<Real>(chunk_rows(z_.T, rows) * G * weights_.padded) : gates;
  }
  work_size_ = arena.size();
  if (!work) return;
  for (Index i = 0; i < larger(z_.H, z_.P); ++i) zero_[i] = 0;
  if (unpacked()) weights_.pack_vectors(call_.parameters, vectors_);
  for (int i = 0; i < partition_.threads; ++i) prepare(threads_[i]);
}

template <class Real>
void ForwardPass<Real>::run(const ThreadTeam& lease) {
  lease.run(partition_.threads, enter, this);
}

// Whether a step makes the input's product and the recurrent one as one, on the tile unit in one term:
// then no gates are written and read back, and sums leave the tiles once. The input's weights, too, are
// read at each step then, from the L2 cache; enough rows must share them.
template <class Real>
bool ForwardPass<Real>::fuses_input() const {
  if (traits_.linear_before_reset || traits_.reset_before) return false;
  const Algorithms& how = call_.split.how;
  return how.recurrent.tiles() && how.batched.tiles() && how.recurrent.terms == 1 &&
         how.batched.terms == 1 && z_.B >= 2 * kTileRows &&
         weights_.layout.split * static_cast<Index>(sizeof(Half)) <= kFusedBytes;
}

template <class Real>
Index ForwardPass<Real>::scratch_size(Index rows) const {
  using P = Products<Real>;
  if (fuses_input_) {
    const Index depth = tile_depth(z_.I) + tile_depth(z_.P);
    return larger(split_scratch(rows, depth * kTileDepth, 1),
                  P::scratch_size(weights_.project, rows));
  }
  return larger(larger(P::scratch_size(weights_.input, chunk_rows(z_.T, rows)),
                       P::scratch_size(weights_.recurrent, rows)),
                P::scratch_size(weights_.project, rows));
}

template <class Real>
Index ForwardPass<Real>::wide_size() const {
  using P = Products<Real>;
  if (call_.type == WeightType::real) return 0;
  return larger(larger(P::wide_size(weights_.input), P::wide_size(weights_.recurrent)),
                larger(P::wide_size(weights_.reset), P::wide_size(weights_.project)));
}

template <class Real>
void ForwardPass<Real>::enter(void* self, int rank) {
  auto* pass = static_cast<ForwardPass*>(self);
  pass->run(pass->threads_[rank]);
}

// The time loop.
template <class Real>
void ForwardPass<Real>::run(Thread& me) {
  if (traits_.has_c && !call_.gates && call_.c0 != call_.cn && me.place.rank == 0) {
    for (Index m = me.place.m0; m < me.place.m1; ++m) {
      const Index at = call_.rows.row(m) * z_.H;
      copy(call_.c0 + at, z_.H, call_.cn + at);
    }
  }
  for (Index s = 0; s < z_.T;) {
    Index in_chunk = 0;
    const Index begin = s, end = list_inputs(me, s, &in_chunk);
    if (!fuses_input_) project_input(me, me.x, in_chunk, false);
    const Real** x = me.x;
    me.step.gates = me.gates;
    for (; s < end; ++s) {
      const Index rows = me.place.active(call_.rows.batch_size(time(s), z_.B));
      if (me.place.index == 0) interrupt_.ask(s, !partition_.by_rows);
      step(me, time(s), x, rows, (s & 1) != call_.reverse_panels);
      if (interrupt_.ends(s)) return;
      x += rows;
      if (!fuses_input_) me.step.gates += rows * traits_.gates * weights_.padded;
    }
    if (call_.saved_y) save_y(me, begin, end);
  }
  if (me.place.rank == 0) final_state(me.place);
}

// Lists the input's rows of the steps from s on that make a chunk; returns the step after them.
template <class Real>
Index ForwardPass<Real>::list_inputs(Thread& me, Index s, Index* listed) const {
  Index rows = 0;
  for (; s < z_.T; ++s) {
    const Index t = time(s), n = me.place.active(call_.rows.batch_size(t, z_.B));
    if (rows > 0 && rows + n > kChunkRows) break;
    for (Index m = 0; m < n; ++m) me.x[rows + m] = call_.x.at(t, call_.rows.row(me.place.m0 + m));
    rows += n;
  }
  *listed = rows;
  return s;
}

// The input projection: gates(m)[g*padded + unit] = bias[g*padded + unit] + W x.
template <class Real>
void ForwardPass<Real>::project_input(Thread& me, const Real* const* x, Index rows,
                                      bool below_min_rows) {
  const Matrix<Real>& matrix = weights_.input;
  Matmul<Real> of = me.products.with(matrix, me.place.panels(matrix.panels.count), rows);
  of.rows.list = x;
  of.reverse = call_.reverse_panels;
  of.init = Init::given;
  for (int g = 0; g < traits_.gates; ++g)
    of.from[g] = vectors() + weights_.bias + g * weights_.padded;
  of.out.first = me.gates, of.out.stride = traits_.gates * weights_.padded;
  of.gate_stride = weights_.padded;
  of.out_is_padded = true;
  me.products.run(of, matrix, below_min_rows);
  wait(me);
}

// Lists where the state of a step's rows lies, but for what lies at the same place at all steps.
template <class Real>
void ForwardPass<Real>::list_rows(Thread& me, Index t, Index rows) const {
  if (call_.rows.plain()) return list_all_rows(me, t, rows);
  const History<Real> h_steps{
      {call_.y.data, call_.y.stride_t, call_.y.stride_b}, call_.h0, zero_, z_.P};
  const History<Real> c_steps{{call_.c, z_.B * z_.H, z_.H}, call_.c0, zero_, z_.H};
  ForwardStep<Real>& at = me.step;
  for (Index m = 0; m < rows; ++m) {
    const Index sorted = me.place.m0 + m, b = call_.rows.row(sorted);
    at.h_prev[m] = h_steps.before(z_, call_.rows, t, sorted);
    if (!z_.projected) at.h[m] = call_.y.at(t, b);
    if (call_.gates) {
      at.saved[m] = call_.gates + (t * z_.B + b) * traits_.saved * z_.H;
      if (traits_.has_c) {
        at.c_prev[m] = c_steps.before(z_, call_.rows, t, sorted);
        at.c[m] = call_.c + (t * z_.B + b) * z_.H;
      }
    } else if (traits_.has_c && call_.rows.reset_mask) {
      at.c_prev[m] = call_.rows.reset_mask[t * z_.B + b] ? zero_ : at.c[m];
    }
  }
}

// The same where all rows run at all steps.
template <class Real>
void ForwardPass<Real>::list_all_rows(Thread& me, Index t, Index rows) const {
  const Index m0 = me.place.m0, previous = call_.rows.reverse ? t + 1 : t - 1;
  const bool first = previous < 0 || previous >= z_.T;
  ForwardStep<Real>& at = me.step;
  if (first)
    list_rows_at(call_.h0 + m0 * z_.P, z_.P, rows, at.h_prev);
  else
    list_rows_at(call_.y.at(previous, m0), call_.y.stride_b, rows, at.h_prev);
  if (!z_.projected) list_rows_at(call_.y.at(t, m0), call_.y.stride_b, rows, at.h);
  if (!call_.gates) return;
  const Index saved = traits_.saved * z_.H, begin = m0 * z_.H, of_step = z_.B * z_.H;
  list_rows_at(call_.gates + (t * z_.B + m0) * saved, saved, rows, at.saved);
  if (!traits_.has_c) return;
  list_rows_at((first ? call_.c0 : call_.c + previous * of_step) + begin, z_.H, rows, at.c_prev);
  list_rows_at(call_.c + t * of_step + begin, z_.H, rows, at.c);
}

// A product that goes on from the projected input.
template <class Real>
Matmul<Real> ForwardPass<Real>::from_gates(const Thread& me, const Matrix<Real>& matrix,
                                           const Real* const* rows, Epilogue<Real> epilogue) const {
  Matmul<Real> of = me.products.with(matrix, me.place.panels(matrix.panels.count), 0);
  of.init = Init::given;
  for (int i = 0; i < matrix.panels.gates; ++i) {
    const Index g = matrix.first_gate + i;
    const bool apart = traits_.linear_before_reset && g + 1 == traits_.gates;
    of.from[i] = vectors() + (apart ? weights_.split_bias : weights_.bias + g * weights_.padded);
    of.from_stride[i] = apart || fuses_input_ ? 0 : traits_.gates * weights_.padded;
  }
  of.rows.list = rows;
  of.epilogue = epilogue;
  of.step = &me.step;
  return of;
}

// What is the same for all steps.
template <class Real>
void ForwardPass<Real>::prepare(Thread& me) const {
  me.step.peephole = vectors() + weights_.peephole;
  for (Index m = 0; m < me.place.size(); ++m) {
    const Index sorted = me.place.m0 + m;
    if (z_.projected) me.step.h[m] = out_ + sorted * z_.H;
    if (traits_.reset_before) me.step.reset_h[m] = reset_ + sorted * z_.H;
    if (traits_.has_c && !call_.gates)
      me.step.c_prev[m] = me.step.c[m] = call_.cn + call_.rows.row(sorted) * z_.H;
  }
  const auto set_up = [&me](std::optional<StepMatmul<Real>>& product, const Matrix<Real>& matrix,
                            const Matmul<Real>& of) {
    product.emplace(me.products, matrix, of, me.buffer);
  };
  set_up(me.recurrent, weights_.recurrent,
         from_gates(me, weights_.recurrent, me.step.h_prev,
                    traits_.reset_before ? cell_.reset : cell_.forward));
  if (traits_.reset_before)
    set_up(me.reset, weights_.reset,
           from_gates(me, weights_.reset, me.step.reset_h, cell_.forward));
  if (z_.projected) {
    const Matrix<Real>& matrix = weights_.project;
    Matmul<Real> of = me.products.with(matrix, me.place.panels(matrix.panels.count), 0);
    of.rows.list = me.step.h;
    of.out.list = me.step.saved;
    set_up(me.project, matrix, of);
  }
}

template <class Real>
void ForwardPass<Real>::start_from_gates(const Thread& me, const Matrix<Real>& matrix,
                                         Matmul<Real>* of) const {
  for (int i = 0; i < matrix.panels.gates; ++i) {
    const Index g = matrix.first_gate + i;
    if (!(traits_.linear_before_reset && g + 1 == traits_.gates))
      of->from[i] = me.step.gates + g * weights_.padded;
  }
}

template <class Real>
void ForwardPass<Real>::step(Thread& me, Index t, const Real* const* x, Index rows, bool reverse) {
  list_rows(me, t, rows);
  const bool below_min_rows = call_.rows.batch_size(t, z_.B) < call_.split.how.recurrent.min_rows;
  Matmul<Real>& recurrent = me.recurrent->of;
  if (!fuses_input_) {
    start_from_gates(me, weights_.recurrent, &recurrent);
    me.recurrent->run(rows, reverse, below_min_rows);
  } else if (!below_min_rows) {
    recurrent.M = rows, recurrent.reverse = reverse;
    me.products.run_with_input(recurrent, weights_.recurrent, weights_.input, x);
  } else {
    project_input(me, x, rows, true);
    Matmul<Real> of = recurrent;
    of.M = rows, of.reverse = reverse;
    start_from_gates(me, weights_.recurrent, &of);
    for (Index& stride : of.from_stride) stride = traits_.gates * weights_.padded;
    me.products.run(of, weights_.recurrent, true);
  }
  wait(me);
  if (traits_.reset_before) {
    start_from_gates(me, weights_.reset, &me.reset->of);
    me.reset->run(rows, reverse, below_min_rows);
    wait(me);
  }
  if (z_.projected) {
    // `saved` is free to hold the rows that come out
    for (Index m = 0; m < rows; ++m)
      me.step.saved[m] = call_.y.at(t, call_.rows.row(me.place.m0 + m));
    me.project->run(rows, reverse, below_min_rows);
    wait(me);
  }
}

// Copies a thread's share of what some steps left in y, while it is near.
template <class Real>
void ForwardPass<Real>::save_y(const Thread& me, Index begin, Index end) const {
  for (Index s = begin; s < end; ++s) {
    const Index t = time(s), rows = me.place.active(call_.rows.batch_size(t, z_.B));
    const Share share(rows, me.place.rank, me.place.ranks);
    for (Index m = me.place.m0 + share.begin; m < me.place.m0 + share.end; ++m) {
      const Index b = call_.rows.row(m);
      copy<Real>(call_.y.at(t, b), z_.P, call_.saved_y + (t * z_.B + b) * z_.P);
    }
  }
}

// hn and, when c was saved step by step, cn from each row's last step
template <class Real>
void ForwardPass<Real>::final_state(const Place& own) const {
  for (Index m = own.m0; m < own.m1; ++m) {
    const Index b = call_.rows.row(m), length = row_length(call_.rows, z_.T, m);
    const Index t = call_.rows.reverse ? 0 : length - 1;
    const Real* h = length ? call_.y.at(t, b) : call_.h0 + b * z_.P;
    std::memmove(call_.hn + b * z_.P, h, static_cast<std::size_t>(z_.P) * sizeof(Real));
    if (traits_.has_c && call_.gates) {
      const Real* c = length ? call_.c + (t * z_.B + b) * z_.H : call_.c0 + b * z_.H;
      std::memmove(call_.cn + b * z_.H, c, static_cast<std::size_t>(z_.H) * sizeof(Real));
    }
  }
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace fastrnn
