// All steps of a pass forward; see persistent.h.

extern "C" __global__ void __launch_bounds__(kThreads, 1) FASTRNN_CLUSTERED persistent_forward(
    Index T, Index B, Index H,
    Index units,  // of a block
    Index each,   // rows of a group
    Index reverse, Index begin,
    Index end,                    // steps begin .. end of the pass, in the order they run
    const Index* starts,          // (T+1,)
    const unsigned char* resets,  // (N,) rows that begin anew, or null
    const Real* recurrent,        // (G*H, H)
    const Real* input,            // (., G*H) W x, from packed row input_start on
    Index input_start, const Real* bias, const Real* split_bias, const Real* peephole,
    Real* h,             // (B, H) in place
    Real* c,             // (B, H) in place
    Real* y,             // (N, H)
    Real* all_c,         // (N, H) or null
    Real* saved,         // (N, S*H) or null
    unsigned* shared) {  // slots of h: the first as it is at first, then those of the steps
  constexpr int G = Cell::kGates, kInitial = 0, kSteps = 1, kSlots = 3;
  const Index first_unit = blockIdx.x * units;
  const int owned = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const auto weight = [=](int row, int k) {  // the gates of a unit follow each other
    return recurrent[(row % G * H + first_unit + row / G) * H + k];
  };
  Product<Path> product(H);
  product.load_weights(owned * G, weight);
  Exchange exchange(shared, B, each, kSlots, product.padded(), product.end());
  const int i0 = static_cast<int>(threadIdx.x);
  const GroupRows all(each, B);
  for (int i = i0; i < all.many * owned; i += blockDim.x) {
    const Index m = all.first + i / owned, unit = first_unit + i % owned;
    Exchange::publish(exchange.row(kInitial, m) + unit, Path::word(h[m * H + unit]));
  }
  exchange.arrive();
  for (Index s = begin; s < end; ++s) {
    const Index t = reverse ? T - 1 - s : s, before = reverse ? t + 1 : t - 1;
    const Index start = starts[t];
    const GroupRows rows(each, starts[t + 1] - start);
    // rows that this launch ran at the step before; the others begin
    const Index ran = s > begin ? starts[before + 1] - starts[before] : 0;
    const Forward step{H,
                       input + (start - input_start) * G * H,
                       bias,
                       split_bias,
                       peephole,
                       c,
                       all_c ? all_c + start * H : nullptr,
                       saved ? saved + start * Cell::kSaved * H : nullptr};
    // Thread i has row i / owned, unit i % owned of each kRowsAtOnce rows, and those blockDim.x on.
    const auto prepare = [&](int i, int first) {
      const Index m = rows.first + first + i / owned, unit = first_unit + i % owned;
      const bool begins = resets && resets[start + m];
      if (Cell::kHasC && begins) c[m * H + unit] = 0;
      const bool previous = Cell::kNeedsHPrev && !begins;
      return step.begin(m, unit, previous ? h[m * H + unit] : Real(0));
    };
    const auto store = [&](const Unit<V>& u, int i, int first) {
      const Index m = rows.first + first + i / owned, unit = first_unit + i % owned;
      step.store(u, m, unit);
      y[(start + m) * H + unit] = u.h.v;
      h[m * H + unit] = u.h.v;
    };
    const auto here = [&](Index m) { return exchange.row(kSteps + Exchange::slot(s - begin), m); };
    // The first of a thread is loaded while others still are at the step before, and stored when
    // the others need not wait for it.
    Unit<V> mine;
    const bool works = i0 < (rows.many < kRowsAtOnce ? rows.many : kRowsAtOnce) * owned;
    if (works) mine = prepare(i0, 0);
    exchange.wait();
    for (int first = 0; first < rows.many; first += kRowsAtOnce) {
      if (first > 0) __syncthreads();  // the sums before have been read
      const int many = rows.many - first < kRowsAtOnce ? rows.many - first : kRowsAtOnce;
      const auto h_before = [&](int m_) -> const typename Path::Word* {
        const Index m = rows.first + first + (m_ < many ? m_ : many - 1);
        if (resets && resets[start + m]) return exchange.zeros();
        return exchange.row(m < ran ? kSteps + Exchange::slot(s - begin - 1) : kInitial, m);
      };
      product.multiply(exchange, h_before);
      for (int i = i0; i < many * owned; i += blockDim.x) {
        const int row = i / owned, u = i % owned;
        const bool is_first = first == 0 && i == i0;
        Unit<V> now = is_first ? mine : prepare(i, first);
        Real sums[G];
        product.sum(row, u * G, h_before(row), weight, sums);
        step.finish(now, first_unit + u, sums);
        if (s + 1 < end)
          Exchange::publish(here(rows.first + first + row) + first_unit + u, Path::word(now.h.v));
        if (is_first)
          mine = now;
        else
          store(now, i, first);
      }
    }
    if (s + 1 < end) exchange.arrive();
    if (works) store(mine, i0, 0);
  }
}
