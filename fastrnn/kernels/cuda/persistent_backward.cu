// All steps of a pass backward; see persistent.h.

extern "C" __global__ void __launch_bounds__(kThreads, 1) FASTRNN_CLUSTERED
    persistent_backward(Index T, Index B, Index H,
                        Index units,  // of a block
                        Index each,   // rows of a group
                        Index reverse, Index begin,
                        Index end,  // steps end - 1 .. begin of the pass, of the order forward
                        const Index* starts, const unsigned char* resets,
                        const Real* recurrent,  // (G*H, H)
                        const Real* saved, const Real* y, const Real* h_before,
                        const Real* c_before, const Real* c, const Real* peephole,
                        const Real* dy,      // (N, H) or null
                        Real* dh,            // (B, H) in place
                        Real* dc,            // (B, H) in place
                        Real* dgates,        // (N, G*H)
                        Real* hidden,        // (N, G*H), may be dgates
                        unsigned* shared) {  // slots of `hidden`, of steps
  constexpr int G = Cell::kGates, kSlots = 2;
  const Index first_unit = blockIdx.x * units, GH = G * H;
  const int owned = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const auto weight = [=](int row, Index k) { return recurrent[k * H + first_unit + row]; };
  Product<Path> product(GH);
  product.load_weights(owned, weight);
  Exchange exchange(shared, B, each, kSlots, product.padded(), product.end());
  const auto step_at = [=](Index start) {
    return Backward{H,
                    saved + start * Cell::kSaved * H,
                    y + start * H,
                    h_before + start * H,
                    Cell::kHasC ? c_before + start * H : nullptr,
                    Cell::kHasC ? c + start * H : nullptr,
                    peephole,
                    dc,
                    dgates + start * GH,
                    hidden + start * GH,
                    nullptr};
  };
  // Thread i has row i / owned, unit i % owned, and those blockDim.x on. Its first is loaded while
  // others still are at the step before, and stored when the others need not wait for it.
  const int i0 = static_cast<int>(threadIdx.x);
  Unit<V> mine;
  // What comes to the gradient of its h, a step ahead; dh only if `have_dh`, and from step to step
  // where the thread that adds a row's product is the one that takes it in.
  Real my_dy = 0, my_dh = 0;
  bool have_dh = true;
  // Loads step t, while `running` rows run.
  const auto prepare = [&](Index t, int running) {
    const GroupRows rows(each, starts[t + 1] - starts[t]);
    if (i0 >= rows.many * owned) return;
    const Index m = rows.first + i0 / owned, unit = first_unit + i0 % owned;
    mine = step_at(starts[t]).begin(m, unit);
    if (dy) my_dy = dy[(starts[t] + m) * H + unit];
    if (i0 >= running * owned) my_dh = dh[m * H + unit];
  };
  const auto time = [=](Index s) { return reverse ? T - 1 - s : s; };
  prepare(time(end - 1), 0);
  for (Index s = end - 1; s >= begin; --s) {
    const Index start = starts[time(s)], slot = Exchange::slot(s - begin);
    const GroupRows rows(each, starts[time(s) + 1] - start);
    const int at_once = rows.many < kRowsAtOnce ? rows.many : kRowsAtOnce;
    const bool works = i0 < rows.many * owned, stays = i0 < at_once * owned;
    const Backward step = step_at(start);
    const auto store = [&](const Unit<V>& u, int i, Real dh_direct) {
      const Index m = rows.first + i / owned, unit = first_unit + i % owned;
      step.store(u, m, unit);
      if (i != i0 || !stays) dh[m * H + unit] = dh_direct;
      if (Cell::kHasC && resets && resets[start + m]) dc[m * H + unit] = 0;
    };
    Real my_dh_direct = 0;
    for (int i = i0; i < rows.many * owned; i += blockDim.x) {
      const Index m = rows.first + i / owned, unit = first_unit + i % owned;
      const bool is_first = i == i0;
      Real gradient = is_first && have_dh ? my_dh : dh[m * H + unit];
      if (dy) gradient += is_first ? my_dy : dy[(start + m) * H + unit];
      Unit<V> now = is_first ? mine : step.begin(m, unit);
      const Real dh_direct = step.finish(now, gradient);
      typename Path::Word* words = exchange.row(slot, m);
      FASTRNN_UNROLL
      for (int g = 0; g < G; ++g)
        Exchange::publish(words + g * H + unit,
                          Path::word(now.dgates[Cell::kRecurrentGradOffset + g].v));
      if (is_first)
        mine = now, my_dh_direct = dh_direct;
      else
        store(now, i, dh_direct);
    }
    exchange.arrive();
    if (works) store(mine, i0, my_dh_direct);
    if (s > begin) prepare(time(s - 1), rows.many);
    exchange.wait();
    for (int first = 0; first < rows.many; first += kRowsAtOnce) {
      const int many = rows.many - first < kRowsAtOnce ? rows.many - first : kRowsAtOnce;
      const auto gradients = [&](int m) -> const typename Path::Word* {
        return exchange.row(slot, rows.first + first + (m < many ? m : many - 1));
      };
      product.multiply(exchange, gradients);
      for (int i = i0; i < many * owned; i += blockDim.x) {
        const int row = i / owned, u = i % owned;
        const Index m = rows.first + first + row, unit = first_unit + u;
        const bool is_first = first == 0 && i == i0;
        Real part[1];
        product.sum(row, u, gradients(row), weight, part);
        const Real total = (is_first ? my_dh_direct : dh[m * H + unit]) + part[0];
        const Real before = resets && resets[start + m] ? Real(0) : total;
        dh[m * H + unit] = before;
        if (is_first) my_dh = before;
      }
      __syncthreads();
    }
    have_dh = stays || !works;
  }
}
