// Every instruction set must give the scalar kernels' bits in what stands around recurrent layers:
// products of matrices, in any layout and with any number of threads, rows of cross entropy, and Adam.
// Nothing beside the results may be written to. Runs without Python, so also under an emulator and under
// sanitizers.
//
// Usage: training_test [products for each type]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "driver/dense.h"

namespace fastrnn {
extern const KernelTable scalar_table, avx2_table, avx512_table, neon_table, wasm128_table;
}

using namespace fastrnn;

namespace {

constexpr Index kGuard = 64;
int passed = 0, failed = 0;

template <class Real>
std::vector<Real> random(Index n, std::mt19937& draw) {
  std::vector<Real> values(static_cast<std::size_t>(n));
  for (Real& each : values)
    each = static_cast<Real>(static_cast<double>(draw()) / 2147483648.0 - 1);
  return values;
}

// Numbers with a guard behind them.
template <class Real>
std::vector<Real> guarded(Index n) {
  return std::vector<Real>(static_cast<std::size_t>(n + kGuard), Real(1234.5));
}

template <class Real>
bool same(const std::vector<Real>& a, const std::vector<Real>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(Real)) == 0;
}

void check(bool right, const char* what, const char* isa, Index M, Index N, Index K, int threads) {
  right ? ++passed : ++failed;
  if (!right)
    std::printf("%s on %s differs: M=%d N=%d K=%d threads=%d\n", what, isa, static_cast<int>(M),
                static_cast<int>(N), static_cast<int>(K), threads);
}

template <class Real>
std::vector<Real> product(const KernelTable& table, DenseProduct<Real> of) {
  const Kernels<Real>& kernels = table.of<Real>();
  std::vector<Real> out = guarded<Real>(of.M * of.N), sums = guarded<Real>(of.M);
  of.out = out.data();
  if (of.a_transposed) of.row_sum = sums.data();
  std::vector<char> work(static_cast<std::size_t>(dense_work(kernels, of)));
  dense_product(kernels, of, work.data());
  out.insert(out.end(), sums.begin(), sums.end());
  return out;
}

template <class Real>
void compare_product(const KernelTable& table, std::mt19937& draw) {
  const auto below = [&](Index n) { return static_cast<Index>(draw() % static_cast<unsigned>(n)); };
  const Index M = 1 + below(draw() % 4 ? 20 : 230), N = 1 + below(draw() % 3 ? 40 : 200);
  const Index K = draw() % 9 ? below(draw() % 4 ? 30 : 420) : 4097;
  const int layout = static_cast<int>(draw() % 3);
  const bool a_transposed = layout == 2, b_transposed = layout == 1;
  const Index width = a_transposed ? M : K, stride = width + below(3);
  const std::vector<Real> a = random<Real>((a_transposed ? K : M) * stride, draw);
  const std::vector<Real> b = random<Real>(K * N, draw), bias = random<Real>(N, draw);
  const bool with_bias = !a_transposed && draw() % 2;
  DenseProduct<Real> of{};
  of.M = M, of.N = N, of.K = K;
  of.a = a.data(), of.a_stride = stride, of.a_transposed = a_transposed;
  of.b = b.data(), of.b_transposed = b_transposed;
  of.bias = with_bias ? bias.data() : nullptr;
  of.threads = 1;
  const std::vector<Real> expected = product(scalar_table, of);
  if (&table == &scalar_table) {  // against sums of our own
    double worst = 0;
    for (Index m = 0; m < M; ++m) {
      for (Index n = 0; n < N; ++n) {
        double sum = with_bias ? bias[static_cast<std::size_t>(n)] : 0, size = 1;
        for (Index k = 0; k < K; ++k) {
          const double term =
              static_cast<double>(
                  a[static_cast<std::size_t>(a_transposed ? k * stride + m : m * stride + k)]) *
              static_cast<double>(
                  b[static_cast<std::size_t>(b_transposed ? n * K + k : k * N + n)]);
          sum += term, size += std::fabs(term);
        }
        const double got = expected[static_cast<std::size_t>(m * N + n)];
        worst = std::fmax(worst, std::fabs(got - sum) / size);
      }
    }
    check(worst < (sizeof(Real) == 4 ? 1e-5 : 1e-14), "a product", "scalar", M, N, K, 0);
    for (Index i = M * N; i < M * N + kGuard; ++i)
      check(expected[static_cast<std::size_t>(i)] == Real(1234.5), "a guard", "scalar", M, N, K, 0);
  }
  for (const int threads : {1, 2, 5}) {
    of.threads = threads;
    check(same(product(table, of), expected), "a product", table.isa, M, N, K, threads);
    if (a_transposed) continue;
    const Kernels<Real>& kernels = table.of<Real>();
    std::vector<Real> packed = guarded<Real>(packed_dense_size(kernels, N, K));
    pack_dense(kernels, b.data(), b_transposed, N, K, packed.data());
    DenseProduct<Real> of_packed = of;
    of_packed.b = nullptr, of_packed.packed = packed.data();
    check(same(product(table, of_packed), expected), "a packed one", table.isa, M, N, K, threads);
  }
}

