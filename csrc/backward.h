// Backpropagation through time (Werbos 1990) over a pass: knows time, batch and threads, but no cell.
//
// Steps run against forward's order, in chunks. In a chunk the time loop leaves the gradients of the
// pre-activations, a row (delta) for every row of every step; then come the large products: weight
// gradients, which sum over those rows in the order in which they were made, and dx.
//
// Sums over all rows of a long sequence would lose what a float cannot hold beside them, so they have three
// levels: a chain over the rows of a chunk; a sum of chunks; and from kSettledRows rows on, a sum of such
// sums together with what its roundings left (docs/accuracy.md). A chunk that a span ends in goes on in
// the next one, so that spans change no bit.

// Packed weights of the backward direction, one buffer: rows of the weights as they lie.
template <class V, class Cell>
struct BackwardWeights {
  using Real = typename V::Real;
  static constexpr int G = Cell::kGates;
  static constexpr int kFirst = ForwardWeights<V, Cell>::kFirst;

  Layout<V> layout;
  Index peephole;  // (3*H,)
  Matrix<V> recurrent, reset, input, project;
  Sizes z;

  FASTRNN_FN BackwardWeights(const Sizes& sizes, const Ways& how)
      : layout{WeightType::real},
        peephole(layout.take_vector(Cell::kPeephole ? 3 * sizes.H : 0)),
        recurrent(layout.take({sizes.P, 1}, kFirst * sizes.H, how.step)),
        reset(layout.take({sizes.P, 1}, sizes.H, how.step, Cell::kResetBefore)),
        input(layout.take({sizes.I, 1}, G * sizes.H, how.chunk)),
        project(layout.take({sizes.H, 1}, sizes.P, how.step, sizes.projected)),
        z(sizes) {}

  // row k of a matrix
  struct Plain {
    const Real* w;
    Index ld;
    FASTRNN_FN const Real* operator()(Index k) const { return w + k * ld; }
  };

  // row k of W_ih in the order of delta's blocks
  struct Blocks {
    const Real* w;
    Index ld, H;
    FASTRNN_FN const Real* operator()(Index k) const {
      Index gate = 0;
      while (Cell::input_block(static_cast<int>(gate)) != k / H) ++gate;
      return w + (gate * H + k % H) * ld;
    }
  };

  // rank's share of the packing
  FASTRNN_NOINLINE void pack(const Weights<const Real>& w, int rank, int ranks, Real* out) const {
    pack(recurrent, Plain{w.hh, z.P}, rank, ranks, out);
    pack(reset, Plain{w.hh + kFirst * z.H * z.P, z.P}, rank, ranks, out);
    pack(input, Blocks{w.ih, z.I, z.H}, rank, ranks, out);
    pack(project, Plain{w.hr, z.H}, rank, ranks, out);
    if constexpr (Cell::kPeephole) {
      for (Index i = 0; rank == 0 && i < 3 * z.H; ++i) out[peephole + i] = w.peephole[i];
    }
    end_streams();
  }

  template <class Work>
  FASTRNN_FN void each(const Work& work) const {
    work(recurrent), work(reset), work(input), work(project);
  }

 private:
  template <class RowOf>
  FASTRNN_FN void pack(const Matrix<V>& matrix, const RowOf& row, int rank, int ranks,
                       Real* out) const {
    if (matrix.present)
      pack_rows<V>(matrix.K, matrix.panels.N, layout.past_caches(kPastCachesBackward),
                   out + matrix.at, Share(matrix.panels.count(), rank, ranks), row);
  }
};

template <class V, class Cell>
class BackwardPass {
  using Real = typename V::Real;
  static constexpr int G = Cell::kGates;

