#include "bindings/training.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "driver/dense.h"
#include "driver/share_out.h"
#include "runtime/dispatch.h"
#include "runtime/gil.h"

namespace py = pybind11;

namespace fastrnn {
namespace {

// A matrix B (K, N) in panels.
template <class Real>
struct PackedMatrix {
  Buffer buffer;
  Index N;
};

// Of b (N, K), which is B transposed.
template <class Real>
PackedMatrix<Real> pack(const py::array& b) {
  const Index N = b.shape(0), K = b.shape(1);
  const Kernels<Real>& with = kernels().of<Real>();
  const auto size = static_cast<std::size_t>(packed_dense_size(with, N, K)) * sizeof(Real);
  PackedMatrix<Real> out{Buffer::of_weights(size), N};
  pack_dense(with, pointer<const Real>(b), true, N, K, static_cast<Real*>(out.buffer.data()));
  return out;
}

// A B + bias into `out`, or into a new array; see DenseProduct. A's rows may lie apart. b: an array, or
// what pack() returned. row_sum: an array, or None.
template <class Real>
py::object dense(const py::array& a, bool a_transposed, py::handle b, bool b_transposed,
                 py::handle bias, py::object out, py::handle row_sum, int threads) {
  DenseProduct<Real> of{};
  of.M = a.shape(a_transposed ? 1 : 0), of.K = a.shape(a_transposed ? 0 : 1);
  of.a = pointer<const Real>(a), of.a_transposed = a_transposed;
  of.a_stride = a.strides(0) / static_cast<Index>(sizeof(Real));
  if (py::isinstance<PackedMatrix<Real>>(b)) {
    const auto& packed = b.cast<const PackedMatrix<Real>&>();
    of.N = packed.N, of.packed = static_cast<const Real*>(packed.buffer.data());
  } else {
    of.b = pointer<const Real>(b), of.b_transposed = b_transposed;  // an array, or it throws
    of.N = py::reinterpret_borrow<py::array>(b).shape(b_transposed ? 0 : 1);
  }
  of.bias = pointer<const Real>(bias);
  of.row_sum = pointer<Real>(row_sum);
  of.threads = threads;
  if (out.is_none()) out = make_array<Real>("a product", {of.M, of.N});
  of.out = pointer<Real>(out);
  const Kernels<Real>& with = kernels().of<Real>();
  const Buffer work(static_cast<std::size_t>(dense_work(with, of)), "a product's panels");
  const WithoutGil release;
  dense_product(with, of, work.data());
  return out;
}

// The losses of all rows of logits (n, C) and the gradient of their sum times `factor`. mask (n,): the
// rows that count.
template <class Real>
py::tuple cross_entropy(const py::array& logits, py::handle targets, py::handle mask,
                        double smoothing, double factor, int threads) {
  const Index n = logits.shape(0), C = logits.shape(1);
  const py::array_t<double> losses(n);
  const py::array_t<Real> gradient = make_array<Real>("the gradient of logits", {n, C});
  const Real* z = pointer<const Real>(logits);
  const auto* target = pointer<const std::int64_t>(targets);
  const bool* counts = pointer<const bool>(mask);
  double* loss = pointer<double>(losses);
  Real* dz = pointer<Real>(gradient);
  {
    const Kernels<Real>& with = kernels().of<Real>();
    const WithoutGil release;
    share_out(threads, static_cast<double>(n) * static_cast<double>(C + 16) / 1000,
              [&](int rank, int ranks) {
                const Share rows(n, rank, ranks);
                for (Index i = rows.begin; i < rows.end; ++i) {
                  loss[i] = 0;
                  if (counts && !counts[i])
                    std::fill_n(dz + i * C, C, Real(0));
                  else
                    loss[i] = with.cross_entropy_row(
                        {z + i * C, dz + i * C, C, target[i], smoothing, factor});
                }
              });
  }
  return py::make_tuple(losses, gradient);
}

// betas, correction, eps, rate, weight decay: fastrnn.train.optim's
template <class Real>
void adam(py::handle param, py::handle grad, py::handle mean, py::handle square, double beta1,
          double beta2, double correction, double eps, double rate, double weight_decay,
          int threads) {
  const Index n = py::reinterpret_borrow<py::array>(param).size();
  const auto real = [](double x) { return static_cast<Real>(x); };
  const AdamStep<Real> step{pointer<Real>(param), pointer<const Real>(grad),
                            pointer<Real>(mean),  pointer<Real>(square),
                            real(beta1),          real(1 - beta1),
                            real(beta2),          real(1 - beta2),
                            real(correction),     real(eps),
                            real(rate),           real(weight_decay)};
  const Kernels<Real>& with = kernels().of<Real>();
  const WithoutGil release;
  share_out(threads, static_cast<double>(n) / 1000, [&](int rank, int ranks) {
    const Share own(n, rank, ranks, 64);
    with.adam(step, own.begin, own.end);
  });
}

// Of n numbers, in double, by eight sums in turn.
template <class Real>
double squares(const Real* x, Index n) {
  double sums[8] = {};
  Index i = 0;
  for (; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; ++j)
      sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (; i < n; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The same for any number of threads: of blocks, whose sums are added up one after the other.
template <class Real>
double sum_of_squares(const py::array& vector, int threads) {
  constexpr Index block = 8192;
  const Index n = vector.size(), blocks = (n + block - 1) / block;
  const Real* x = pointer<const Real>(vector);
  std::vector<double> sums(static_cast<std::size_t>(blocks));
  const WithoutGil release;
  share_out(threads, static_cast<double>(n) / 2000, [&](int rank, int ranks) {
    const Share own(blocks, rank, ranks);
    for (Index i = own.begin; i < own.end; ++i)
      sums[static_cast<std::size_t>(i)] = squares(x + i * block, smaller(block, n - i * block));
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

template <class Real>
void bind(py::module_& m, const std::string& suffix) {
  py::class_<PackedMatrix<Real>>(m, ("PackedMatrix" + suffix).c_str());
  m.def(("pack_dense" + suffix).c_str(), &pack<Real>);
  m.def(("dense" + suffix).c_str(), &dense<Real>);
  m.def(("cross_entropy" + suffix).c_str(), &cross_entropy<Real>);
  m.def(("adam" + suffix).c_str(), &adam<Real>);
  m.def(("sum_of_squares" + suffix).c_str(), &sum_of_squares<Real>);
}

}  // namespace

void bind_training(py::module_& m) {
  bind<float>(m, "32");
  bind<double>(m, "64");
}

}  // namespace fastrnn