template <class Real>
void compare_rows(const KernelTable& table, std::mt19937& draw) {
  const Index C = 1 + static_cast<Index>(draw() % (draw() % 4 ? 70 : 5000));
  std::vector<Real> z = random<Real>(C, draw);
  for (Real& each : z) each *= Real(40);
  if (draw() % 4 == 0) z[draw() % z.size()] = -std::numeric_limits<Real>::infinity();
  if (draw() % 8 == 0) z[draw() % z.size()] = std::numeric_limits<Real>::quiet_NaN();
  const auto run = [&](const KernelTable& with, std::vector<Real>& dz) {
    return with.of<Real>().cross_entropy_row({z.data(), dz.data(), C, C / 2, 0.1, 0.25});
  };
  std::vector<Real> expected = guarded<Real>(C), got = guarded<Real>(C);
  const double loss = run(scalar_table, expected), other = run(table, got);
  bool right = std::memcmp(&loss, &other, sizeof loss) == 0 || (loss != loss && other != other);
  for (std::size_t i = 0; i < got.size(); ++i)
    right = right && (got[i] == expected[i] || (got[i] != got[i] && expected[i] != expected[i]));
  check(right, "a row of cross entropy", table.isa, 1, C, 0, 1);
}

template <class Real>
void compare_adam(const KernelTable& table, std::mt19937& draw) {
  const Index n = 1 + static_cast<Index>(draw() % 70);
  const std::vector<Real> param = random<Real>(n + kGuard, draw), grad = random<Real>(n, draw);
  const auto run = [&](const KernelTable& with) {
    std::vector<Real> p = param, mean = param, square = grad;
    for (Real& each : square) each *= each;
    with.of<Real>().adam({p.data(), grad.data(), mean.data(), square.data(), Real(0.9), Real(0.1),
                          Real(0.999), Real(0.001), Real(0.3), Real(1e-8), Real(0.01), Real(0.1)},
                         0, n);
    p.insert(p.end(), mean.begin(), mean.end());
    p.insert(p.end(), square.begin(), square.end());
    return p;
  };
  check(same(run(table), run(scalar_table)), "Adam", table.isa, n, 0, 0, 1);
}

void compare(const KernelTable& table, int products) {
  std::mt19937 draw(1);
  for (int i = 0; i < products; ++i) {
    compare_product<float>(table, draw);
    compare_product<double>(table, draw);
    compare_rows<float>(table, draw);
    compare_rows<double>(table, draw);
    compare_adam<float>(table, draw);
    compare_adam<double>(table, draw);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int products = argc > 1 ? std::atoi(argv[1]) : 60;
  compare(scalar_table, products);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    compare(avx2_table, products);
#endif
#ifdef FASTRNN_HAS_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
    compare(avx512_table, products);
#endif
#if defined(__aarch64__)
  compare(neon_table, products);
#elif defined(FASTRNN_WASM128)
  compare(wasm128_table, products);
#endif
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
