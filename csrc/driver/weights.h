// Where the packed matrices of a pass lie, and a thread's products with them.
#pragma once

#include <optional>

#include "driver/matmul.h"
#include "driver/walk.h"

namespace fastrnn {

// What is packed of weights of so many bytes leaves the caches again before it is read: it goes past
// them, to memory (non-temporal stores), which spares reading what was there. Forward's panels are read
// at once, backward's after forward.
constexpr Index kNonTemporalBytes = 16 << 20, kNonTemporalBytesBackward = 4 << 20;

inline Index whole_lines(Index bytes) { return (bytes + 63) / 64 * 64; }

// Bytes of quantised panels; behind those of int8, in the same order, the scale of each output.
inline Index quantized_bytes(const Panels& panels, Index K, WeightType type) {
  if (type == WeightType::bfloat16) return whole_lines(panels.size(K) * 2);
  if (type == WeightType::int8)
    return whole_lines(panels.size(K)) + whole_lines(panels.size(1) * 4);
  return 0;
}

template <class Real>
struct Matrix {
  Panels panels;
  Index K;
  Index at;            // in the packed weights
  Index at_split;      // in the split ones
  Index at_quantized;  // in the quantised ones, in bytes
  MatmulAlgorithm how;
  bool present;
  // Forward: the parameter that it is made of, from which gate on.
  const Real* Weights<const Real>::* parameter = nullptr;
  int first_gate = 0;

  Matrix of(const Real* Weights<const Real>::* member, int gate = 0) const {
    Matrix matrix = *this;
    matrix.parameter = member, matrix.first_gate = gate;
    return matrix;
  }
};

// Says where matrices lie, one behind the other, and how much memory they need together.
template <class Real>
struct Layout {
  int lanes;
  bool half_panels;
  WeightType type;
  Index size = 0, split = 0, quantized = 0;

  Matrix<Real> take(Index N, int gates, Index K, MatmulAlgorithm how, bool present = true) {
    const Panels panels(N, gates, lanes, half_panels);
    const Matrix<Real> matrix{panels, K, size, split, quantized, how, present};
    if (present) {
      size += panels.size(K);
      split += split_size(panels, K, how);
      quantized += quantized_bytes(panels, K, type);
    }
    return matrix;
  }

  bool non_temporal(Index bytes) const { return size * static_cast<Index>(sizeof(Real)) >= bytes; }

  // A vector that is kept as it is; before all matrices, so that it lies at the same place in packed
  // and in quantised weights.
  Index take_vector(Index n) {
    const Index at = size;
    quantized += whole_lines(n * static_cast<Index>(sizeof(Real)));
    size = quantized / static_cast<Index>(sizeof(Real));
    return at;
  }
};

// Packed weights of the forward direction, one buffer.
template <class Real>
struct ForwardWeights {
  using Parameters = Weights<const Real>;

  const CellTraits& cell;
  Layout<Real> layout;
  Index padded;      // units with those that fill the last vector
  Index bias;        // (G*padded,) what the input projection starts from
  Index split_bias;  // (padded,) linear_before_reset: b_hh of the last gate
  Index peephole;    // (3*H,)
  Matrix<Real> input, recurrent, reset, project;

  ForwardWeights(const CellTraits& of, const Kernels<Real>& kernels, const Sizes& z,
                 const Algorithms& how, WeightType type = WeightType::real)
      : cell(of),
        layout{kernels.lanes, kernels.half_panels, type},
        padded(Panels(z.H, 1, kernels.lanes).padded()),
        bias(layout.take_vector(of.gates * padded)),
        split_bias(layout.take_vector(of.linear_before_reset ? padded : 0)),
        peephole(layout.take_vector(of.peephole ? 3 * z.H : 0)),
        input(layout.take(z.H, of.gates, z.I, how.batched).of(&Parameters::ih)),
        recurrent(layout.take(z.H, of.first_gates(), z.P, how.recurrent).of(&Parameters::hh)),
        reset(layout.take(z.H, 1, z.P, how.recurrent, of.reset_before)
                  .of(&Parameters::hh, of.first_gates())),
        project(layout.take(z.P, 1, z.H, how.recurrent, z.projected).of(&Parameters::hr)) {}

