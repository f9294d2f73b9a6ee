#include "driver/dense.h"

#include <cstring>

#include "driver/matmul.h"
#include "driver/schedule.h"
#include "driver/workspace.h"
#include "runtime/threads.h"

namespace fastrnn {
namespace {

// Rows of A that stay in the L2 cache while the panels of B pass by.
constexpr Index kRowsBytes = 192 * 1024, kLeastRows = 48;

// A transposed: so many of its columns are copied to where they lie close together, for a product of at
// least so many columns; in A itself each number of a column may be on another page.
constexpr Index kColumns = 96, kLeastColumns = 32, kColumnsToCopy = 64;

// From so many rows a thread on B is packed once for all; with fewer each thread packs and uses
// panels of its own, one at a time.
constexpr Index kRowsToShare = 96;

// Packs panel p of so many rows of B, the first of which is at b; transposed, of all of them.
template <class Real>
void pack_panel(const Kernels<Real>& kernels, const Panels& panels, const Real* b, bool transposed,
                Index p, Index rows, Real* out) {
  if (transposed)
    kernels.pack_panel(panels, b, 0, rows, p, false, out);
  else
    kernels.pack_rows(panels, {nullptr, b, panels.N}, 0, rows, rows, {p, p + 1}, false,
                      out - panels.at(p, rows));
}

// One product, laid out for some threads.
template <class Real>
class DensePass {
 public:
  DensePass(const Kernels<Real>& kernels, const DenseProduct<Real>& of, int threads, void* work)
      : kernels_(kernels),
        of_(of),
        threads_(threads),
        panels_(of.N, 1, kernels.lanes, kernels.half_panels && (!of.a_transposed || copies())),
        deep_(of.a_transposed ? smaller(of.K, kChunkRows) : of.K),
        by_rows_(of.a_transposed || of.M >= kRowsToShare * threads),
        barrier_(threads) {
    Arena arena(work);
    bias_ = arena.take<Real>(of.bias ? panels_.padded() : 0);
    const Index own = by_rows_ ? panels_.size(deep_) : threads * panels_.at(1, deep_);
    packed_ = arena.take<Real>(of.packed ? 0 : own);
    columns_ = arena.take<Real>(copies() ? threads * deep_ * column_stride() : 0);
    work_size_ = arena.size();
    if (work && of.bias) {
      for (Index i = 0; i < panels_.padded(); ++i) bias_[i] = i < of.N ? of.bias[i] : 0;
    }
  }

  Index work_size() const { return work_size_; }

  void run(const ThreadTeam& team) {
    team.run(
        threads_, [](void* self, int rank) { static_cast<DensePass*>(self)->enter(rank); }, this);
  }

 private:
  void enter(int rank) {
    const Share panels(panels_.count, rank, threads_);
    if (of_.a_transposed) return sum_over_rows(rank, panels);
    if (!by_rows_) return with_own_panels(rank, panels);
    if (!of_.packed) {
      for (Index p = panels.begin; p < panels.end; ++p)
        pack(p, 0, of_.K, packed_ + panels_.at(p, of_.K));
      barrier_.wait();
    }
    const int most = kernels_.rows.most_rows[panels_.together(panels_.full())];
    const Share rows(of_.M, rank, threads_, most);
    const Index bytes = larger(of_.K, 1) * static_cast<Index>(sizeof(Real));
    const Index block = larger(kLeastRows, kRowsBytes / bytes / most * most);
    for (Index m = rows.begin; m < rows.end; m += block)
      multiply(m, smaller(rows.end, m + block), {0, panels_.count},
               of_.packed ? of_.packed : packed_);
  }

  void with_own_panels(int rank, const Share& panels) {
    if (of_.packed) return multiply(0, of_.M, panels, of_.packed);
    Real* own = packed_ + rank * panels_.at(1, of_.K);
    for (Index p = panels.begin; p < panels.end; ++p) {
      pack(p, 0, of_.K, own);
      multiply(0, of_.M, {p, p + 1}, own - panels_.at(p, of_.K));
    }
  }

  // A transposed: sums over chunks of rows, each added to those before.
  void sum_over_rows(int rank, const Share& panels) {
    const Share own(of_.M, rank, threads_, kernels_.columns.most_rows[kMaxTileVectors]);
    for (Index k = 0; k < of_.K || k == 0; k += kChunkRows) {
      const Index rows = smaller(of_.K - k, kChunkRows);
      for (Index p = panels.begin; p < panels.end; ++p)
        pack(p, k, rows, packed_ + panels_.at(p, rows));
      if (of_.row_sum)
        kernels_.column_sums(
            {of_.a + k * of_.a_stride, of_.a_stride, rows, nullptr, nullptr, of_.row_sum, k > 0},
            own.begin, own.end);
      barrier_.wait();
      const Index columns = own.end - own.begin;
      const int blocks = copies() ? static_cast<int>((columns + kColumns - 1) / kColumns) : 1;
      for (int i = 0; i < blocks; ++i) {
        const Share block(columns, i, blocks);
        add_columns(rank, k, rows, own.begin + block.begin, block.end - block.begin);
      }
      barrier_.wait();
    }
  }

