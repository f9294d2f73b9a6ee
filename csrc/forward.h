// Forward over a pass: knows time, batch and threads, but no cell.

// Packed weights of the forward direction, one buffer.
template <class V, class Cell>
struct ForwardWeights {
  using Real = typename V::Real;
  using Parameters = Weights<const Real>;
  static constexpr int G = Cell::kGates;
  // gates of the first recurrent product; the rest has one of its own
  static constexpr int kFirst = Cell::kResetBefore ? G - 1 : G;

  Layout<V> layout;
  Index bias;        // (G*H,) what the input projection starts from
  Index split_bias;  // (H,) kSplitLast: b_hh of the last gate
  Index peephole;    // (3*H,)
  Matrix<V> input, recurrent, reset, project;

  FASTRNN_FN ForwardWeights(const Sizes& z, const Ways& how, WeightType type = WeightType::real)
      : layout{type},
        bias(layout.take_vector(G * z.H)),
        split_bias(layout.take_vector(Cell::kSplitLast ? z.H : 0)),
        peephole(layout.take_vector(Cell::kPeephole ? 3 * z.H : 0)),
        input(layout.take({z.H, G}, z.I, how.chunk).of(&Parameters::ih)),
        recurrent(layout.take({z.H, kFirst}, z.P, how.step).of(&Parameters::hh)),
        reset(layout.take({z.H, 1}, z.P, how.step, Cell::kResetBefore).of(&Parameters::hh, kFirst)),
        project(layout.take({z.P, 1}, z.H, how.step, z.projected).of(&Parameters::hr)) {}

  // rank's share of the packing
  FASTRNN_NOINLINE void pack(const Parameters& w, int rank, int ranks, Real* out) const {
    if (rank == 0) pack_vectors(w, out);
    each(Packing{*this, w, rank, ranks, out});
    end_streams();
  }

  template <class Work>
  FASTRNN_FN void each(const Work& work) const {
    work(input), work(recurrent), work(reset), work(project);
  }

  // Numbers of memory for what is no matrix.
  FASTRNN_FN Index vectors_size() const { return input.at; }

  FASTRNN_NOINLINE void pack_vectors(const Parameters& w, Real* out) const {
    const Index H = input.panels.N, together = Cell::kSplitLast ? (G - 1) * H : G * H;
    for (Index i = 0; i < G * H; ++i)
      out[bias + i] = (w.b_ih ? w.b_ih[i] : 0) + (w.b_hh && i < together ? w.b_hh[i] : 0);
    for (Index i = together; i < G * H; ++i)
      out[split_bias + i - together] = w.b_hh ? w.b_hh[i] : 0;
    if constexpr (Cell::kPeephole) {
      for (Index i = 0; i < 3 * H; ++i) out[peephole + i] = w.peephole[i];
    }
  }

 private:
  struct Packing {
    const ForwardWeights& all;
    const Parameters& w;
    int rank, ranks;
    Real* out;
    FASTRNN_FN void operator()(const Matrix<V>& m) const {
      if (m.present)
        m.panels.pack(w.*m.parameter, m.first_gate, m.K, rank, ranks,
                      all.layout.past_caches(kPastCaches), out + m.at);
    }
  };
};

// Parts of both matrices that stay in the L2 cache, beside a step's rows.
constexpr Index kTogetherBytes = 1 << 19;

template <class V, class Cell>
class ForwardPass {
  using Real = typename V::Real;
  static constexpr int G = Cell::kGates;