  // rank's share of the packing
  void pack(const Kernels<Real>& kernels, const Parameters& w, int rank, int ranks,
            Real* out) const {
    if (rank == 0) pack_vectors(w, out);
    const bool non_temporal = layout.non_temporal(kNonTemporalBytes);
    each([&](const Matrix<Real>& m) {
      const Share share(m.panels.count, rank, ranks);
      for (Index p = share.begin; p < share.end; ++p)
        kernels.pack_panel(m.panels, w.*m.parameter, m.first_gate, m.K, p, non_temporal,
                           out + m.at + m.panels.at(p, m.K));
    });
    end_streams();
  }

  template <class Work>
  void each(const Work& work) const {
    for (const Matrix<Real>* m : {&input, &recurrent, &reset, &project})
      if (m->present) work(*m);
  }

  // Numbers of memory for what is no matrix.
  Index vectors_size() const { return input.at; }

  void pack_vectors(const Parameters& w, Real* out) const {
    const Index H = input.panels.N;
    for (Index g = 0; g < cell.gates; ++g) {
      const bool apart = cell.linear_before_reset && g == cell.gates - 1;
      const Real *b_ih = w.b_ih ? w.b_ih + g * H : nullptr,
                 *b_hh = w.b_hh ? w.b_hh + g * H : nullptr;
      for (Index i = 0; i < padded; ++i) {
        const Real of_x = b_ih && i < H ? b_ih[i] : 0, of_h = b_hh && i < H ? b_hh[i] : 0;
        out[bias + g * padded + i] = of_x + (apart ? 0 : of_h);
        if (apart) out[split_bias + i] = of_h;
      }
    }
    for (Index i = 0; cell.peephole && i < 3 * H; ++i) out[peephole + i] = w.peephole[i];
  }
};

// Packed weights of the backward direction, one buffer: rows of the weights as they lie.
template <class Real>
struct BackwardWeights {
  const CellTraits& cell;
  Layout<Real> layout;
  Index peephole;  // (3*H,)
  Matrix<Real> recurrent, reset, input, project;
  Sizes z;

  BackwardWeights(const CellTraits& of, const Kernels<Real>& kernels, const Sizes& sizes,
                  const Algorithms& how)
      : cell(of),
        layout{kernels.lanes, kernels.half_panels, WeightType::real},
        peephole(layout.take_vector(of.peephole ? 3 * sizes.H : 0)),
        recurrent(layout.take(sizes.P, 1, of.first_gates() * sizes.H, how.recurrent)),
        reset(layout.take(sizes.P, 1, sizes.H, how.recurrent, of.reset_before)),
        input(layout.take(sizes.I, 1, of.gates * sizes.H, how.batched)),
        project(layout.take(sizes.H, 1, sizes.P, how.recurrent, sizes.projected)),
        z(sizes) {}

  // rank's share of the packing
  void pack(const Kernels<Real>& kernels, const Weights<const Real>& w, int rank, int ranks,
            Real* out) const {
    const auto pack_rows = [&](const Matrix<Real>& m, const Real* rows, Index k0, Index count) {
      if (m.present)
        kernels.pack_rows(m.panels, {nullptr, rows, m.panels.N}, k0, count, m.K,
                          Share(m.panels.count, rank, ranks),
                          layout.non_temporal(kNonTemporalBytesBackward), out + m.at);
    };
    pack_rows(recurrent, w.hh, 0, recurrent.K);
    pack_rows(reset, w.hh + cell.first_gates() * z.H * z.P, 0, reset.K);
    // in the order of dgates's blocks
    for (int g = 0; g < cell.gates; ++g)
      pack_rows(input, w.ih + g * z.H * z.I, cell.input_block[g] * z.H, z.H);
    pack_rows(project, w.hr, 0, project.K);
    for (Index i = 0; cell.peephole && rank == 0 && i < 3 * z.H; ++i)
      out[peephole + i] = w.peephole[i];
    end_streams();
  }

