// The walk of a product over its panels and rows.
#pragma once

#include <cstring>

#include "kernels/table.h"

namespace fastrnn {

constexpr Index kLineBytes = 64;  // of the caches

// A long panel is gone through in pieces, which stay in the L2 cache from tile to tile, where sums can
// be taken up again.
constexpr Index kPieceBytes = 256 * 1024;

// A sum of more terms is made of chains of so many, each added to those before together with what the
// roundings left: else its error grows with the terms (docs/adr/0025-sums-of-many-terms.md).
constexpr Index kChainTerms = 4096;

// Weights of more bytes than these wait beyond the L2 cache; where a panel meets rows enough, the next one
// is fetched meanwhile.
constexpr Index kFetchBytes = 1 << 20, kFetchRows = 12;

// Rows whose sums an epilogue takes at once, whole tiles of 3, 4, 6 or 8; up to as many more if they
// are the last ones.
constexpr Index kBlockRows = 24, kMostBlockRows = 32;

// A part of the rows and of the panels.
struct Block {
  Index m0, m1, p0, p1;
};

// Sums on their way from tiles to an epilogue, or to where vectors are not full.
constexpr Index kMaxSums = kMostBlockRows * kMaxTileVectors * kMaxLanes;
template <class Real>
struct TileBuffer {
  alignas(kLineBytes) Real sums[kMaxSums];
};

// Walks over panels, and over the rows of each of them; a product of every step is set up once.
template <class Real>
class Walk {
 public:
  // b: the panels, `K` factors deep
  Walk(const Kernels<Real>& isa, const TileKernels<Real>& kernels, const Matmul<Real>& of,
       const void* b, Index K, TileBuffer<Real>* buffer)
      : isa_(isa),
        kernels_(kernels),
        of_(of),
        b_(static_cast<const char*>(b)),
        K_(K),
        panel_bytes_(K * of.panels.full() * of.panels.lanes * kernels.factor_size),
        piece_(K),
        sums_(buffer->sums) {
    t_.rows = of.rows.list;
    t_.a = of.columns ? of.columns : of.rows.first;
    t_.stride = of.columns ? of.ld : of.rows.stride;
    t_.scales = nullptr;
    t_.first_k = 0;
    t_.init = of.init;
    const Panels& panels = of.panels;
    const Index lanes = panels.lanes;
    start();
    t_.first = 0;
    t_.pair_b = K * panels.together(panels.full()) * lanes;
    t_.pair_unit = panels.units * lanes;
    if (K > kChainTerms || (!of.epilogue && !of.columns && of.init != Init::given))
      piece_ = kPieceBytes / (panels.full() * lanes * kernels.factor_size);
  }

  // Reads again what the product starts from.
  void start() {
    const Panels& panels = of_.panels;
    const Index lanes = panels.lanes;
    const int units = panels.count > 1 ? panels.units : panels.last_units;
    for (int u = 0, n = 0; of_.init == Init::given && u < units; ++u) {
      for (int g = 0; g < panels.gates; ++g, ++n) {
        t_.from[n] = of_.from[g] + u * lanes;
        t_.from_stride[n] = of_.from_stride[g];
      }
    }
  }

  // Row m of A is row m - first of these, `stride` factors apart, or column m - first.
  void take_rows(const Half* pairs, Index first, Index stride) {
    const Index pair = 2 * static_cast<Index>(sizeof(Half));
    t_.rows = nullptr;
    t_.a = reinterpret_cast<const void*>(reinterpret_cast<std::intptr_t>(pairs) -
                                         first * (of_.columns ? 1 : stride) * pair);
    t_.stride = stride;
  }

  void take_scales(const float* scales) { scales_ = scales; }

