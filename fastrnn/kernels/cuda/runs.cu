// Gradients of a table of vectors: sums of rows by index.

// out[r][j] = sum of a[order[i]][j] for starts[r] <= i < starts[r+1], a chain over rising i. A thread
// has one result.
extern "C" __global__ void sum_runs(Index n, Index width,
                                    const Index* starts,  // (n+1,)
                                    const Index* order,   // rows of a, those of one r together
                                    const Real* a,        // (., width)
                                    Real* out) {          // (n, width)
  const Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n * width) return;
  const Index row = i / width, j = i % width;
  Real sum = 0;
  for (Index k = starts[row]; k < starts[row + 1]; ++k) sum += a[order[k] * width + j];
  out[i] = sum;
}