  template <class Work>
  void each(const Work& work) const {
    for (const Matrix<Real>* m : {&recurrent, &reset, &input, &project})
      if (m->present) work(*m);
  }
};

// A call's weights, and a thread's memory for products with them.
template <class Real>
struct Products {
  const Kernels<Real>* kernels;
  const Real* packed;
  WeightType type;
  Weights<const Real> parameters;
  const Half* split;
  Half* scratch;
  Real* wide;  // a panel, of weights that are quantised or not packed

  // Memory, counted in bfloat16, for products of up to so many rows.
  static Index scratch_size(const Matrix<Real>& matrix, Index rows) {
    return matrix.present ? matmul_scratch(rows, matrix.K, matrix.how) : 0;
  }
  // Numbers of memory for a panel of a matrix.
  static Index wide_size(const Matrix<Real>& matrix) {
    return matrix.present ? matrix.panels.at(1, matrix.K) : 0;
  }

  // A product with a share of a matrix, for its other members to be filled in.
  Matmul<Real> with(const Matrix<Real>& matrix, const Share& share, Index rows) const {
    Matmul<Real> of(matrix.panels, share);
    of.M = rows, of.K = matrix.K;
    return of;
  }

  // Runs it; a step of few rows (`below_min_rows`) multiplies floats as they are.
  void run(Matmul<Real>& of, const Matrix<Real>& matrix, bool below_min_rows = false) const {
    if (of.M == 0) return;
    if (type == WeightType::unpacked)
      return matmul_unpacked(*kernels, of, parameters.*matrix.parameter, matrix.first_gate, wide);
    if (type != WeightType::real) {
      const char* at = reinterpret_cast<const char*>(packed) + matrix.at_quantized;
      of.packed = at;
      const Index panels = whole_lines(matrix.panels.size(matrix.K));
      const float* scales =
          type == WeightType::int8 ? reinterpret_cast<const float*>(at + panels) : nullptr;
      return matmul_quantized(*kernels, of, scales, wide);
    }
    of.packed = packed + matrix.at;
    of.split = split ? split + matrix.at_split : nullptr;
    matmul(*kernels, &of, 1, below_min_rows ? MatmulAlgorithm{} : matrix.how, scratch);
  }

  // With the product of the input's rows x added, in one term on the tile unit.
  void run_with_input(Matmul<Real>& of, const Matrix<Real>& matrix, const Matrix<Real>& input,
                      const Real* const* x) const {
    of.packed = packed + matrix.at;
    of.split = split + matrix.at_split;
    if constexpr (std::is_same_v<Real, float>)
      matmul_with_input(*kernels, of, {x, split + input.at_split, input.K}, scratch);
  }
};

// A product that every step makes, set up once.
template <class Real>
class StepMatmul {
 public:
  Matmul<Real> of;  // its members from M on may change from step to step

  // The rest of `of` is final; `products` and `matrix` live as long.
  StepMatmul(const Products<Real>& products, const Matrix<Real>& matrix, const Matmul<Real>& what,
             TileBuffer<Real>* buffer)
      : of(what), products_(products), matrix_(matrix) {
    if (products.type == WeightType::real)
      walk_.emplace(*products.kernels, products.kernels->rows, of, products.packed + matrix.at,
                    of.K, buffer);
  }
  StepMatmul(const StepMatmul&) = delete;

  void run(Index rows, bool reverse, bool below_min_rows) {
    of.M = rows, of.reverse = reverse;
    if (!walk_ || (matrix_.how.terms > 0 && !below_min_rows))
      return products_.run(of, matrix_, below_min_rows);
    if (rows == 0) return;
    walk_->start();
    walk_->run({0, rows, of.share.begin, of.share.end}, reverse);
  }

 private:
  const Products<Real>& products_;
  const Matrix<Real>& matrix_;
  std::optional<Walk<Real>> walk_;  // of plain numbers
};

}  // namespace fastrnn