  // reverse: from the last panel to the first, for weights that exceed the L2 cache, where what was used
  // last is still there.
  void run(const Block& block, bool reverse) {
    const Panels& panels = of_.panels;
    const Index rows = block.m1 - block.m0;
    if (rows == 1 && !of_.columns) return run_row(block, reverse);
    const bool fetches =
        !of_.columns && rows >= kFetchRows && (block.p1 - block.p0) * panel_bytes_ > kFetchBytes;
    for (Index i = block.p0; i < block.p1; ++i) {
      const Index p = reverse ? block.p1 - 1 - (i - block.p0) : i;
      const char* next = nullptr;
      if (fetches && i + 1 < block.p1) {
        if (reverse)
          next = panel(p - 1);
        else if (p + 2 < panels.count || panels.last_is_full())
          next = panel(p + 1);
      }
      run_panel(block, p, next);
    }
  }

  // One panel that lies elsewhere.
  void run_alone(const Block& block, Index p, const void* packed) {
    b_ = static_cast<const char*>(packed) - p * panel_bytes_;
    run_panel(block, p, nullptr);
  }

 private:
  const char* panel(Index p) const { return b_ + p * panel_bytes_; }

  // A panel of n vectors, sums at sums_ (`buffered`) or where they belong.
  void select(int n, int units, bool buffered, int neighbours = 1) {
    const Index lanes = of_.panels.lanes;
    if (vectors_ == n && buffered_ == buffered && neighbours_ == neighbours) return;
    vectors_ = n, units_ = units, buffered_ = buffered, neighbours_ = neighbours;
    if (buffered) {
      t_.add = false;
      t_.out = {nullptr, sums_, n * neighbours * lanes};
      t_.pair_out = n * lanes;
      for (int v = 0; v < n; ++v) t_.at[v] = v * lanes;
    } else {
      t_.add = of_.add;
      t_.out = of_.out;
      t_.pair_out = t_.pair_unit;
      const int gates = of_.panels.gates;
      for (int u = 0, v = 0; u < units; ++u)
        for (int g = 0; g < gates; ++g, ++v) t_.at[v] = g * of_.gate_stride + u * lanes;
    }
  }

  // Where the last vector of units is not full, sums are copied to and from the output.
  bool is_partial(Index p) const {
    const Panels& panels = of_.panels;
    return p + 1 == panels.count && !of_.out_is_padded && panels.padded() > panels.N;
  }

  void run_panel(const Block& block, Index p, const char* next) {
    if (K_ > kChainTerms) return run_chains(block, p, 1);
    const Panels& panels = of_.panels;
    const bool partial = !of_.epilogue && is_partial(p);
    select(panels.vectors_in(p), panels.units_in(p), of_.epilogue || partial);
    t_.unit = panels.unit(p);
    t_.out_unit = buffered_ ? 0 : t_.unit;
    if (scales_) t_.scales = scales_ + t_.unit * panels.gates;
    panel_ = panel(p);
    k_ = 0;
    do {  // once even without a factor
      t_.first_k = k_;
      t_.K = smaller(piece_, K_ - k_);
      t_.init = k_ > 0 ? Init::output : of_.init;
      if (buffered_)
        run_blocks(block, partial, next);
      else
        run_tiles(block.m0, block.m1, block.m0, next);
      k_ += piece_;
    } while (k_ < K_);
  }

  // A panel whose sums are made of chains; or, of one row, two neighbours.
  void run_chains(const Block& block, Index p, int neighbours) {
    const Panels& panels = of_.panels;
    const Index lanes = panels.lanes;
    select(panels.vectors_in(p), panels.units_in(p), true, neighbours);
    panel_ = panel(p);
    t_.unit = panels.unit(p), t_.out_unit = 0;
    if (scales_) t_.scales = scales_ + t_.unit * panels.gates;
    const Index width = panels.together(vectors_) * lanes * kernels_.factor_size;
    const Index row = neighbours * vectors_ * lanes;  // sums
    alignas(64) Real high[kMaxSums], low[kMaxSums];
    for (Index m = block.m0, rows; m < block.m1; m += rows) {
      rows = smaller(kBlockRows, block.m1 - m);
      for (Index k = 0, end; k < K_; k = end) {
        const Index begun = k % kChainTerms;
        t_.first_k = k;
        k_ = k;
        t_.K = smaller(smaller(piece_, kChainTerms - begun), K_ - k);
        t_.init = begun > 0 ? Init::output : k > 0 ? Init::zero : of_.init;
        if (t_.init == Init::output && k == 0)
          each_output(m, rows, [](Real* sums, const Real* out, std::size_t bytes) {
            std::memcpy(sums, out, bytes);
          });
        if (neighbours == 1) {
          run_tiles(m, m + rows, 0, nullptr);
        } else {
          t_.b = panel_ + k * width;
          t_.m = m, t_.out_m = 0, t_.fetch = nullptr;
          kernels_.pair[vectors_](t_);
        }
        end = k + t_.K;
        if (end % kChainTerms == 0 || end == K_)
          isa_.settle({sums_, high, low, end <= kChainTerms, end == K_}, 0, rows * row);
      }
      if (of_.epilogue)
        of_.epilogue(of_.step, {m, rows, t_.unit, neighbours * units_, sums_, row, lanes});
      else
        each_output(m, rows, [](const Real* sums, Real* out, std::size_t bytes) {
          std::memcpy(out, sums, bytes);
        });
    }
  }

