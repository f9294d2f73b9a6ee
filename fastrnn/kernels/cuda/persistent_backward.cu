// All steps of a pass backward; see persistent.h.

extern "C" __global__ void __launch_bounds__(kThreads, 1) FASTRNN_CLUSTERED
    persistent_backward(Index T, Index B, Index H,
                        Index units,  // of a block
                        Index each,   // rows of a group
                        Index reverse, Index begin,
                        Index end,  // steps end - 1 .. begin of the pass, of the order forward
                        const Index* starts, const unsigned char* cut,
                        const Real* recurrent,  // (G*H, H)
                        const Real* saved, const Real* y, const Real* h_before,
                        const Real* c_before, const Real* c, const Real* peephole,
                        const Real* dy,      // (N, H) or null
                        Real* dh,            // (B, H) in place
                        Real* dc,            // (B, H) in place
                        Real* delta,         // (N, G*H)
                        Real* hidden,        // (N, G*H), may be delta
                        unsigned* shared) {  // slots of `hidden`, of steps
  constexpr int G = Cell::kGates, kSlots = 2;
  const Index first_unit = blockIdx.x * units, GH = G * H;
  const int owned = static_cast<int>(H - first_unit < units ? H - first_unit : units);
  const auto weight = [=](int row, Index k) { return recurrent[k * H + first_unit + row]; };
  Product<Path> product(GH);
  product.keep(owned, weight);
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
                    delta + start * GH,
                    hidden + start * GH,
                    nullptr};
  };
  // Thread i has row i / owned, unit i % owned, and those blockDim.x on. Its first is loaded while
  // others still are at the step before, and stored when the others need not wait for it.
  const int i0 = static_cast<int>(threadIdx.x);
  Unit<V> mine;
  const auto prepare = [&](Index t) {
    const Rows rows(each, starts[t + 1] - starts[t]);
    if (i0 < rows.many * owned)
      mine = step_at(starts[t]).begin(rows.first + i0 / owned, first_unit + i0 % owned);
  };
  const auto time = [=](Index s) { return reverse ? T - 1 - s : s; };
  prepare(time(end - 1));
  for (Index s = end - 1; s >= begin; --s) {
    const Index start = starts[time(s)], slot = Exchange::slot(s - begin);
    const Rows rows(each, starts[time(s) + 1] - start);
    const Backward step = step_at(start);
    const auto store = [&](const Unit<V>& u, int i, Real carry) {
      const Index m = rows.first + i / owned, unit = first_unit + i % owned;
      step.store(u, m, unit);
      dh[m * H + unit] = carry;
      if (Cell::kHasC && cut && cut[start + m]) dc[m * H + unit] = 0;
    };
    Real my_carry = 0;
    for (int i = i0; i < rows.many * owned; i += blockDim.x) {
      const Index m = rows.first + i / owned, unit = first_unit + i % owned;
      Real gradient = dh[m * H + unit];
      if (dy) gradient += dy[(start + m) * H + unit];
      if (!exchange.well) gradient = not_a_number(Real());
      Unit<V> now = i == i0 ? mine : step.begin(m, unit);
      const Real carry = step.finish(now, gradient);
      typename Path::Word* words = exchange.row(slot, m);
      FASTRNN_UNROLL
      for (int g = 0; g < G; ++g)
        Exchange::put(words + g * H + unit, Path::word(now.delta[Cell::kHiddenFirst + g].v));
      if (i == i0)
        mine = now, my_carry = carry;
      else
        store(now, i, carry);
    }
    exchange.arrive();
    if (i0 < rows.many * owned) store(mine, i0, my_carry);
    if (s > begin) prepare(time(s - 1));
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
        const bool begins = cut && cut[start + m];
        Real part[1];
        product.sum(row, u, gradients(row), weight, part);
        const Real total = dh[m * H + unit] + part[0];
        dh[m * H + unit] = begins ? Real(0) : exchange.well ? total : not_a_number(Real());
      }
      __syncthreads();
    }
  }
}