 public:
  // Lays out the buffers in `work`; with no memory it only measures.
  FASTRNN_NOINLINE ForwardPass(const ForwardCall<Real>& call, Plan plan, void* work)
      : call_(call),
        z_(call.sizes),
        plan_(plan),
        weights_(call.sizes, call.split.how, call.type),
        together_(makes_together()),
        barrier_(plan.threads),
        interrupt_(call.listener, plan.step(call.sizes.T)) {
    Arena arena(work);
    zero_ = arena.take<Real>(larger(z_.H, z_.P));
    vectors_ = unpacked() ? arena.take<Real>(weights_.vectors_size()) : nullptr;
    out_ = arena.take<Real>(z_.projected ? z_.B * z_.H : 0);
    reset_ = arena.take<Real>(Cell::kResetBefore ? z_.B * z_.H : 0);
    threads_ = arena.take<Thread>(plan_.threads);
    Real* gates = plan_.by_rows ? nullptr : arena.take<Real>(chunk_rows(z_.T, z_.B) * G * z_.H);
    for (int i = 0; i < plan_.threads; ++i) {
      Thread thread{Place(z_, call_.rows, plan_, i), nullptr, nullptr, {}, {}};
      const Index rows = thread.place.size();
      thread.products = {call_.packed,
                         call_.type,
                         call_.parameters,
                         call_.split.data,
                         arena.take<Half>(scratch_size(rows)),
                         arena.take<Real>(wide_size())};
      thread.x = arena.take<const Real*>(chunk_rows(z_.T, rows));
      thread.step.h_prev = arena.take<const Real*>(rows);
      thread.step.c_prev = arena.take<const Real*>(rows);
      thread.step.c = arena.take<Real*>(rows);
      thread.step.h = arena.take<Real*>(rows);
      thread.step.saved = arena.take<Real*>(rows);
      thread.step.reset_h = arena.take<Real*>(rows);
      thread.gates = plan_.by_rows ? arena.take<Real>(chunk_rows(z_.T, rows) * G * z_.H) : gates;
      if (threads_) threads_[i] = thread;
    }
    work_size_ = arena.size();
  }

  FASTRNN_FN Index work_size() const { return work_size_; }

  FASTRNN_NOINLINE void run(const Lease& lease) {
    for (Index i = 0; i < larger(z_.H, z_.P); ++i) zero_[i] = 0;
    if (unpacked()) weights_.pack_vectors(call_.parameters, vectors_);
    lease.run(plan_.threads, enter, this);
  }

 private:
  struct Thread {
    Place place;
    const Real** x;  // rows of a chunk
    Real* gates;     // projected input of a chunk
    StepRows<Real> step;
    Products<V> products;
  };

  // Whether a step makes the input's product and the recurrent one as one, on the tile unit in one part:
  // then no gates are written and read back, and sums leave the tiles once. The input's weights, too, are
  // read at each step then, from the L2 cache; enough rows must share them.
  FASTRNN_FN bool makes_together() const {
    if (!kTiles<V> || Cell::kSplitLast || Cell::kResetBefore) return false;
    const Ways& how = call_.split.how;
    return how.step.tiles() && how.chunk.tiles() && how.step.parts == 1 && how.chunk.parts == 1 &&
           z_.B >= 2 * kTileRows &&
           weights_.layout.split_size * static_cast<Index>(sizeof(Half)) <= kTogetherBytes;
  }

  FASTRNN_FN bool unpacked() const { return call_.type == WeightType::unpacked; }

  // The parameters that are no matrix, as `pack_vectors` leaves them.
  FASTRNN_FN const Real* vectors() const { return unpacked() ? vectors_ : call_.packed; }

  FASTRNN_FN Index scratch_size(Index rows) const {
    using P = Products<V>;
    if (together_) {
      const Index depth = tile_depth(z_.I) + tile_depth(z_.P);
      return larger(split_scratch(rows, depth * kTileDepth, 1),
                    P::scratch_size(weights_.project, rows));
    }
    return larger(larger(P::scratch_size(weights_.input, chunk_rows(z_.T, rows)),
                         P::scratch_size(weights_.recurrent, rows)),
                  P::scratch_size(weights_.project, rows));
  }

  FASTRNN_FN Index wide_size() const {
    using P = Products<V>;
    if (call_.type == WeightType::real) return 0;
    return larger(larger(P::wide_size(weights_.input), P::wide_size(weights_.recurrent)),
                  larger(P::wide_size(weights_.reset), P::wide_size(weights_.project)));
  }

  static void enter(void* self, int i) {
    auto* pass = static_cast<ForwardPass*>(self);
    pass->run(pass->threads_[i]);
  }