 public:
  // Lays out the buffers in `work`; with no memory it only measures.
  FASTRNN_NOINLINE BackwardPass(const BackwardCall<Real>& call, Plan plan, void* work)
      : call_(call),
        z_(call.sizes),
        plan_(plan),
        weights_(call.sizes, call.split.how),
        barrier_(plan.threads),
        step_barrier_(plan.threads),
        interrupt_(call.listener, plan.step(call.sizes.T)) {
    Arena arena(work);
    // A row of delta: D blocks, then what the recurrent weights' (reset before) or the projection's
    // gradient multiplies. An odd number of cache lines, so that a column of rows does not fall on
    // one set of the cache.
    extra_ = Cell::kDeltas * z_.H;
    ld_ = extra_ + (Cell::kResetBefore ? z_.H : 0) + (z_.projected ? z_.P + z_.H : 0);
    constexpr Index line = kLineBytes / sizeof(Real);
    ld_ = ((ld_ + line - 1) / line | 1) * line;
    const Index gradients = G * z_.H * (z_.I + z_.P) * static_cast<Index>(sizeof(Real));
    chunk_ = gradients > kLongChunkBytes ? kLongChunkRows : kChunkRows;
    const Index rows = chunk_rows(z_.T, z_.B, chunk_), in_sum = smaller(rows, kLongChunkRows);
    zero_ = arena.take<Real>(larger(z_.H, z_.P));
    delta_ = arena.take<Real>(rows * ld_);
    d_out_ = arena.take<Real>(z_.projected ? z_.B * z_.H : 0);
    right_x_ = take_chunk(arena, z_.I, in_sum);
    right_h_ = take_chunk(arena, z_.P, in_sum);
    right_extra_ = take_chunk(arena, Cell::kResetBefore || z_.projected ? z_.H : 0, in_sum);
    threads_ = arena.take<Thread>(plan_.threads);
    for (int i = 0; i < plan_.threads; ++i) {
      Thread thread{Place(z_, call_.rows, plan_, i)};
      const Index own = thread.place.size();
      thread.products = {call_.packed,
                         WeightType::real,
                         {},
                         call_.split.data,
                         arena.take<Half>(scratch_size(own, rows, in_sum)),
                         nullptr};
      thread.x = arena.take<const Real*>(rows);
      thread.h_prev = arena.take<const Real*>(rows);
      thread.c_prev = arena.take<const Real*>(Cell::kHasC ? rows : 0);
      thread.c = arena.take<const Real*>(Cell::kHasC ? rows : 0);
      thread.delta = arena.take<Real*>(rows);
      thread.dx = arena.take<Real*>(rows);
      BackRows<Real>& step = thread.step;
      step.h = arena.take<const Real*>(own);
      step.saved = arena.take<const Real*>(own);
      step.dy = arena.take<const Real*>(own);
      step.d_out = arena.take<const Real*>(own);
      step.dh = arena.take<Real*>(own);
      step.dc = arena.take<Real*>(own);
      thread.in = arena.take<const Real*>(own);
      thread.out = arena.take<Real*>(own);
      if (threads_) threads_[i] = thread;
    }
    work_size_ = arena.size();
  }

  FASTRNN_FN Index work_size() const { return work_size_; }

  FASTRNN_NOINLINE void run(const Lease& lease) {
    for (Index i = 0; i < larger(z_.H, z_.P); ++i) zero_[i] = 0;
    lease.run(plan_.threads, enter, this);
  }

 private:
  struct Thread {
    Place place;
    BackRows<Real> step = {};
    const Real** in = nullptr;  // rows of a product
    Real** out = nullptr;
    Products<V> products = {};
    // By row of the chunk; every thread knows them all, and waits for no other.
    const Real **x = nullptr, **h_prev = nullptr, **c_prev = nullptr, **c = nullptr;
    Real **delta = nullptr, **dx = nullptr;  // of its own rows
    Index own = 0;                           // of which there are so many
  };

  // What the sums over a chunk's rows are taken with.
  struct Chunk {
    Index N;
    Real* packed;  // [panel][row][vector][lane]
    Half* split;   // the same in parts

