// The contract of an instruction set: tables of functions that the drivers (csrc/driver) call.
//
// An instruction set multiplies tiles, packs, and runs cells; it knows no time, no batch and no
// threads. What it is given is trusted.
// Letters: T time steps, B batch, I input size, H hidden size, P projection size (H without one),
// G gates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cells/all.h"
#include "runtime/portability.h"

namespace fastrnn {

#include "cells/options.h"

using Index = std::ptrdiff_t;

// Without <algorithm>: what the standard library inlines is shared by the linker.
FASTRNN_FN Index smaller(Index a, Index b) { return a < b ? a : b; }
FASTRNN_FN Index larger(Index a, Index b) { return a > b ? a : b; }

// bfloat16: the upper half of a float
using Half = std::uint16_t;

// rank's share of n items in whole groups
struct Share {
  Index begin, end;

  FASTRNN_FN Share(Index first, Index last) : begin(first), end(last) {}
  FASTRNN_FN Share(Index n, int rank, int ranks, Index group = 1) {
    const Index groups = (n + group - 1) / group;
    begin = smaller(n, groups * rank / ranks * group);
    end = smaller(n, groups * (rank + 1) / ranks * group);
  }
};

// Rows of numbers: listed, or `stride` apart.
template <class Item>
struct RowsAt {
  Item* const* list = nullptr;
  Item* first = nullptr;
  Index stride = 0;

  FASTRNN_FN Item* operator[](Index m) const { return list ? list[m] : first + m * stride; }
};

// How N outputs (units) of G gates each lie in packed panels: [panel][k][vector][lane]. A panel holds
// `units` vectors of units with all their gates, vector u*G + g, so that all gates of a unit come
// together. The last panel holds no more vectors than its units need. Where `half_panels`, a panel of
// four vectors is two of two, one behind the other, for tiles of two vectors.
struct Panels {
  Index N;
  int gates, lanes;
  bool half_panels;
  int units, last_units;  // vectors of units in a full panel, in the last one
  Index count;            // panels

  // as many units as make a tile of about four vectors
  FASTRNN_FN Panels(Index n, int g, int l, bool halved = false)
      : N(n),
        gates(g),
        lanes(l),
        half_panels(halved),
        units(g >= 3   ? 1
              : g == 2 ? 2
                       : 4) {
    const Index vectors = (n + l - 1) / l;
    count = (vectors + units - 1) / units;
    last_units = count > 0 ? static_cast<int>(vectors - (count - 1) * units) : units;
  }

  FASTRNN_FN int units_in(Index p) const { return p + 1 < count ? units : last_units; }
  FASTRNN_FN int vectors_in(Index p) const { return units_in(p) * gates; }
  FASTRNN_FN int full() const { return units * gates; }  // vectors in a full panel
  // of so many vectors of a panel those that lie side by side
  FASTRNN_FN int together(int vectors) const { return half_panels && vectors == 4 ? 2 : vectors; }
  FASTRNN_FN bool last_is_full() const { return last_units == units; }
  FASTRNN_FN Index unit(Index p) const { return p * units * lanes; }  // the first of a panel
  FASTRNN_FN Index at(Index p, Index K) const { return p * K * full() * lanes; }  // in memory
  FASTRNN_FN Index padded() const {  // units with those that fill the last vector
    return count > 0 ? ((count - 1) * units + last_units) * lanes : 0;
  }
  FASTRNN_FN Index size(Index K) const { return padded() * gates * K; }
};

// ---- The register tile ----

constexpr int kMaxTileRows = 8, kMaxTileVectors = 4, kMaxGates = 4, kMaxLanes = 16;

// What a tile's accumulators start from.
enum class Init { zero, output, given };

// C (R rows x N vectors) = init + A (R, K) B (K, N vectors), one chain of fused multiply-adds an
// output. Row r of the tile is row m + r of A, of `from` and, counted from out_m, of the output; unit
// and out_unit are where the panel begins.
template <class Real>
struct TileCall {
  const Real* const* rows;  // of A, listed; else:
  const void* a;            // rows `stride` apart; or columns: a(k) of row m is a[k * stride + m]
  Index stride;
  const void* b;        // a panel [k][vector][lane], or half of one
  int first;            // of a half: which vector of the panel it begins with
  const float* scales;  // of int8: the panel's
  Index K, first_k;     // first_k: of the listed rows
  const void* fetch;    // null, or what is read later: a cache line is fetched with each k
  Index m, unit, out_m, out_unit;
  // One row: from one panel, or half of one, to the next; from a panel to its neighbour.
  Index pair_b, pair_unit, pair_out;
  Init init;
  const Real* from[kMaxTileVectors];  // given: vector n of row m is at from[n] + m * from_stride[n]
  Index from_stride[kMaxTileVectors];
  RowsAt<Real> out;
  Index at[kMaxTileVectors];  // of vector n in a row of the output
  bool add;                   // of columns: to the output
};

template <class Real>
using TileKernel = void (*)(const TileCall<Real>&);

// The tiles of a kind of factors, by vectors and rows. Null: there is none of that size. Where
// there are half panels, a tile of four vectors reads the two of a panel.
template <class Real>
struct TileKernels {
  int factor_size;                     // bytes of a number of B
  int most_rows[kMaxTileVectors + 1];  // of the largest tile
  TileKernel<Real> tile[kMaxTileVectors + 1][kMaxTileRows + 1];
  TileKernel<Real> pair[kMaxTileVectors + 1];  // one row, two neighbouring panels
};

// ---- Cells ----

// What a cell is, from its header in fastrnn/kernels/cells (unit.h says what each means).
struct CellTraits {
  const char* name;
  int gates, saved, gate_grads, recurrent_grad_offset;
  bool has_c, peephole, linear_before_reset, reset_before, saves_h, needs_h_prev;
  int input_block[kMaxGates];

