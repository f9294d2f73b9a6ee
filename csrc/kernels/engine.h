// The kernels, compiled once for each instruction set: included by csrc/isa/*.cpp inside the target
// region and an anonymous namespace, after that instruction set's Vec. Nothing of it may be shared
// by the linker, or an AVX-512 copy could end up on the scalar path.

#include "activations.h"
#include "cells/unit.h"
#include "cells/functions.h"
#include "cells/headers.h"
#include "kernels/tile.h"
#include "kernels/panels.h"
#include "kernels/lockstep.h"
#include "kernels/cell.h"
#include "kernels/bf16_dot.h"
#include "kernels/training.h"
#include "kernels/peak.h"
#ifdef FASTRNN_TILE_UNIT
FASTRNN_REGION(FASTRNN_TILE_UNIT)
#include "kernels/amx/tiles.h"
#include "kernels/amx/split_bf16.h"
#include "kernels/amx/product.h"
FASTRNN_REGION_END
#endif

template <class V>
void sigmoid_of(const typename V::Real* x, typename V::Real* y, Index n) {
  for (Index i = 0; i < n; i += V::kLanes) sigmoid(V::load(x + i, n - i)).store(y + i, n - i);
}

template <class V>
void tanh_of(const typename V::Real* x, typename V::Real* y, Index n) {
  for (Index i = 0; i < n; i += V::kLanes) tanh(V::load(x + i, n - i)).store(y + i, n - i);
}

template <class V>
constexpr Kernels<typename V::Real> make_kernels() {
  using Real = typename V::Real;
  Kernels<Real> to{};
  to.lanes = V::kLanes;
  to.half_panels = V::kHalfPanels;
  to.rows = tile_kernels<V, V, Real, false>();
  to.columns = tile_kernels<V, V, Real, true>();
#define FASTRNN_ENTRY(name, ...) cell_kernels<V, __VA_ARGS__>(#name),
  constexpr CellKernels<Real> cells[] = {FASTRNN_CELLS(FASTRNN_ENTRY)};
#undef FASTRNN_ENTRY
  for (int i = 0; i < kCells; ++i) to.cells[i] = cells[i];
  to.pack_panel = pack_panel<V>;
  to.pack_rows = pack_rows<V>;
  to.column_sums = column_sums<V>;
  to.settle = settle<V>;
  to.load_partial = load_partial<V>;
  to.store_partial = store_partial<V>;
  if constexpr (std::is_same_v<Real, float>) {
    to.bfloat16 = tile_kernels<V, V, Half, false, 4>();
    to.int8 = tile_kernels<V, V, std::int8_t, false, 4>();
    to.widen_bfloat16 = widen_panel<V, Half>;
    to.widen_int8 = widen_panel<V, std::int8_t>;
#ifdef FASTRNN_DOTS
    to.dot_rows = tile_kernels<V, Pairs, Pair, false>();
    to.dot_columns = tile_kernels<V, Pairs, Pair, true>();
    to.pair_panels = pair_panels<V>;
    to.pair_rows = pair_rows<V>;
#endif
#ifdef FASTRNN_TILE_UNIT
    to.split_panels = split_panels<V>;
    to.split_matmul = split_matmul<V>;
#endif
  }
  to.cross_entropy_row = cross_entropy_row<V>;
  to.adam = adam<V>;
  to.sigmoid = sigmoid_of<V>;
  to.tanh = tanh_of<V>;
  to.fma_loop = fma_loop<V>;
  to.read_sum = read_sum<V>;
  return to;
}

constexpr KernelTable make_table(const char* isa, bool dots = false, bool tile_unit = false) {
  return {isa, dots, tile_unit, make_kernels<Vec<float>>(), make_kernels<Vec<double>>()};
}
