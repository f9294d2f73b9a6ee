#include "driver/matmul.h"

#include <cstring>
#include <type_traits>

#include "driver/walk.h"

namespace fastrnn {
namespace {

// Into how many blocks of rows weight gradients are cut: each block's columns stay in the L2 cache while
// all panels pass by.
constexpr Index kColumnsBytes = 512 * 1024, kColumnsRows = 48;

int column_blocks(Index rows, Index row_bytes) {
  const Index most = larger(kColumnsRows, kColumnsBytes / larger(row_bytes, 1));
  return static_cast<int>(larger((rows + most / 2) / most, 1));
}

// From so many rows on, a panel of quantised weights is widened once for all of them.
constexpr Index kWidenRows = 8;

template <class Real>
const TileKernels<Real>& plain(const Kernels<Real>& kernels, const Matmul<Real>& of) {
  return of.columns ? kernels.columns : kernels.rows;
}

template <class Real>
void run_fma(const Kernels<Real>& kernels, const Matmul<Real>& of) {
  TileBuffer<Real> buffer;
  Walk<Real> walk(kernels, plain(kernels, of), of, of.packed, of.K, &buffer);
  if (!of.columns) return walk.run({0, of.M, of.share.begin, of.share.end}, of.reverse);
  const int blocks = column_blocks(of.M, of.K * static_cast<Index>(sizeof(Real)));
  for (int i = 0; i < blocks; ++i) {
    const Share own(of.M, i, blocks, kernels.columns.most_rows[of.panels.full()]);
    walk.run({own.begin, own.end, of.share.begin, of.share.end}, of.reverse != (i % 2 > 0));
  }
}

// Rows that the tile unit cannot multiply.
void run_fma_block(const Matmul<float>& of, const void* kernels, Index m0, Index m1, Index p) {
  const auto& table = *static_cast<const Kernels<float>*>(kernels);
  TileBuffer<float> buffer;
  Walk<float>(table, plain(table, of), of, of.packed, of.K, &buffer).run({m0, m1, p, p + 1}, false);
}

void run_dots(const Kernels<float>& kernels, const Matmul<float>& of, Half* scratch) {
  const Index group = dot_group(of.M, of.K), pairs = pairs_of(of.K);
  const auto& tiles = of.columns ? kernels.dot_columns : kernels.dot_rows;
  TileBuffer<float> buffer;
  for (Index m = 0; m < of.M; m += group) {
    const Index end = smaller(of.M, m + group);
    kernels.pair_rows(of, m, end, scratch);
    Walk<float> walk(kernels, tiles, of, of.split, pairs, &buffer);
    walk.take_rows(scratch, m, of.columns ? dot_stride(end - m) : whole_vectors(pairs));
    walk.run({m, end, of.share.begin, of.share.end}, of.reverse);
  }
}

}  // namespace

template <class Real>
void matmul(const Kernels<Real>& kernels, const Matmul<Real>* products, int count,
            MatmulAlgorithm how, Half* scratch) {
  if constexpr (std::is_same_v<Real, float>) {
    if (how.tiles() && products->K > 0)  // a step may have no rows to sum over
      return kernels.split_matmul(products, count, how.terms, scratch, {}, run_fma_block, &kernels);
  }
  for (const Matmul<Real>* of = products; of < products + count; ++of) {
    if constexpr (std::is_same_v<Real, float>) {
      if (how.dots) {
        run_dots(kernels, *of, scratch);
        continue;
      }
    }
    run_fma(kernels, *of);
  }
}

template <class Real>
void matmul_with_input(const Kernels<Real>& kernels, const Matmul<Real>& of,
                       const SplitInput& input, Half* scratch) {
  if constexpr (std::is_same_v<Real, float>)
    kernels.split_matmul(&of, 1, 1, scratch, input, run_fma_block, &kernels);
}

template <class Real>
void matmul_quantized(const Kernels<Real>& kernels, const Matmul<Real>& of, const float* scales,
                      Real* wide) {
  if constexpr (std::is_same_v<Real, float>) {
    const auto& narrow = scales ? kernels.int8 : kernels.bfloat16;
    const auto widen = scales ? kernels.widen_int8 : kernels.widen_bfloat16;
    const Panels& panels = of.panels;
    TileBuffer<float> buffer;
    Walk<float> narrow_walk(kernels, narrow, of, of.packed, of.K, &buffer);
    Walk<float> wide_walk(kernels, kernels.rows, of, wide, of.K, &buffer);
    narrow_walk.take_scales(scales);
    if (of.M < kWidenRows)
      return narrow_walk.run({0, of.M, of.share.begin, of.share.end}, of.reverse);
    for (Index i = of.share.begin; i < of.share.end; ++i) {
      const Index p = of.reverse ? of.share.end - 1 - (i - of.share.begin) : i;
      const int vectors = panels.vectors_in(p), together = panels.together(vectors);
      for (int done = 0; done < vectors; done += together) {
        const Index first = done * panels.lanes, at = p * panels.full() * panels.lanes + first;
        const char* packed = static_cast<const char*>(of.packed) + at * of.K * narrow.factor_size;
        widen(packed, scales ? scales + at : nullptr, of.K, together, wide + first * of.K);
      }
      wide_walk.run_alone({0, of.M, p, p + 1}, p, wide);
    }
  }
}

template <class Real>
void matmul_unpacked(const Kernels<Real>& kernels, const Matmul<Real>& of, const Real* weights,
                     int first_gate, Real* wide) {
  TileBuffer<Real> buffer;
  Walk<Real> walk(kernels, kernels.rows, of, wide, of.K, &buffer);
  for (Index p = of.share.begin; p < of.share.end; ++p) {
    kernels.pack_panel(of.panels, weights, first_gate, of.K, p, false, wide);
    walk.run_alone({0, of.M, p, p + 1}, p, wide);
  }
}

#define FASTRNN_INSTANTIATE(Real)                                                                 \
  template void matmul(const Kernels<Real>&, const Matmul<Real>*, int, MatmulAlgorithm, Half*);   \
  template void matmul_with_input(const Kernels<Real>&, const Matmul<Real>&, const SplitInput&,   \
                                  Half*);                                                         \
  template void matmul_quantized(const Kernels<Real>&, const Matmul<Real>&, const float*, Real*); \
  template void matmul_unpacked(const Kernels<Real>&, const Matmul<Real>&, const Real*, int, Real*);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)
#undef FASTRNN_INSTANTIATE

}  // namespace fastrnn