  FASTRNN_FN void meet(const Thread& me) {
    if (me.place.ranks > 1) barrier_.wait();
  }

  FASTRNN_FN Index time(Index s) const { return call_.rows.reverse ? z_.T - 1 - s : s; }

  FASTRNN_NOINLINE void run(Thread& me) {
    if (!call_.gates && call_.c0 != call_.cn && me.place.rank == 0)
      copy_rows(me.place, call_.c0, call_.cn);
    for (Index s = 0; s < z_.T;) {
      Index in_chunk = 0;
      const Index begin = s, end = list_inputs(me, s, &in_chunk);
      if (!together_) project(me, me.x, in_chunk, false);
      const Real** x = me.x;
      me.step.gates = me.gates;
      for (; s < end; ++s) {
        const Index rows = me.place.active(call_.rows.count(time(s), z_.B));
        if (me.place.index == 0) interrupt_.ask(s, !plan_.by_rows);
        step(me, time(s), x, rows, (s & 1) != call_.down);
        if (interrupt_.ends(s)) return;
        x += rows;
        if (!together_) me.step.gates += rows * G * z_.H;
      }
      if (call_.kept_y) keep_y(me, begin, end);
    }
    if (me.place.rank == 0) final_state(me.place);
  }

  // Lists the input's rows of the steps from s on that make a chunk; returns the step after them.
  FASTRNN_FN Index list_inputs(Thread& me, Index s, Index* listed) const {
    Index rows = 0;
    for (; s < z_.T; ++s) {
      const Index t = time(s), n = me.place.active(call_.rows.count(t, z_.B));
      if (rows > 0 && rows + n > kChunkRows) break;
      for (Index m = 0; m < n; ++m) me.x[rows + m] = call_.x.at(t, call_.rows.row(me.place.m0 + m));
      rows += n;
    }
    *listed = rows;
    return s;
  }

  FASTRNN_FN void project(Thread& me, const Real* const* x, Index rows, bool few) {
    const ProjectStage<V, G> stage{x, vectors() + weights_.bias, me.gates, z_.H};
    product(me, stage, weights_.input, rows, call_.down, few);
    meet(me);
  }

  FASTRNN_FN void step(Thread& me, Index t, const Real* const* x, Index rows, bool down) {
    const History<Real> h_steps{
        {call_.y.data, call_.y.stride_t, call_.y.stride_b}, call_.h0, zero_, z_.P};
    const History<Real> c_steps{{call_.c, z_.B * z_.H, z_.H}, call_.c0, zero_, z_.H};
    StepRows<Real>& at = me.step;
    for (Index m = 0; m < rows; ++m) {
      const Index sorted = me.place.m0 + m, b = call_.rows.row(sorted);
      at.h_prev[m] = h_steps.before(z_, call_.rows, t, sorted);
      at.h[m] = z_.projected ? out_ + sorted * z_.H : call_.y.at(t, b);
      if constexpr (Cell::kHasC) {
        if (call_.gates) {
          at.c_prev[m] = c_steps.before(z_, call_.rows, t, sorted);
          at.c[m] = call_.c + (t * z_.B + b) * z_.H;
        } else {
          at.c[m] = call_.cn + b * z_.H;
          const bool cut = call_.rows.cut && call_.rows.cut[t * z_.B + b];
          at.c_prev[m] = cut ? zero_ : at.c[m];
        }
      }
      if (call_.gates) at.saved[m] = call_.gates + (t * z_.B + b) * Cell::kSaved * z_.H;
      if constexpr (Cell::kResetBefore) at.reset_h[m] = reset_ + sorted * z_.H;
    }
    const Real* split_bias = vectors() + weights_.split_bias;
    const Real* peephole = vectors() + weights_.peephole;
    constexpr int kFirst = ForwardWeights<V, Cell>::kFirst;
    const bool few = call_.rows.count(t, z_.B) < call_.split.how.step.least;
    at.seeds = at.gates, at.seeds_stride = G * z_.H;
    const CellStage<V, Cell, 0, kFirst> first{at, split_bias, peephole, z_.H,
                                              call_.gates != nullptr};
    if (together_ && !few) {
      at.seeds = vectors() + weights_.bias, at.seeds_stride = 0;
      me.products.run_with_input(first, weights_.recurrent, weights_.input, x,
                                 me.place.panels(weights_.recurrent.panels.count()), rows, down);
    } else {
      if (together_) project(me, x, rows, true);
      product(me, first, weights_.recurrent, rows, down, few);
    }
    meet(me);
    if constexpr (Cell::kResetBefore) {
      const CellStage<V, Cell, kFirst, 1> last{at, split_bias, peephole, z_.H,
                                               call_.gates != nullptr};
      product(me, last, weights_.reset, rows, down, few);
      meet(me);
    }
    if (z_.projected) {
      // `h` now holds the rows that go in, `saved` is free to hold those that come out
      for (Index m = 0; m < rows; ++m) {
        at.h_prev[m] = at.h[m];
        at.saved[m] = call_.y.at(t, call_.rows.row(me.place.m0 + m));
      }
      const RowStage<V> stage{at.h_prev, at.saved, z_.P, false};
      product(me, stage, weights_.project, rows, down, few);
      meet(me);
    }
  }