  // gates of the first recurrent product; with a reset before it, the last gate has one of its own
  FASTRNN_FN int first_gates() const { return reset_before ? gates - 1 : gates; }
};

// A tile's sums as the epilogue takes them: `rows` rows from m on, `units` vectors of units from unit
// on; gate g of unit vector u of row r lies at sums[r * row_stride + (u * gates + g) * vector_stride].
template <class Real>
struct TileSums {
  Index m, rows, unit, units;
  const Real* sums;
  Index row_stride, vector_stride;
};

// The epilogue of a product; `step` is a ForwardStep or a BackwardStep.
template <class Real>
using Epilogue = void (*)(const void* step, const TileSums<Real>&);

// One step forward, by sorted row m.
template <class Real>
struct ForwardStep {
  const Real** h_prev;   // (P,)
  const Real** c_prev;   // (H,)
  Real** c;              // (H,)
  Real** h;              // (H,) the cell's output: y's row, or what a projection takes in
  Real** saved;          // (S*H,)
  Real** reset_h;        // (H,) reset before: r * h
  Real* gates;           // (rows, G*padded) the projected input, units padded to whole vectors
  const Real* peephole;  // (3*H,)
  Index H, padded;
  bool save;  // for backward
  CellOptions<Real> options;
};

// One step backward, by sorted row m.
template <class Real>
struct BackwardStep {
  const Real** h_prev;   // (P,)
  const Real** c_prev;   // (H,)
  const Real** h;        // (P,)
  const Real** c;        // (H,)
  const Real** saved;    // (S*H,)
  const Real** dy;       // (P,) or null
  const Real** d_out;    // (H,) projected: the gradient of the cell's output; else null
  Real** dh;             // (P,)
  Real** dc;             // (H,)
  Real** dgates;         // (D*H, ...) gradients of the pre-activations and what follows them
  const Real* peephole;  // (3*H,)
  Index H;
  Index reset_at;   // reset before: where r * h goes in a row of dgates
  Index output_at;  // projected: where the cell's output goes there; else -1
  CellOptions<Real> options;
};

template <class Real>
struct CellKernels {
  CellTraits traits;
  Epilogue<Real> forward;  // of the product that completes the gates
  Epilogue<Real> reset;    // reset before: of the one before that
  // rows 0 .. rows-1 and units begin .. end-1, begin a multiple of the lanes
  void (*backward)(const BackwardStep<Real>&, Index rows, Index begin, Index end);
  Epilogue<Real> reset_backward;  // of the gradient of r * h, which comes back through R_n
};

#define FASTRNN_ONE(...) +1
constexpr int kCells = 0 FASTRNN_CELLS(FASTRNN_ONE);
#undef FASTRNN_ONE

// ---- Products ----

// C = init + A B, B in packed panels; then C is stored, or an epilogue takes it while it is in the L1
// cache.
template <class Real>
struct Matmul {
  Index M, K;
  RowsAt<const Real> rows;        // of A; or
  const Real* columns = nullptr;  // its columns: a(k) of row m is columns[k * ld + m]
  Index ld = 0;
  Panels panels;
  Share share;  // of the panels
  const void* packed = nullptr;
  const Half* split = nullptr;  // the same in bfloat16 terms
  bool reverse = false;         // panels from last to first
  // what gate g of unit u of row m starts from; given: from[g] + m * from_stride[g] + u, padded
  Init init = Init::zero;
  const Real* from[kMaxGates] = {};
  Index from_stride[kMaxGates] = {};
  // output, without an epilogue: out[m][g * gate_stride + u]
  RowsAt<Real> out;
  Index gate_stride = 0;
  bool add = false;            // of columns: to the output
  bool out_is_padded = false;  // with units that fill the last vector
  Epilogue<Real> epilogue = nullptr;
  const void* step = nullptr;

