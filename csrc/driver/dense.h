// Products of matrices as NumPy holds them, for layers without a state (Linear, Conv1d).
#pragma once

#include "kernels/table.h"

namespace fastrnn {

// C (M, N) = A (M, K) B (K, N), or plus a bias. A and B may lie transposed, but not both.
template <class Real>
struct DenseProduct {
  Index M, N, K;
  const Real* a;  // a row every a_stride numbers; transposed, a row is a column of A
  Index a_stride;
  bool a_transposed;
  const Real* b;  // in one piece; null where it is packed
  bool b_transposed;
  const Real* packed;  // pack_dense(b), or null; null where A lies transposed
  const Real* bias;    // (N,) or null; null where A lies transposed
  Real* out;           // in one piece
  Real* row_sum;       // (M,) or null: where A lies transposed, the sum of the rows as they lie
  int threads;
};

// Panels of B for products to come.
template <class Real>
Index packed_dense_size(const Kernels<Real>&, Index N, Index K);  // in numbers
template <class Real>
void pack_dense(const Kernels<Real>&, const Real* b, bool b_transposed, Index N, Index K,
                Real* out);

template <class Real>
Index dense_work(const Kernels<Real>&, const DenseProduct<Real>&);  // in bytes

// The same bits for any number of threads, and for each row whatever the others are. A sum over the rows
// of transposed matrices is one of sums over `kChunkRows` of them.
template <class Real>
void dense_product(const Kernels<Real>&, const DenseProduct<Real>&, void* work);

}  // namespace fastrnn