  // Rows k .. k+rows-1 of B times columns m .. m+count-1 of A.
  void add_columns(int rank, Index k, Index rows, Index m, Index count) {
    Matmul<Real> product(panels_, Share(0, panels_.count));
    product.M = count, product.K = rows;
    product.columns = of_.a + k * of_.a_stride + m, product.ld = of_.a_stride;
    if (copies()) {
      Real* copy = columns_ + rank * deep_ * column_stride();
      for (Index i = 0; i < rows; ++i)
        std::memcpy(copy + i * column_stride(), product.columns + i * of_.a_stride,
                    static_cast<std::size_t>(count) * sizeof(Real));
      product.columns = copy, product.ld = column_stride();
    }
    product.packed = packed_;
    product.out.first = of_.out + m * of_.N, product.out.stride = of_.N;
    product.add = k > 0;
    if (count > 0) matmul(kernels_, &product, 1, {}, nullptr);
  }

  // Whether a thread copies the columns of A that it multiplies by, to rows. It pays where there are many;
  // and only tiles of rows read half panels (Panels), so that B is packed into them then alone.
  bool copies() const {
    return of_.a_transposed && of_.N >= kColumnsToCopy && of_.M >= kLeastColumns * threads_;
  }

  // An odd number of cache lines, so that a column does not fall on one set of the cache.
  static constexpr Index column_stride() { return kColumns + 64 / sizeof(Real); }

  // Panel p of rows k0 .. k0+rows-1 of B.
  void pack(Index p, Index k0, Index rows, Real* out) const {
    pack_panel(kernels_, panels_, of_.b + k0 * of_.N, of_.b_transposed, p, rows, out);
  }

  void multiply(Index m0, Index m1, const Share& panels, const Real* packed) const {
    Matmul<Real> product(panels_, panels);
    product.M = m1 - m0, product.K = of_.K;
    product.rows.first = of_.a + m0 * of_.a_stride, product.rows.stride = of_.a_stride;
    product.packed = packed;
    product.out.first = of_.out + m0 * of_.N, product.out.stride = of_.N;
    if (of_.bias) product.init = Init::given, product.from[0] = bias_;
    if (product.M > 0) matmul(kernels_, &product, 1, {}, nullptr);
  }

  const Kernels<Real>& kernels_;
  const DenseProduct<Real>& of_;
  const int threads_;
  const Panels panels_;
  const Index deep_;  // rows of B that are packed at a time
  const bool by_rows_;
  Barrier barrier_;
  Real *bias_, *packed_, *columns_;
  Index work_size_;
};

template <class Real>
double operations(const DenseProduct<Real>& of) {
  return 2.0 * static_cast<double>(of.M) * static_cast<double>(of.N) * static_cast<double>(of.K);
}

// One below a million operations: waking another one takes microseconds.
template <class Real>
int threads_for(const DenseProduct<Real>& of) {
  return operations(of) < 1e6 ? 1 : of.threads;
}

}  // namespace

template <class Real>
Index packed_dense_size(const Kernels<Real>& kernels, Index N, Index K) {
  return Panels(N, 1, kernels.lanes, kernels.half_panels).size(K);
}

template <class Real>
void pack_dense(const Kernels<Real>& kernels, const Real* b, bool b_transposed, Index N, Index K,
                Real* out) {
  const Panels panels(N, 1, kernels.lanes, kernels.half_panels);
  for (Index p = 0; p < panels.count; ++p)
    pack_panel(kernels, panels, b, b_transposed, p, K, out + panels.at(p, K));
}

template <class Real>
Index dense_work(const Kernels<Real>& kernels, const DenseProduct<Real>& of) {
  Index most = 0;
  for (int n = threads_for(of); n > 0; --n)
    most = larger(most, DensePass<Real>(kernels, of, n, nullptr).work_size());
  return most;
}

template <class Real>
void dense_product(const Kernels<Real>& kernels, const DenseProduct<Real>& of, void* work) {
  const ThreadTeam team(threads_for(of), operations(of) / 1e5);
  DensePass<Real>(kernels, of, team.size(), work).run(team);
}

#define FASTRNN_INSTANTIATE(Real)                                                         \
  template Index packed_dense_size(const Kernels<Real>&, Index, Index);                   \
  template void pack_dense(const Kernels<Real>&, const Real*, bool, Index, Index, Real*); \
  template Index dense_work(const Kernels<Real>&, const DenseProduct<Real>&);             \
  template void dense_product(const Kernels<Real>&, const DenseProduct<Real>&, void*);
FASTRNN_INSTANTIATE(float)
FASTRNN_INSTANTIATE(double)
#undef FASTRNN_INSTANTIATE

}  // namespace fastrnn