  // copy(sums, out, bytes) for each vector of some rows of what is selected
  template <class Copy>
  void each_output(Index m, Index rows, const Copy& copy) {
    const Panels& panels = of_.panels;
    const Index lanes = panels.lanes;
    Real* sums = sums_;
    for (Index r = m; r < m + rows; ++r) {
      for (int n = 0; n < neighbours_ * vectors_; ++n, sums += lanes) {
        const Index unit = t_.unit + n / panels.gates * lanes;
        const Index there = of_.out_is_padded ? lanes : smaller(lanes, panels.N - unit);
        copy(sums, of_.out[r] + n % panels.gates * of_.gate_stride + unit,
             static_cast<std::size_t>(there) * sizeof(Real));
      }
    }
  }

  // Loads what sums of some rows of a partial panel start from.
  void load_partial(Index m, Index rows) {
    const Index unit = t_.unit, N = of_.panels.N;
    if (t_.init == Init::output)
      isa_.load_partial({{of_.out.list, of_.out.first, of_.out.stride}, m, rows, unit, N}, sums_);
    else if (t_.init == Init::given)
      isa_.load_partial({{nullptr, of_.from[0], of_.from_stride[0]}, m, rows, unit, N}, sums_);
  }

  void run_blocks(const Block& block, bool partial, const char* next) {
    const Panels& panels = of_.panels;
    const Index lanes = panels.lanes;
    const Init init = t_.init;
    for (Index m = block.m0; m < block.m1; next = nullptr) {
      const Index left = block.m1 - m, rows = left <= kMostBlockRows ? left : kBlockRows;
      t_.init = init;
      if (partial) load_partial(m, rows);
      if (partial && init != Init::zero) t_.init = Init::output;
      run_tiles(m, m + rows, 0, next);
      if (partial)
        isa_.store_partial({of_.out, m, rows, t_.unit, panels.N}, sums_, of_.add);
      else
        of_.epilogue(of_.step, {m, rows, t_.unit, units_, sums_, vectors_ * lanes, lanes});
      m += rows;
    }
  }

  // A panel's tiles, of one half after the other; few rows take both at once. The first tiles fetch the
  // next panel, if there is one, into the L2 cache.
  void run_tiles(Index m, Index end, Index out_m, const char* next) {
    const Panels& panels = of_.panels;
    const int together = panels.together(vectors_);
    const Index lane_bytes = panels.lanes * kernels_.factor_size;
    const char* b = panel_ + k_ * together * lane_bytes;
    if (next) next += k_ * panels.together(panels.full()) * lane_bytes;
    const int step = end - m > kernels_.most_rows[vectors_] ? together : vectors_;
    for (int first = 0; first < vectors_; first += step) {
      const Index at = first * K_ * lane_bytes;
      t_.first = first;
      t_.b = b + at;
      run_tiles_of(step, m, end, out_m, next ? next + at : nullptr);
    }
    t_.first = 0;
  }

