// All steps of a pass forward; see persistent.h.

extern "C" __global__ void __launch_bounds__(kThreads, 1)
    persistent_forward(Index T, Index H,
                       Index units,  // of a block
                       Index each,   // rows of a group
                       Index reverse, Index begin,
                       Index end,  // steps begin .. end of the pass, in the order they run
                       const Index* starts,       // (T+1,)
                       const unsigned char* cut,  // (N,) rows that begin anew, or null
                       const Real* recurrent,     // (G*H, H)
                       const Real* input,         // (., G*H) W x, from packed row input_start on
                       Index input_start, const Real* bias, const Real* split_bias,
                       const Real* peephole,
                       const Real* h0,  // (B, H)
                       Real* h,         // (B, H) before the first step; after the last one
                       Real* c,         // (B, H) in place
                       Real* y,         // (N, H)
                       Real* all_c,     // (N, H) or null
                       Real* saved,     // (N, S*H) or null
                       unsigned* meetings) {
  constexpr int G = Cell::kGates;
  const Index first_unit = blockIdx.x * units;
  const int owned = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const auto weight = [=](int row, int k) {  // the gates of a unit follow each other
    return recurrent[(row % G * H + first_unit + row / G) * H + k];
  };
  Product<Path> product(H);
  product.keep(owned * G, weight);
  Meeting meeting(meetings);
  bool well = true;
  for (Index s = begin; s < end; ++s) {
    const Index t = reverse ? T - 1 - s : s, before = reverse ? t + 1 : t - 1;
    const Index start = starts[t];
    const Rows rows(each, starts[t + 1] - start);
    const Index start_before = s ? starts[before] : 0;
    const Index ran = s ? starts[before + 1] - start_before : 0;  // the other rows begin here
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
      const bool begins = cut && cut[start + m];
      if (Cell::kHasC && begins) c[m * H + unit] = 0;
      const bool previous = Cell::kNeedsHPrev && !begins;
      return step.begin(m, unit, previous ? h[m * H + unit] : Real(0));
    };
    const int i0 = static_cast<int>(threadIdx.x);
    // on its way while others still are at the step before
    Unit<V> ready;
    const int many0 = rows.many < kRowsAtOnce ? rows.many : kRowsAtOnce;
    if (i0 < many0 * owned) ready = prepare(i0, 0);
    if (s > begin && well) well = meeting.wait();
    for (int first = 0; first < rows.many; first += kRowsAtOnce) {
      const int many = rows.many - first < kRowsAtOnce ? rows.many - first : kRowsAtOnce;
      const auto h_before = [=](int m_) -> const Real* {
        const Index m = rows.first + first + m_;
        if (m_ >= many || (cut && cut[start + m])) return nullptr;
        return m < ran ? y + (start_before + m) * H : h0 + m * H;
      };
      product.multiply(h_before);
      for (int i = i0; i < many * owned; i += blockDim.x) {
        const int row = i / owned, u = i % owned;
        const Index m = rows.first + first + row, unit = first_unit + u;
        Unit<V> now = first == 0 && i == i0 ? ready : prepare(i, first);
        Real sums[G];
        FASTRNN_UNROLL
        for (int g = 0; g < G; ++g)
          sums[g] = product.sum(row, u * G + g, [&] {
            const Real* values = h_before(row);
            Real total = 0;
            for (int k = 0; values && k < H; ++k)
              total = fused(load_fresh(values + k), weight(u * G + g, k), total);
            return total;
          });
        Real after = step.finish(now, m, unit, sums);
        if (!well) after = not_a_number(Real());
        y[(start + m) * H + unit] = after;
        h[m * H + unit] = after;
      }
      __syncthreads();
    }
  }
}
