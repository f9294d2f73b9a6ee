// Products with packed panels: which algorithm a product takes, and the walk over rows and panels.
#pragma once

#include "driver/pass.h"
#include "kernels/bf16_layout.h"

namespace fastrnn {

// Runs products, whose A is the same, one after the other.
template <class Real>
void matmul(const Kernels<Real>&, const Matmul<Real>* products, int count, MatmulAlgorithm how,
            Half* scratch);

// With another product added, in one term on the tile unit.
template <class Real>
void matmul_with_input(const Kernels<Real>&, const Matmul<Real>&, const SplitInput&, Half* scratch);

// Of quantised weights; `scales` are those of int8, null for bfloat16. wide: memory for a panel
template <class Real>
void matmul_quantized(const Kernels<Real>&, const Matmul<Real>&, const float* scales, Real* wide);

// Of weights as Python holds them, gates first_gate on: packs a panel, to `wide`, and uses it while it
// is near.
template <class Real>
void matmul_unpacked(const Kernels<Real>&, const Matmul<Real>&, const Real* weights, int first_gate,
                     Real* wide);

// Memory, counted in bfloat16, that a thread needs for products of up to so many rows.
inline Index matmul_scratch(Index rows, Index K, MatmulAlgorithm how) {
  if (how.terms == 0) return 0;
  return how.dots ? dot_scratch(rows, K) : split_scratch(rows, K, how.terms);
}

// Memory, counted in bfloat16, for the bfloat16 terms of so many panels.
inline Index split_size(const Panels& panels, Index K, MatmulAlgorithm how) {
  if (how.terms == 0) return 0;
  return how.dots ? dot_panels_size(panels, K) : SplitPanels(panels, K, how.terms).size;
}

// Makes the bfloat16 terms of a share of packed panels.
template <class Real>
void split_panels(const Kernels<Real>& kernels, const Panels& panels, const Real* packed, Index K,
                  MatmulAlgorithm how, const Share& share, Half* out) {
  if constexpr (std::is_same_v<Real, float>) {
    if (how.dots)
      kernels.pair_panels(panels, packed, K, share, out);
    else if (how.terms > 0)
      kernels.split_panels(panels, packed, K, how.terms, share, out);
  }
}

}  // namespace fastrnn