  // Tiles of as many rows as there are registers for, the last two of about as many each. None is left
  // to run alone, since one row has too few chains to keep the multipliers busy.
  void run_tiles_of(int vectors, Index m, Index end, Index out_m, const char* next) {
    const TileKernel<Real>* tiles = kernels_.tile[vectors];
    const int most = kernels_.most_rows[vectors];
    const Index width = vectors * of_.panels.lanes * kernels_.factor_size;
    int rows = most;
    for (Index fetched = 0; m < end; m += rows, out_m += rows, fetched += kLineBytes) {
      const Index left = end - m;
      if (left < 2 * most) {
        rows = static_cast<int>(left > most ? (left + 1) / 2 : left);
        while (!tiles[rows] || (left == rows + 1 && rows > 1)) --rows;
      }
      t_.m = m, t_.out_m = out_m;
      t_.fetch = next && rows == most && fetched < width ? next + fetched * t_.K : nullptr;
      tiles[rows](t_);
    }
  }

  // One row by as many panels as an epilogue takes at once, two at a time.
  void run_row(const Block& block, bool reverse) {
    const Panels& panels = of_.panels;
    if (K_ > kChainTerms) {
      for (Index p = block.p0, n; p < block.p1; p += n) {
        n = p + 1 < block.p1 && (p + 2 < panels.count || panels.last_is_full()) ? 2 : 1;
        run_chains(block, p, static_cast<int>(n));
      }
      return;
    }
    if (piece_ < K_) {  // sums are taken up again in the output
      for (Index p = block.p0; p < block.p1; ++p) run_panel(block, p, nullptr);
      return;
    }
    const Index lanes = panels.lanes, panel_sums = panels.full() * lanes;
    constexpr Index at_once = kMostBlockRows;
    t_.m = block.m0, t_.out_m = 0, t_.first_k = 0, t_.K = K_, t_.fetch = nullptr;
    for (Index done = 0, n; done < block.p1 - block.p0; done += n) {
      n = smaller(at_once, block.p1 - block.p0 - done);
      const Index p0 = reverse ? block.p1 - done - n : block.p0 + done;
      const bool partial = !of_.epilogue && is_partial(p0 + n - 1);
      const bool buffered = of_.epilogue || partial;
      t_.unit = panels.unit(p0), t_.init = of_.init;
      if (partial) load_partial(block.m0, 1);
      if (partial && of_.init != Init::zero) t_.init = Init::output;
      for (Index i = 0; i < n;) {
        // the neighbour is full as well, unless it is the short last one
        const Index p = p0 + (reverse ? n - 1 - i : i), low = reverse ? p - 1 : p;
        const bool pair = i + 1 < n && (low + 2 < panels.count || panels.last_is_full());
        const Index from = pair ? low : p;
        select(panels.vectors_in(from), panels.units_in(from), buffered, pair ? 2 : 1);
        t_.b = panel(from);
        t_.unit = panels.unit(from);
        if (scales_) t_.scales = scales_ + t_.unit * panels.gates;
        t_.out_m = buffered ? 0 : block.m0;
        t_.out_unit = buffered ? (from - p0) * panel_sums : t_.unit;
        (pair ? kernels_.pair[vectors_] : kernels_.tile[vectors_][1])(t_);
        i += pair ? 2 : 1;
      }
      const Index units = (n - 1) * panels.units + panels.units_in(p0 + n - 1);
      if (of_.epilogue)
        of_.epilogue(of_.step, {block.m0, 1, panels.unit(p0), units, sums_, 0, lanes});
      else if (partial)
        isa_.store_partial({of_.out, block.m0, 1, panels.unit(p0), panels.N}, sums_, of_.add);
    }
  }

  const Kernels<Real>& isa_;
  const TileKernels<Real>& kernels_;
  const Matmul<Real>& of_;
  const char* b_;
  Index K_, panel_bytes_, piece_;
  const float* scales_ = nullptr;
  TileCall<Real> t_;
  // what is selected
  int vectors_ = 0, units_ = 0, neighbours_ = 0;
  bool buffered_ = false;
  const char* panel_ = nullptr;
  Index k_ = 0;  // of a panel: how deep the piece lies
  Real* sums_;
};

}  // namespace fastrnn