  // Copies a thread's share of what some steps left in y, while it is near.
  FASTRNN_NOINLINE void keep_y(const Thread& me, Index begin, Index end) const {
    for (Index s = begin; s < end; ++s) {
      const Index t = time(s), rows = me.place.active(call_.rows.count(t, z_.B));
      const Share share(rows, me.place.rank, me.place.ranks);
      for (Index m = me.place.m0 + share.begin; m < me.place.m0 + share.end; ++m) {
        const Index b = call_.rows.row(m);
        const Real* from = call_.y.at(t, b);
        Real* to = call_.kept_y + (t * z_.B + b) * z_.P;
        for (Index i = 0; i < z_.P; i += V::kLanes)
          V::load(from + i, z_.P - i).store(to + i, z_.P - i);
      }
    }
  }

  template <class Stage>
  FASTRNN_FN static void product(const Thread& me, const Stage& stage, const Matrix<V>& matrix,
                                 Index rows, bool down, bool few) {
    me.products.run(stage, matrix, me.place.panels(matrix.panels.count()), rows, down, few);
  }

  FASTRNN_FN void copy_rows(const Place& own, const Real* from, Real* to) const {
    if constexpr (Cell::kHasC) {
      for (Index m = own.m0; m < own.m1; ++m) {
        const Index b = call_.rows.row(m);
        for (Index i = 0; i < z_.H; ++i) to[b * z_.H + i] = from[b * z_.H + i];
      }
    }
  }

  // hn and, when c was kept step by step, cn from each row's last step
  FASTRNN_FN void final_state(const Place& own) const {
    for (Index m = own.m0; m < own.m1; ++m) {
      const Index b = call_.rows.row(m), length = row_length(call_.rows, z_.T, m);
      const Index t = call_.rows.reverse ? 0 : length - 1;
      const Real* h = length ? call_.y.at(t, b) : call_.h0 + b * z_.P;
      for (Index i = 0; i < z_.P; ++i) call_.hn[b * z_.P + i] = h[i];
      if (Cell::kHasC && call_.gates) {
        const Real* c = length ? call_.c + (t * z_.B + b) * z_.H : call_.c0 + b * z_.H;
        for (Index i = 0; i < z_.H; ++i) call_.cn[b * z_.H + i] = c[i];
      }
    }
  }

  ForwardCall<Real> call_;
  Sizes z_;
  Plan plan_;
  ForwardWeights<V, Cell> weights_;
  bool together_;
  Barrier barrier_;
  Interrupt interrupt_;
  Real* zero_;
  Real* vectors_;  // unpacked: the parameters that are no matrix
  Real* out_;      // (B, H) the cell's output, before a projection
  Real* reset_;    // (B, H) r * h
  Thread* threads_;
  Index work_size_;
};