    FASTRNN_FN Panels<V> panels() const { return {N, 1}; }
  };

  FASTRNN_FN Index scratch_size(Index own, Index chunk, Index in_sum) const {
    using P = Products<V>;
    const Index columns = product_scratch<V>(larger(z_.H, z_.P), in_sum, call_.split.how.chunk);
    return larger(columns, larger(larger(P::scratch_size(weights_.recurrent, own),
                                         P::scratch_size(weights_.input, chunk)),
                                  larger(P::scratch_size(weights_.reset, own),
                                         P::scratch_size(weights_.project, own))));
  }

  // A thread's units of those that lie in plain panels.
  FASTRNN_FN static Share own_units(const Place& place, Index N) {
    const Panels<V> panels(N, 1);
    const Share share = place.panels(panels.count());
    const Index width = panels.U * V::kLanes;
    return {smaller(N, share.begin * width), smaller(N, share.end * width)};
  }

  static void enter(void* self, int i) {
    auto* pass = static_cast<BackwardPass*>(self);
    pass->run(pass->threads_[i]);
  }

  FASTRNN_FN void meet(const Thread& me) {  // those that share rows
    if (me.place.ranks > 1) step_barrier_.wait();
  }
  FASTRNN_FN void meet_all() {
    if (plan_.threads > 1) barrier_.wait();
  }

  FASTRNN_FN Index time(Index s) const { return call_.rows.reverse ? s : z_.T - 1 - s; }

  FASTRNN_NOINLINE void run(Thread& me) {
    Sums<Real> sums = *call_.sums;
    for (Index s = 0; s < z_.T;) {
      Index rows = 0, end = s;
      for (; end < z_.T; ++end) {
        const Index n = call_.rows.count(time(end), z_.B), so_far = sums.open_rows + rows;
        if (so_far > 0 && so_far + n > chunk_) break;
        rows += n;
      }
      me.own = 0;
      Index first = 0;
      bool ends = false;
      for (; s < end && !ends; ++s) {
        if (me.place.index == 0) interrupt_.ask(s, !plan_.by_rows);
        step(me, time(s), first);
        first += call_.rows.count(time(s), z_.B);
        ends = interrupt_.ends(s);
      }
      if (!ends) input_gradients(me);
      const bool closes = s < z_.T || sums.last;
      const int parts = static_cast<int>(larger((rows + kLongChunkRows - 1) / kLongChunkRows, 1));
      for (int i = 0; i < parts; ++i) {
        const Share part(rows, i, parts);
        if (!ends) pack_chunk(me, part);
        meet_all();
        if (interrupt_.ends(end)) return;  // all of them: nobody asks before the next chunk
        if (Cell::kResetBefore || z_.projected) {
          pack_extra(me, part);
          meet_all();
        }
        weight_gradients(me, part, sums, closes || i + 1 < parts);
        meet_all();
      }
      if (sums.rows >= kSettledRows && !(s == z_.T && sums.last)) settle(me, sums, false);
    }
    if (sums.any_settled && sums.last) settle(me, sums, true);
    if (me.place.index == 0) *call_.sums = sums;
  }

  // One step of the time loop; its rows of delta are first, first + 1, ...
  FASTRNN_FN void step(Thread& me, Index t, Index first) {
    const Index count = call_.rows.count(t, z_.B), rows = me.place.active(count);
    const bool few = count < call_.split.how.step.least;
    list_rows(me, t, first, count);
    fill_rows(me, t, first, rows);
    if (z_.projected) project(me, rows, few);
    const Share units = own_units(me.place, z_.H);
    for (Index m = 0; m < rows; ++m)
      for (Index at = units.begin; at < units.end; at += V::kLanes) unit_backward(me.step, m, at);
    meet(me);
    if constexpr (Cell::kResetBefore) {
      const ResetBackStage<V, Cell> stage{me.step, z_.H, extra_};
      product(me, stage, weights_.reset, rows, few);
      meet(me);
    }
    const Index hidden = Cell::kHiddenFirst * z_.H;
    for (Index m = 0; m < rows; ++m) me.in[m] = me.step.delta[m] + hidden;
    const RowStage<V> stage{me.in, me.step.dh, z_.P, Cell::kNeedsHPrev};
    product(me, stage, weights_.recurrent, rows, few);
    meet(me);
    if (call_.rows.cut) {
      if (me.place.rank == 0) cut(me, t, rows);
      meet(me);
    }
  }

