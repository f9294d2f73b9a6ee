// Sums in an order that does not depend on how many blocks run or when.

// out[p][j] = seed[j] + sum over the p-th group of rows i of a[i][j] (* factor[i][j]), over rising i,
// with a sum of the type Sum. A block's threads have a column each and its y index is p.
template <class Sum>
FASTRNN_FN void add_rows(Index rows, Index columns, Index group, const Real* a, Index stride,
                         const Real* factor, Index factor_stride, const Real* seed, Real* out) {
  const Index j = Index(blockIdx.x) * blockDim.x + threadIdx.x, p = blockIdx.y;
  if (j >= columns) return;
  const Index begin = p * group, end = begin + group < rows ? begin + group : rows;
  Sum sum = seed ? Sum(seed[j]) : Sum(0);
  for (Index i = begin; i < end; ++i) {
    const Sum value = Sum(a[i * stride + j]);
    sum = factor ? fused(value, Sum(factor[i * factor_stride + j]), sum) : sum + value;
  }
  out[p * columns + j] = Real(sum);
}

// In double, rounded once. Called a second time on what it wrote, it adds the groups up: the error is
// that of one rounding of each group, however many rows there are.
extern "C" __global__ void column_sums(Index rows, Index columns,
                                       Index group,  // group: rows of one sum
                                       const Real* a,
                                       Index stride,  // (rows, columns), elements from row to row
                                       const Real* factor, Index factor_stride,  // like a, or null
                                       const Real* seed,  // (columns,) or null: from 0
                                       Real* out) {       // (rows / group rounded up, columns)
  add_rows<double>(rows, columns, group, a, stride, factor, factor_stride, seed, out);
}

// In one chain of operations, which goes on where a call before has left it.
extern "C" __global__ void column_chains(Index rows, Index columns, Index group, const Real* a,
                                         Index stride, const Real* factor, Index factor_stride,
                                         const Real* seed, Real* out) {
  add_rows<Real>(rows, columns, group, a, stride, factor, factor_stride, seed, out);
}

// A product in which each result is one chain of fused multiply-adds over rising k, whatever the
// sizes around it: out[m][n] = (out[m][n] or 0) + sum over k of a[m][k] * b[k][n]. From kChainTerms on
// it is made of such chains, which are added together with what the roundings left (Knuth's TwoSum).
// A block of 16 x 16 threads has a tile of as many results, tiles in rows; strides are in elements.
extern "C" __global__ void chain_product(Index M, Index N, Index K, const Real* a, Index a_row,
                                         Index a_column, const Real* b, Index b_row, Index b_column,
                                         Real* out, Index out_row, Index accumulate) {
  constexpr int kTile = 16, kChainTerms = 4096;
  Real* a_tile = shared_memory<Real>();         // [m][k], rows padded: no two in one bank
  Real* b_tile = a_tile + kTile * (kTile + 1);  // [k][n]
  const int i = threadIdx.x / kTile, j = threadIdx.x % kTile;
  const Index across = (N + kTile - 1) / kTile, tile = blockIdx.x;
  const Index m = tile / across * kTile + i, n = tile % across * kTile + j;
  const bool inside = m < M && n < N;
  Real sum = inside && accumulate ? out[m * out_row + n] : Real(0);
  Real total = 0, left = 0;
  const auto settle = [&] {
    const Real both = total + sum, of_sum = both - total;
    left += (sum - of_sum) + (total - (both - of_sum));
    total = both, sum = 0;
  };
  for (Index first = 0; first < K; first += kTile) {
    if (first > 0 && first % kChainTerms == 0) settle();
    a_tile[i * (kTile + 1) + j] =
        m < M && first + j < K ? a[m * a_row + (first + j) * a_column] : Real(0);
    b_tile[i * (kTile + 1) + j] =
        n < N && first + i < K ? b[(first + i) * b_row + n * b_column] : Real(0);
    __syncthreads();
    const int depth = K - first < kTile ? static_cast<int>(K - first) : kTile;
    for (int k = 0; k < depth; ++k)
      sum = fused(a_tile[i * (kTile + 1) + k], b_tile[k * (kTile + 1) + j], sum);
    __syncthreads();
  }
  if (K > kChainTerms) {
    settle();
    sum = total - total == 0 ? total + left : total;  // beside what is not finite, nothing is left
  }
  if (inside) out[m * out_row + n] = sum;
}