  FASTRNN_FN Matmul(const Panels& of, const Share& part) : M(0), K(0), panels(of), share(part) {}
};

// Another product that is added: of rows (K,) and the bfloat16 terms of panels that lie as the
// first one's do.
struct SplitInput {
  const float* const* rows = nullptr;
  const Half* split = nullptr;
  Index K = 0;
};

// Runs part of a product by fused multiply-adds (driver/matmul.cpp): what the tile unit cannot.
using FmaBlock = void (*)(const Matmul<float>&, const void* kernels, Index m0, Index m1, Index p);

// Sums over rows k < K of a[k * lda + i], times factor[k][i] if there is one, which take up those in
// `from`, if there is any, and are written to out[i], or added to what is there.
template <class Real>
struct ColumnSums {
  const Real* a;
  Index lda, K;
  const Real* const* factor;
  const Real* from;
  Real* out;
  bool add;
};

// Adds sums to those before, whose roundings are kept (Knuth's TwoSum).
template <class Real>
struct SettledSums {
  Real *sums, *high, *low;
  bool first;  // nothing before
  bool last;   // leaves the sum of all in `sums`
};

// A row of logits z (classes,). Its cross entropy, whose weight is `factor`, against a class that has 1
// - smoothing, and all of them the rest; dz is the gradient.
template <class Real>
struct CrossEntropyRow {
  const Real* z;
  Real* dz;
  Index classes, target;
  double smoothing, factor;
};

// Adam's update of some parameters; rest1 is 1 - beta1.
template <class Real>
struct AdamStep {
  Real* param;
  const Real* grad;
  Real *mean, *square;
  Real beta1, rest1, beta2, rest2, correction, eps, rate, weight_decay;
};

// Rows m .. m+rows-1, columns unit .. N-1 of an array whose last vector is not full.
template <class Item>
struct Partial {
  RowsAt<Item> at;
  Index m, rows, unit, N;
};

template <class Real>
struct Kernels {
  int lanes;
  bool half_panels;                         // how weights are packed: Panels
  TileKernels<Real> rows, columns;          // A by rows, by columns
  TileKernels<Real> bfloat16, int8;         // weights that are widened in registers
  TileKernels<Real> dot_rows, dot_columns;  // pairs of bfloat16
  CellKernels<Real> cells[kCells];

  // Packs panel p of weights that have a row (K,) an output, gates first_gate on.
  void (*pack_panel)(const Panels&, const Real* w, int first_gate, Index K, Index p,
                     bool non_temporal, Real* out);
  // Packs rows k0 .. k0+count-1 of B, row k0 the first of `rows`, for a share of plain panels.
  void (*pack_rows)(const Panels&, const RowsAt<const Real>& rows, Index k0, Index count, Index K,
                    const Share&, bool non_temporal, Real* out);
  // Copies a part of an output to or from sums, which lie one vector behind the other.
  void (*load_partial)(const Partial<const Real>&, Real* sums);
  void (*store_partial)(const Partial<Real>&, const Real* sums, bool add);
  // A panel of n vectors widened to floats.
  void (*widen_bfloat16)(const void* b, const float* scales, Index K, int n, float* out);
  void (*widen_int8)(const void* b, const float* scales, Index K, int n, float* out);
  // Sums columns begin .. end-1.
  void (*column_sums)(const ColumnSums<Real>&, Index begin, Index end);
  void (*settle)(const SettledSums<Real>&, Index begin, Index end);

  // Dot products of bfloat16: rounds a share of packed panels; rows m .. end-1 of A into memory.
  void (*pair_panels)(const Panels&, const float* packed, Index K, const Share&, Half* out);
  void (*pair_rows)(const Matmul<float>&, Index m, Index end, Half* out);
  // The tile unit: splits a share of packed panels; multiplies.
  void (*split_panels)(const Panels&, const float* packed, Index K, int terms, const Share&,
                       Half* out);
  void (*split_matmul)(const Matmul<float>*, int count, int terms, Half* scratch, const SplitInput&,
                       FmaBlock fma, const void* kernels);

  double (*cross_entropy_row)(const CrossEntropyRow<Real>&);
  void (*adam)(const AdamStep<Real>&, Index begin, Index end);

  void (*sigmoid)(const Real* x, Real* y, Index n);  // for the accuracy tests
  void (*tanh)(const Real* x, Real* y, Index n);
  double (*fma_loop)(Index rounds, Real* out);  // for the benchmarks: peak.h
  Real (*read_sum)(const Real* x, Index n, Index repeats);
};

struct KernelTable {
  const char* isa;
  bool dots, tile_unit;  // what multiplies bfloat16 here
  Kernels<float> f32;
  Kernels<double> f64;

  template <class Real>
  FASTRNN_FN const Kernels<Real>& of() const {
    if constexpr (sizeof(Real) == sizeof(float))
      return f32;
    else
      return f64;
  }
};

}  // namespace fastrnn