  FASTRNN_FN void list_rows(Thread& me, Index t, Index first, Index count) {
    const History<Real> h_steps{call_.y, call_.h0, zero_, z_.P};
    const History<Real> c_steps{{call_.c, z_.B * z_.H, z_.H}, call_.c0, zero_, z_.H};
    for (Index m = 0; m < count; ++m) {
      const Index b = call_.rows.row(m);
      me.x[first + m] = call_.x.at(t, b);
      me.h_prev[first + m] = h_steps.before(z_, call_.rows, t, m);
      if constexpr (Cell::kHasC) {
        me.c_prev[first + m] = c_steps.before(z_, call_.rows, t, m);
        me.c[first + m] = call_.c + (t * z_.B + b) * z_.H;
      }
    }
  }

  FASTRNN_FN void fill_rows(Thread& me, Index t, Index first, Index rows) {
    BackRows<Real>& at = me.step;
    const Index begin = first + me.place.m0;
    at.h_prev = me.h_prev + begin;
    if constexpr (Cell::kHasC) at.c_prev = me.c_prev + begin, at.c = me.c + begin;
    at.delta = me.delta + me.own;
    for (Index m = 0; m < rows; ++m) {
      const Index sorted = me.place.m0 + m, b = call_.rows.row(sorted);
      at.delta[m] = delta_ + (begin + m) * ld_;
      me.dx[me.own + m] = call_.dx.at(t, b);
      at.h[m] = call_.y.at(t, b);
      if constexpr (Cell::kHasC) at.dc[m] = call_.dc + b * z_.H;
      at.saved[m] = call_.gates + (t * z_.B + b) * Cell::kSaved * z_.H;
      at.dy[m] = call_.dy ? call_.dy.at(t, b) : nullptr;
      at.dh[m] = call_.dh + b * z_.P;
      at.d_out[m] = z_.projected ? d_out_ + sorted * z_.H : nullptr;
    }
    me.own += rows;
  }

  // Projected: the gradient of h, kept for W_hr's, and through W_hr that of the cell's output.
  FASTRNN_FN void project(Thread& me, Index rows, bool few) {
    const Share units = own_units(me.place, z_.P);
    for (Index m = 0; m < rows; ++m) {
      Real* kept = me.step.delta[m] + extra_;
      for (Index i = units.begin; i < units.end; ++i)
        kept[i] = me.step.dh[m][i] + (me.step.dy[m] ? me.step.dy[m][i] : 0);
      me.in[m] = kept;
      me.out[m] = d_out_ + (me.place.m0 + m) * z_.H;
    }
    meet(me);
    const RowStage<V> stage{me.in, me.out, z_.H, false};
    product(me, stage, weights_.project, rows, few);
    meet(me);
  }

