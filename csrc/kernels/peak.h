// The processor's peaks, for the benchmarks to compare with: fused multiply-adds that never wait
// for memory, and a sum that does little but read.

// As many independent chains as the register tile has accumulators: what the engine could reach if
// its operands cost nothing. Returns the floating-point operations done; the sum of all chains goes
// to `out`, and each begins elsewhere, or there would be nothing to compute.
template <class V>
double fma_loop(Index rounds, typename V::Real* out) {
  using Real = typename V::Real;
  constexpr int kRows = V::tile_rows(4), kVectors = 4;  // as tile.h's accumulators
  const V factor = V::broadcast(Real(0.5)), more = V::broadcast(Real(0.25));
  V chains[kRows][kVectors];
  FASTRNN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FASTRNN_UNROLL
    for (int n = 0; n < kVectors; ++n) chains[r][n] = V::broadcast(Real(r * kVectors + n));
  }
  for (Index round = 0; round < rounds; ++round) {
    FASTRNN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      FASTRNN_UNROLL
      for (int n = 0; n < kVectors; ++n) chains[r][n] = fma(chains[r][n], factor, more);
    }
  }
  V sum = V::broadcast(Real(0));
  FASTRNN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FASTRNN_UNROLL
    for (int n = 0; n < kVectors; ++n) sum = sum + chains[r][n];
  }
  sum.store(out, 1);
  return 2.0 * V::kLanes * kRows * kVectors * static_cast<double>(rounds);
}

// The sum of x (n,), `repeats` times over; in eight chains, so that loads are the limit.
template <class V>
typename V::Real read_sum(const typename V::Real* x, Index n, Index repeats) {
  using Real = typename V::Real;
  constexpr int kChains = 8;
  constexpr Index kBlock = kChains * V::kLanes;
  V chains[kChains];
  FASTRNN_UNROLL
  for (int i = 0; i < kChains; ++i) chains[i] = V::broadcast(Real(0));
  for (Index repeat = 0; repeat < repeats; ++repeat) {
    Index k = 0;
    for (; k + kBlock <= n; k += kBlock) {
      FASTRNN_UNROLL
      for (int i = 0; i < kChains; ++i) chains[i] = chains[i] + V::load(x + k + i * V::kLanes);
    }
    for (; k < n; k += V::kLanes) chains[0] = chains[0] + V::load(x + k, n - k);
  }
  FASTRNN_UNROLL
  for (int i = 1; i < kChains; ++i) chains[0] = chains[0] + chains[i];
  Real lanes[V::kLanes], sum = 0;
  chains[0].store(lanes);
  for (Real lane : lanes) sum += lane;
  return sum;
}
