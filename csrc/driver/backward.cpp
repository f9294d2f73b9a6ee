#include "driver/backward.h"

#include <cstring>
#include <new>

namespace fastrnn {

template <class Real>
BackwardPass<Real>::BackwardPass(const Kernels<Real>& kernels, const CellKernels<Real>& cell,
                                 const Call& call, const Partition& partition, void* work)
    : kernels_(kernels),
      cell_(cell),
      traits_(cell.traits),
      call_(call),
      z_(call.sizes),
      partition_(partition),
      weights_(cell.traits, kernels, call.sizes, call.split.how),
      barrier_(partition.threads),
      step_barrier_(partition.threads),
      interrupt_(call.listener, partition.step(call.sizes.T)),
      right_x_{{0, 1, kernels.lanes}, nullptr, nullptr},
      right_h_(right_x_),
      right_extra_(right_x_) {
  Arena arena(work);
  // A row of dgates: D blocks, then what the recurrent weights' (reset before) or the projection's
  // gradient multiplies. An odd number of cache lines, so that a column of rows does not fall on
  // one set of the cache.
  extra_ = traits_.gate_grads * z_.H;
  ld_ = extra_ + (traits_.reset_before ? z_.H : 0) + (z_.projected ? z_.P + z_.H : 0);
  constexpr Index line = 64 / sizeof(Real);
  ld_ = ((ld_ + line - 1) / line | 1) * line;
  const Index gradients = traits_.gates * z_.H * (z_.I + z_.P) * static_cast<Index>(sizeof(Real));
  chunk_ = gradients > kLongChunkBytes ? kLongChunkRows : kChunkRows;
  const Index rows = chunk_rows(z_.T, z_.B, chunk_), in_sum = smaller(rows, kLongChunkRows);
  zero_ = arena.take<Real>(larger(z_.H, z_.P));
  dgates_ = arena.take<Real>(rows * ld_);
  d_out_ = arena.take<Real>(z_.projected ? z_.B * z_.H : 0);
  right_x_ = take_chunk(arena, z_.I, in_sum);
  right_h_ = take_chunk(arena, z_.P, in_sum);
  right_extra_ = take_chunk(arena, traits_.reset_before || z_.projected ? z_.H : 0, in_sum);
  threads_ = arena.take<Thread>(partition_.threads);
  for (int i = 0; i < partition_.threads; ++i) {
    Thread measured(Place(z_, call_.rows, partition_, i));
    Thread& thread = threads_ ? *new (threads_ + i) Thread(measured.place) : measured;
    const Index own = thread.place.size(), of_c = traits_.has_c ? rows : 0;
    thread.products = {&kernels_,        call_.packed,
                       WeightType::real, {},
                       call_.split.data, arena.take<Half>(scratch_size(own, rows, in_sum)),
                       nullptr};
    thread.buffer = arena.take<TileBuffer<Real>>(1);
    thread.x = arena.take<const Real*>(rows);
    thread.h_prev = arena.take<const Real*>(rows);
    thread.c_prev = arena.take<const Real*>(of_c);
    thread.c = arena.take<const Real*>(of_c);
    thread.dgates = arena.take<Real*>(rows);
    thread.dx = arena.take<Real*>(rows);
    BackwardStep<Real>& step = thread.step;
    step.h = arena.take<const Real*>(own);
    step.saved = arena.take<const Real*>(own);
    step.dy = arena.take<const Real*>(own);
    step.d_out = arena.take<const Real*>(own);
    step.dh = arena.take<Real*>(own);
    step.dc = arena.take<Real*>(own);
    step.peephole = call_.packed + weights_.peephole;
    step.H = z_.H;
    step.reset_at = extra_;
    step.output_at = z_.projected ? extra_ + z_.P : -1;
    step.options = call_.options;
    thread.in = arena.take<const Real*>(own);
    thread.out = arena.take<Real*>(own);
  }
  work_size_ = arena.size();
  if (!work) return;
  for (int i = 0; i < partition_.threads; ++i) prepare(threads_[i]);
}

template <class Real>
typename BackwardPass<Real>::Chunk BackwardPass<Real>::take_chunk(Arena& arena, Index N,
                                                                  Index rows) const {
  const Panels panels(N, 1, kernels_.lanes);
  Real* packed = arena.take<Real>(panels.size(rows));
  return {panels, packed, arena.take<Half>(split_size(panels, rows, call_.split.how.batched))};
}

template <class Real>
Index BackwardPass<Real>::scratch_size(Index own, Index chunk, Index in_sum) const {
  using P = Products<Real>;
  const Index columns = matmul_scratch(larger(z_.H, z_.P), in_sum, call_.split.how.batched);
  return larger(
      columns,
      larger(
          larger(P::scratch_size(weights_.recurrent, own), P::scratch_size(weights_.input, chunk)),
          larger(P::scratch_size(weights_.reset, own), P::scratch_size(weights_.project, own))));
}

// A thread's units of those that lie in plain panels.
template <class Real>
Share BackwardPass<Real>::own_units(const Place& place, Index N) const {
  const Panels panels(N, 1, kernels_.lanes);
  const Share share = place.panels(panels.count);
  return {smaller(N, panels.unit(share.begin)), smaller(N, panels.unit(share.end))};
}

template <class Real>
void BackwardPass<Real>::run(const ThreadTeam& lease) {
  for (Index i = 0; i < larger(z_.H, z_.P); ++i) zero_[i] = 0;
  lease.run(partition_.threads, enter, this);
}

template <class Real>
void BackwardPass<Real>::enter(void* self, int rank) {
  auto* pass = static_cast<BackwardPass*>(self);
  pass->run(pass->threads_[rank]);
}

template <class Real>
void BackwardPass<Real>::run(Thread& me) {
  Sums<Real> sums = *call_.sums;
  for (Index s = 0; s < z_.T;) {
    Index rows = 0, end = s;
    for (; end < z_.T; ++end) {
      const Index n = call_.rows.batch_size(time(end), z_.B), so_far = sums.open_rows + rows;
      if (so_far > 0 && so_far + n > chunk_) break;
      rows += n;
    }
    me.own = 0;
    Index first = 0;
    bool ends = false;
    for (; s < end && !ends; ++s) {
      if (me.place.index == 0) interrupt_.ask(s, !partition_.by_rows);
      step(me, time(s), first);
      first += call_.rows.batch_size(time(s), z_.B);
      ends = interrupt_.ends(s);
    }
    if (!ends) input_gradients(me);
    const bool closes = s < z_.T || sums.last;
    const int parts = static_cast<int>(larger((rows + kLongChunkRows - 1) / kLongChunkRows, 1));
    for (int i = 0; i < parts; ++i) {
      const Share part(rows, i, parts);
      if (!ends) pack_chunk(me, part);
      wait_for_all();
      if (interrupt_.ends(end)) return;  // all of them: nobody asks before the next chunk
      if (traits_.reset_before || z_.projected) {
        pack_extra(me, part);
        wait_for_all();
      }
      weight_gradients(me, part, sums, closes || i + 1 < parts);
      wait_for_all();
    }
    if (sums.rows >= kSettledRows && !(s == z_.T && sums.last)) settle(me, sums, false);
  }
  if (sums.any_settled && sums.last) settle(me, sums, true);
  if (me.place.index == 0) *call_.sums = sums;
}

// What is the same for all steps.
template <class Real>
void BackwardPass<Real>::prepare(Thread& me) const {
  me.units = own_units(me.place, z_.H);
  me.h_units = own_units(me.place, z_.P);
  for (Index m = 0; m < me.place.size(); ++m) {
    const Index sorted = me.place.m0 + m, b = call_.rows.row(sorted);
    me.step.dh[m] = call_.dh + b * z_.P;
    if (traits_.has_c) me.step.dc[m] = call_.dc + b * z_.H;
    me.step.dy[m] = nullptr;
    me.step.d_out[m] = z_.projected ? d_out_ + sorted * z_.H : nullptr;
  }
  const auto product = [&me](const Matrix<Real>& matrix) {
    Matmul<Real> of = me.products.with(matrix, me.place.panels(matrix.panels.count), 0);
    of.rows.list = me.in;
    return of;
  };
  Matmul<Real> of = product(weights_.recurrent);
  of.out.list = me.step.dh;
  of.init = traits_.needs_h_prev ? Init::output : Init::zero;
  me.recurrent.emplace(me.products, weights_.recurrent, of, me.buffer);
  if (traits_.reset_before) {
    of = product(weights_.reset);
    of.epilogue = cell_.reset_backward;
    of.step = &me.step;
    me.reset.emplace(me.products, weights_.reset, of, me.buffer);
  }
  if (z_.projected) {
    of = product(weights_.project);
    of.out.list = me.out;
    me.project.emplace(me.products, weights_.project, of, me.buffer);
  }
}

// One step of the time loop; its rows of dgates are first, first + 1, ...
template <class Real>
void BackwardPass<Real>::step(Thread& me, Index t, Index first) {
  const Index count = call_.rows.batch_size(t, z_.B), rows = me.place.active(count);
  const bool below_min_rows = count < call_.split.how.recurrent.min_rows;
  list_rows(me, t, first, count);
  list_own_rows(me, t, first, rows);
  if (z_.projected) project(me, rows, below_min_rows);
  cell_.backward(me.step, rows, me.units.begin, me.units.end);
  wait(me);
  if (traits_.reset_before) {
    const Index last = (traits_.gates - 1) * z_.H;
    for (Index m = 0; m < rows; ++m) me.in[m] = me.step.dgates[m] + last;
    me.reset->run(rows, false, below_min_rows);
    wait(me);
  }
  const Index hidden = traits_.recurrent_grad_offset * z_.H;
  for (Index m = 0; m < rows; ++m) me.in[m] = me.step.dgates[m] + hidden;
  me.recurrent->run(rows, false, below_min_rows);
  wait(me);
  if (call_.rows.reset_mask) {
    if (me.place.rank == 0) reset(me, t, rows);
    wait(me);
  }
}

template <class Real>
void BackwardPass<Real>::list_rows(Thread& me, Index t, Index first, Index count) const {
  const Index of_step = z_.B * z_.H;
  if (call_.rows.plain()) {
    const Index previous = call_.rows.reverse ? t + 1 : t - 1;
    const bool begins = previous < 0 || previous >= z_.T;
    list_rows_at(call_.x.at(t, 0), call_.x.stride_b, count, me.x + first);
    if (begins)
      list_rows_at(call_.h0, z_.P, count, me.h_prev + first);
    else
      list_rows_at(call_.y.at(previous, 0), call_.y.stride_b, count, me.h_prev + first);
    if (!traits_.has_c) return;
    const Real* c_prev = begins ? call_.c0 : call_.c + previous * of_step;
    list_rows_at(c_prev, z_.H, count, me.c_prev + first);
    list_rows_at(call_.c + t * of_step, z_.H, count, me.c + first);
    return;
  }
  const History<Real> h_steps{call_.y, call_.h0, zero_, z_.P};
  const History<Real> c_steps{{call_.c, of_step, z_.H}, call_.c0, zero_, z_.H};
  for (Index m = 0; m < count; ++m) {
    const Index b = call_.rows.row(m);
    me.x[first + m] = call_.x.at(t, b);
    me.h_prev[first + m] = h_steps.before(z_, call_.rows, t, m);
    if (traits_.has_c) {
      me.c_prev[first + m] = c_steps.before(z_, call_.rows, t, m);
      me.c[first + m] = call_.c + t * of_step + b * z_.H;
    }
  }
}

template <class Real>
void BackwardPass<Real>::list_own_rows(Thread& me, Index t, Index first, Index rows) const {
  BackwardStep<Real>& at = me.step;
  const Index m0 = me.place.m0, begin = first + m0, saved = traits_.saved * z_.H;
  at.h_prev = me.h_prev + begin;
  if (traits_.has_c) at.c_prev = me.c_prev + begin, at.c = me.c + begin;
  at.dgates = me.dgates + me.own;
  list_rows_at(dgates_ + begin * ld_, ld_, rows, at.dgates);
  if (call_.rows.plain()) {
    list_rows_at(call_.dx.at(t, m0), call_.dx.stride_b, rows, me.dx + me.own);
    list_rows_at(call_.y.at(t, m0), call_.y.stride_b, rows, at.h);
    list_rows_at(call_.gates + (t * z_.B + m0) * saved, saved, rows, at.saved);
    if (call_.dy) list_rows_at(call_.dy.at(t, m0), call_.dy.stride_b, rows, at.dy);
  } else {
    for (Index m = 0; m < rows; ++m) {
      const Index b = call_.rows.row(m0 + m);
      me.dx[me.own + m] = call_.dx.at(t, b);
      at.h[m] = call_.y.at(t, b);
      at.saved[m] = call_.gates + (t * z_.B + b) * saved;
      if (call_.dy) at.dy[m] = call_.dy.at(t, b);
    }
  }
  me.own += rows;
}

// Projected: the gradient of h, kept for W_hr's, and through W_hr that of the cell's output.
template <class Real>
void BackwardPass<Real>::project(Thread& me, Index rows, bool below_min_rows) {
  const Share& units = me.h_units;
  for (Index m = 0; m < rows; ++m) {
    Real* kept = me.step.dgates[m] + extra_;
    for (Index i = units.begin; i < units.end; ++i)
      kept[i] = me.step.dh[m][i] + (me.step.dy[m] ? me.step.dy[m][i] : 0);
    me.in[m] = kept;
    me.out[m] = d_out_ + (me.place.m0 + m) * z_.H;
  }
  wait(me);
  me.project->run(rows, false, below_min_rows);
  wait(me);
}

// No gradient flows past the step at which a row started anew.
template <class Real>
void BackwardPass<Real>::reset(const Thread& me, Index t, Index rows) const {
  for (Index m = 0; m < rows; ++m) {
    const Index b = call_.rows.row(me.place.m0 + m);
    if (!call_.rows.reset_mask[t * z_.B + b]) continue;
    for (Index i = 0; i < z_.P; ++i) me.step.dh[m][i] = 0;
    for (Index i = 0; traits_.has_c && i < z_.H; ++i) me.step.dc[m][i] = 0;
  }
}

template <class Real>
void BackwardPass<Real>::pack_share(const Share& share, Index rows, const Chunk& out,
                                    const RowsAt<const Real>& from) const {
  kernels_.pack_rows(out.panels, from, 0, rows, rows, share, false, out.packed);
  split_panels(kernels_, out.panels, out.packed, rows, call_.split.how.batched, share, out.split);
}

// A thread's share of the panels of x and h together: small layers have one of each.
template <class Real>
void BackwardPass<Real>::pack_chunk(const Thread& me, const Share& rows) const {
  const Index n = rows.end - rows.begin;
  const Index of_x = right_x_.panels.count, of_h = right_h_.panels.count;
  const Share both(of_x + of_h, me.place.index, partition_.threads);
  pack_share({smaller(both.begin, of_x), smaller(both.end, of_x)}, n, right_x_,
             {me.x + rows.begin});
  pack_share({larger(both.begin - of_x, 0), larger(both.end - of_x, 0)}, n, right_h_,
             {me.h_prev + rows.begin});
}

// A thread's share of what stands behind the gates' blocks in each row of dgates.
template <class Real>
void BackwardPass<Real>::pack_extra(const Thread& me, const Share& rows) const {
  const Share share(right_extra_.panels.count, me.place.index, partition_.threads);
  const Index from = extra_ + (traits_.reset_before ? 0 : z_.P);
  pack_share(share, rows.end - rows.begin, right_extra_,
             {nullptr, dgates_ + rows.begin * ld_ + from, ld_});
}

template <class Real>
void BackwardPass<Real>::list_parameters(const Weights<Real>& grads,
                                         Parameter (&all)[kParameters]) const {
  const Index gates = traits_.gates * z_.H;
  all[0] = {&Weights<Real>::ih, gates * z_.I};
  all[1] = {&Weights<Real>::hh, gates * z_.P};
  all[2] = {&Weights<Real>::b_ih, gates};
  all[3] = {&Weights<Real>::b_hh, gates};
  all[4] = {&Weights<Real>::hr, z_.P * z_.H};
  all[5] = {&Weights<Real>::peephole, 3 * z_.H};
  for (Parameter& each : all)
    if (!(grads.*each.member)) each.size = 0;
}

// Where those that `grads` has lie in a vector of all; null: nowhere.
template <class Real>
Weights<Real> BackwardPass<Real>::in_vector(const Weights<Real>& grads, Real* at) const {
  Weights<Real> where{};
  Parameter all[kParameters];
  list_parameters(grads, all);
  for (const Parameter& each : all) {
    if (!at || !each.size) continue;
    where.*each.member = at;
    at += each.size;
  }
  return where;
}

// Takes in some rows of a chunk.
template <class Real>
void BackwardPass<Real>::weight_gradients(const Thread& me, const Share& rows, Sums<Real>& sums,
                                          bool closes) const {
  const Ends ends{sums.open_rows > 0, closes, closes && sums.rows > 0};
  const Weights<Real>&d = sums.grads, open = in_vector(d, sums.open);
  const Share units(z_.H, me.place.index, partition_.threads, kernels_.lanes);
  const auto column_sums = [&](Index from, const Real* const* factor, Real* total, Real* opened) {
    kernels_.column_sums({dgates_ + rows.begin * ld_ + from, ld_, rows.end - rows.begin,
                          factor ? factor + rows.begin : nullptr, ends.from(opened),
                          ends.into(total, opened), ends.adds},
                         units.begin, units.end);
  };
  for (int g = 0; g < traits_.gates; ++g) {
    const Index from = traits_.input_block[g] * z_.H, into = g * z_.H;
    const Index hidden = (traits_.recurrent_grad_offset + g) * z_.H;
    const bool past_reset = traits_.reset_before && g == traits_.gates - 1;
    const Outer of_x{right_x_, d.ih + into * z_.I, open.ih + into * z_.I};
    const Outer of_h{past_reset ? right_extra_ : right_h_, d.hh + into * z_.P,
                     open.hh + into * z_.P};
    if (from == hidden) {
      outer(me, rows, from, z_.H, ends, {of_x, of_h});
    } else {
      outer(me, rows, from, z_.H, ends, {of_x});
      outer(me, rows, hidden, z_.H, ends, {of_h});
    }
    if (d.b_ih) column_sums(from, nullptr, d.b_ih + into, open.b_ih + into);
    if (d.b_hh && d.b_ih && from == hidden)
      std::memcpy(ends.into(d.b_hh, open.b_hh) + into + units.begin,
                  ends.into(d.b_ih, open.b_ih) + into + units.begin,
                  static_cast<std::size_t>(units.end - units.begin) * sizeof(Real));
    else if (d.b_hh)
      column_sums(hidden, nullptr, d.b_hh + into, open.b_hh + into);
  }
  if (z_.projected) outer(me, rows, extra_, z_.P, ends, {{right_extra_, d.hr, open.hr}});
  if (traits_.peephole) {
    const Index f = z_.H, o = 2 * z_.H;
    column_sums(0, me.c_prev, d.peephole, open.peephole);
    column_sums(z_.H, me.c_prev, d.peephole + f, open.peephole + f);
    column_sums(3 * z_.H, me.c, d.peephole + o, open.peephole + o);
  }
  sums.open_rows += rows.end - rows.begin;
  if (closes) sums.rows += sums.open_rows, sums.open_rows = 0;
}

// [m][n]: the sum over rows of dgates[row][from + m] * chunk[row][n], for each product.
template <class Real>
template <int n>
void BackwardPass<Real>::outer(const Thread& me, const Share& rows, Index from, Index M,
                               const Ends& ends, const Outer (&products)[n]) const {
  const MatmulAlgorithm how = call_.split.how.batched;
  const Index group = how.tiles() ? 2 * kTileRows : kernels_.columns.most_rows[kMaxTileVectors];
  const Share share(M, me.place.index, partition_.threads, group);
  const auto product = [&](const Outer& each) {
    const Index N = each.chunk.panels.N;
    Matmul<Real> of(each.chunk.panels, Share(0, each.chunk.panels.count));
    of.M = share.end - share.begin, of.K = rows.end - rows.begin;
    of.columns = dgates_ + rows.begin * ld_ + from + share.begin, of.ld = ld_;
    of.packed = each.chunk.packed, of.split = each.chunk.split;
    of.init = ends.resumes ? Init::given : Init::zero;
    if (ends.resumes) of.from[0] = each.open + share.begin * N, of.from_stride[0] = N;
    of.out.first = ends.into(each.total, each.open) + share.begin * N, of.out.stride = N;
    of.add = ends.adds;
    return of;
  };
  if constexpr (n == 1) {
    const Matmul<Real> one = product(products[0]);
    matmul(kernels_, &one, 1, how, me.products.scratch);
  } else {
    const Matmul<Real> both[] = {product(products[0]), product(products[1])};
    matmul(kernels_, both, 2, how, me.products.scratch);
  }
}

// A thread's share of adding the sum of chunks to those before. The last one leaves the sum of all.
template <class Real>
void BackwardPass<Real>::settle(const Thread& me, Sums<Real>& sums, bool last) const {
  const Weights<Real>& d = sums.grads;
  const Weights<Real> settled = in_vector(d, sums.settled), left = in_vector(d, sums.left);
  Parameter all[kParameters];
  list_parameters(d, all);
  for (const Parameter& each : all) {
    const Share share(each.size, me.place.index, partition_.threads, kernels_.lanes);
    kernels_.settle(
        {d.*each.member, settled.*each.member, left.*each.member, !sums.any_settled, last},
        share.begin, share.end);
  }
  sums.rows = 0;
  sums.any_settled = true;
}

template <class Real>
void BackwardPass<Real>::input_gradients(const Thread& me) const {
  const Matrix<Real>& matrix = weights_.input;
  const Share share(me.own, me.place.rank, me.place.ranks,
                    kernels_.rows.most_rows[matrix.panels.together(matrix.panels.full())]);
  Matmul<Real> of =
      me.products.with(matrix, Share(0, matrix.panels.count), share.end - share.begin);
  of.rows.list = me.dgates + share.begin;
  of.out.list = me.dx + share.begin;
  me.products.run(of, matrix);
}

template class BackwardPass<float>;
template class BackwardPass<double>;

}  // namespace fastrnn