  FASTRNN_FN void unit_backward(const BackRows<Real>& step, Index m, Index at) const {
    const Index H = z_.H, left = H - at;
    Unit<V> u;
    if (step.d_out[m]) {
      u.dh = V::load(step.d_out[m] + at, left);
    } else {
      u.dh = V::load(step.dh[m] + at, left);
      if (step.dy[m]) u.dh = u.dh + V::load(step.dy[m] + at, left);
    }
    FASTRNN_UNROLL
    for (int s = 0; s < Cell::kSaved; ++s) u.saved[s] = V::load(step.saved[m] + s * H + at, left);
    if constexpr (Cell::kSavesH) u.h = V::load(step.h[m] + at, left);
    if constexpr (Cell::kNeedsHPrev) u.h_prev = V::load(step.h_prev[m] + at, left);
    if constexpr (Cell::kHasC) {
      u.c_prev = V::load(step.c_prev[m] + at, left);
      u.c = V::load(step.c[m] + at, left);
      u.dc = V::load(step.dc[m] + at, left);
    }
    if constexpr (Cell::kPeephole) {
      FASTRNN_UNROLL
      for (int i = 0; i < 3; ++i)
        u.peephole[i] = V::load(call_.packed + weights_.peephole + i * H + at, left);
    }
    Cell::backward(u);
    Real* delta = step.delta[m] + at;
    FASTRNN_UNROLL
    for (int d = 0; d < Cell::kDeltas; ++d) {
      // a reset's own gradient is still to come
      if (!(Cell::kResetBefore && d == 0)) u.delta[d].store(delta + d * H, left);
    }
    if constexpr (Cell::kHasC) {
      u.dc.store(step.dc[m] + at, left);
      if (z_.projected) u.h.store(delta + extra_ + z_.P, left);
    }
    if constexpr (Cell::kNeedsHPrev) u.carry.store(step.dh[m] + at, left);
  }

  // No gradient flows past the step at which a row started anew.
  FASTRNN_FN void cut(const Thread& me, Index t, Index rows) const {
    for (Index m = 0; m < rows; ++m) {
      const Index b = call_.rows.row(me.place.m0 + m);
      if (!call_.rows.cut[t * z_.B + b]) continue;
      for (Index i = 0; i < z_.P; ++i) me.step.dh[m][i] = 0;
      if constexpr (Cell::kHasC) {
        for (Index i = 0; i < z_.H; ++i) me.step.dc[m][i] = 0;
      }
    }
  }

  struct Pointers {
    const Real* const* rows;
    FASTRNN_FN const Real* operator()(Index k) const { return rows[k]; }
  };
  struct Strided {
    const Real* first;
    Index ld;
    FASTRNN_FN const Real* operator()(Index k) const { return first + k * ld; }
  };

  FASTRNN_FN Chunk take_chunk(Arena& arena, Index N, Index rows) const {
    Real* packed = arena.take<Real>(Panels<V>(N, 1).size(rows));
    return {N, packed, arena.take<Half>(parts_size(Panels<V>(N, 1), rows, call_.split.how.chunk))};
  }

  // A share of the panels.
  template <class RowOf>
  FASTRNN_FN void pack_share(const Share& share, Index rows, const Chunk& out,
                             const RowOf& row) const {
    pack_rows<V>(rows, out.N, false, out.packed, share, row);
    split_panels(out.panels(), out.packed, rows, call_.split.how.chunk, share, out.split);
  }

  // A thread's share of the panels of x and h together: small layers have one of each.
  FASTRNN_NOINLINE void pack_chunk(const Thread& me, const Share& rows) const {
    const Index n = rows.end - rows.begin;
    const Index of_x = right_x_.panels().count(), of_h = right_h_.panels().count();
    const Share both(of_x + of_h, me.place.index, plan_.threads);
    pack_share({smaller(both.begin, of_x), smaller(both.end, of_x)}, n, right_x_,
               Pointers{me.x + rows.begin});
    pack_share({larger(both.begin - of_x, 0), larger(both.end - of_x, 0)}, n, right_h_,
               Pointers{me.h_prev + rows.begin});
  }

  // What other threads have left behind the blocks of delta.
  FASTRNN_NOINLINE void pack_extra(const Thread& me, const Share& rows) const {
    const Share share(right_extra_.panels().count(), me.place.index, plan_.threads);
    const Index from = extra_ + (Cell::kResetBefore ? 0 : z_.P);
    pack_share(share, rows.end - rows.begin, right_extra_,
               Strided{delta_ + rows.begin * ld_ + from, ld_});
  }

  using Member = Real* Weights<Real>::*;

  // Numbers of a parameter that is there.
  struct Parameter {
    Member member;
    Index size;
  };
  static constexpr int kParameters = 6;

  FASTRNN_FN void list_parameters(const Weights<Real>& grads, Parameter (&all)[kParameters]) const {
    const Index gates = G * z_.H;
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
  FASTRNN_FN Weights<Real> in_vector(const Weights<Real>& grads, Real* at) const {
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

  // How a sum over rows begins and ends.
  struct Ends {
    bool resumes;  // from what is open
    bool closes;   // else it stays open
    bool adds;     // closing, to the chunks before

    FASTRNN_FN const Real* from(const Real* open) const { return resumes ? open : nullptr; }
    FASTRNN_FN Real* into(Real* total, Real* open) const { return closes ? total : open; }
  };

  // Takes in some rows of a chunk.
  FASTRNN_NOINLINE void weight_gradients(const Thread& me, const Share& rows, Sums<Real>& sums,
                                         bool closes) const {
    const Ends ends{sums.open_rows > 0, closes, closes && sums.rows > 0};
    const Weights<Real>&d = sums.grads, open = in_vector(d, sums.open);
    for (int g = 0; g < G; ++g) {
      const Index from = Cell::input_block(g) * z_.H, into = g * z_.H;
      const Index hidden = (Cell::kHiddenFirst + g) * z_.H;
      const bool past_reset = Cell::kResetBefore && g == G - 1;
      const Right of_x{right_x_, d.ih + into * z_.I, open.ih + into * z_.I};
      const Right of_h{past_reset ? right_extra_ : right_h_, d.hh + into * z_.P,
                       open.hh + into * z_.P};
      if (from == hidden) {
        outer(me, rows, from, z_.H, ends, of_x, of_h);
      } else {
        outer(me, rows, from, z_.H, ends, of_x);
        outer(me, rows, hidden, z_.H, ends, of_h);
      }
      if (d.b_ih) column_sums(me, rows, from, nullptr, ends, d.b_ih + into, open.b_ih + into);
      if (d.b_hh) column_sums(me, rows, hidden, nullptr, ends, d.b_hh + into, open.b_hh + into);
    }
    if (z_.projected) outer(me, rows, extra_, z_.P, ends, Right{right_extra_, d.hr, open.hr});
    if constexpr (Cell::kPeephole) {
      const Index i = 0, f = z_.H, o = 2 * z_.H;
      column_sums(me, rows, 0, me.c_prev, ends, d.peephole + i, open.peephole + i);
      column_sums(me, rows, z_.H, me.c_prev, ends, d.peephole + f, open.peephole + f);
      column_sums(me, rows, 3 * z_.H, me.c, ends, d.peephole + o, open.peephole + o);
    }
    sums.open_rows += rows.end - rows.begin;
    if (closes) sums.rows += sums.open_rows, sums.open_rows = 0;
  }

  struct Right {
    const Chunk& chunk;
    Real *total, *open;
  };

  // [m][n]: the sum over rows of delta[row][from + m] * right[row][n], for each right.
  template <class... Rights>
  FASTRNN_FN void outer(const Thread& me, const Share& rows, Index from, Index M, const Ends& ends,
                        const Rights&... rights) const {
    using Stage = ColumnStage<V>;
    const Halves how = call_.split.how.chunk;
    const Index group = how.tiles() ? 2 * kTileRows : V::tile_rows(Stage::kVectors);
    const Share share(M, me.place.index, plan_.threads, group);
    const Real* columns = delta_ + rows.begin * ld_ + from + share.begin;
    const Operand<V, Stage> operands[] = {
        {Stage{columns, ld_, ends.from(rights.open + share.begin * rights.chunk.N),
               ends.into(rights.total, rights.open) + share.begin * rights.chunk.N, rights.chunk.N,
               ends.adds},
         rights.chunk.panels(), Share(rights.chunk.panels().count(), 0, 1), rights.chunk.packed,
         rights.chunk.split}...};
    run_products(operands, sizeof...(rights), share.end - share.begin, how, me.products.scratch,
                 rows.end - rows.begin);
  }

  // [i]: the sum over rows of delta[row][from + i] (* factor[row][i])
  FASTRNN_FN void column_sums(const Thread& me, const Share& rows, Index from,
                              const Real* const* factor, const Ends& ends, Real* total,
                              Real* open) const {
    const Share units(z_.H, me.place.index, plan_.threads, V::kLanes);
    Real* out = ends.into(total, open);
    for (Index i = units.begin; i < units.end; i += V::kLanes) {
      const Index left = units.end - i;
      V sum = ends.resumes ? V::load(open + i, left) : V::broadcast(0);
      for (Index k = rows.begin; k < rows.end; ++k) {
        const V d = V::load(delta_ + k * ld_ + from + i, left);
        sum = factor ? fma(d, V::load(factor[k] + i, left), sum) : sum + d;
      }
      (ends.adds ? V::load(out + i, left) + sum : sum).store(out + i, left);
    }
  }

  // A thread's share of adding the sum of chunks to those before, whose roundings are kept (Knuth's TwoSum).
  // The last one leaves the sum of all.
  FASTRNN_NOINLINE void settle(const Thread& me, Sums<Real>& sums, bool last) const {
    const Weights<Real>& d = sums.grads;
    const Weights<Real> settled = in_vector(d, sums.settled), left = in_vector(d, sums.left);
    Parameter all[kParameters];
    list_parameters(d, all);
    for (const Parameter& each : all) {
      Real *chunks = d.*each.member, *high = settled.*each.member;
      Real* low = left.*each.member;
      const Share share(each.size, me.place.index, plan_.threads, V::kLanes);
      for (Index i = share.begin; i < share.end; i += V::kLanes) {
        const Index n = share.end - i;
        const V a = V::load(chunks + i, n);
        if (!sums.any_settled) {
          a.store(high + i, n);
          V::broadcast(0).store(low + i, n);
          continue;
        }
        const V b = V::load(high + i, n), sum = a + b, of_a = sum - b;
        const V rest = V::load(low + i, n) + ((a - of_a) + (b - (sum - of_a)));
        if (last) {
          // beside what is not finite, nothing is left
          const V finite = V::broadcast(1) + (sum - sum);
          (sum + where_positive(finite, rest)).store(chunks + i, n);
        } else {
          sum.store(high + i, n);
          rest.store(low + i, n);
        }
      }
    }
    sums.rows = 0;
    sums.any_settled = true;
  }

  FASTRNN_NOINLINE void input_gradients(const Thread& me) const {
    const Share share(me.own, me.place.rank, me.place.ranks, V::tile_rows(RowStage<V>::kVectors));
    const RowStage<V> stage{me.delta + share.begin, me.dx + share.begin, z_.I, false};
    me.products.run(stage, weights_.input, Share(weights_.input.panels.count(), 0, 1),
                    share.end - share.begin);
  }

  template <class Stage>
  FASTRNN_FN static void product(const Thread& me, const Stage& stage, const Matrix<V>& matrix,
                                 Index rows, bool few) {
    me.products.run(stage, matrix, me.place.panels(matrix.panels.count()), rows, false, few);
  }

  BackwardCall<Real> call_;
  Sizes z_;
  Plan plan_;
  BackwardWeights<V, Cell> weights_;
  Barrier barrier_, step_barrier_;
  Interrupt interrupt_;
  Index chunk_;       // rows, if a step has no more
  Index extra_, ld_;  // a row of delta: where what follows the blocks begins; its length
  Real *zero_, *delta_;
  Real* d_out_;  // (B, H) gradient of the cell's output, before a projection
  Chunk right_x_, right_h_, right_extra_;
  Thread* threads_;
  Index work_size_;
};
