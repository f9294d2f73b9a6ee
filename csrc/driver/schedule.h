// How the work of a call is shared out among threads and steps.
#pragma once

#include "driver/pass.h"

namespace fastrnn {

// Steps are taken in chunks of about this many rows, so that their gates stay in the L2 cache.
constexpr Index kChunkRows = 192;

// Backward they are more where the weights' gradients, which every chunk reads and writes, exceed it.
constexpr Index kLongChunkRows = 512, kLongChunkBytes = 2 << 20;

// The most rows that a chunk of a call with B rows in each of T steps can have.
inline Index chunk_rows(Index T, Index B, Index rows = kChunkRows) {
  const Index most = larger(B, rows);
  return T < most && T * B < most ? T * B : most;
}

struct Partition {
  int threads;
  bool by_rows;         // each thread has rows of its own and waits for no other in the time loop;
                        // else the threads share the panels of every product, a barrier after each
  double microseconds;  // that the call takes one thread, at a hundred operations a nanosecond, or
                        // bytes where weights are first read

  // Sharing rows is best where each thread gets `least_rows`, enough for good tiles, or where there
  // are few panels to share; but weights that a single step reads are read by one thread each. Sharing
  // panels costs a barrier a product, so a step must be worth several; `barrier_latency` is in
  // microseconds, 0 where it is not known. A call below some ten microseconds is not shared at all.
  Partition(const Sizes& z, int gates, int wanted, Index least_rows, double barrier_latency = 0) {
    const double weights = static_cast<double>(gates) * z.H * (z.I + z.P);
    const double step = 2 * z.B * weights;  // floating point operations
    const bool few_panels = z.H < 32 * wanted;
    by_rows = z.B >= (few_panels ? 4 : least_rows) * wanted && (few_panels || z.T > 1);
    threads = wanted;
    microseconds = (step * z.T + weights * sizeof(float)) / 1e5;
    constexpr double least = 6e4, most = 4e5;
    const double worth = 7e5 * barrier_latency;
    const bool small = step < least || (step < worth && step < most);
    if (step * z.T < 1e6 || (!by_rows && small)) threads = 1;
    if (threads == 1) by_rows = true;
  }

  // What a step takes, in microseconds, roughly.
  double step(Index T) const { return microseconds / static_cast<double>(threads * larger(T, 1)); }
};

// The share of the rows, sorted by falling length, that makes equal numbers of steps.
inline Share partition_rows(const Sizes& z, const RowSchedule& rows, int rank, int ranks) {
  if (!rows.batch_sizes) return Share(z.B, rank, ranks);
  Index total = 0;
  for (Index t = 0; t < z.T; ++t) total += rows.batch_sizes[t];
  Share share(z.B, 0, 1);
  Index done = 0, t = z.T;
  for (Index m = 0; m < z.B; ++m) {
    if (done * ranks <= total * rank) share.begin = m;
    if (done * ranks <= total * (rank + 1)) share.end = m;
    while (t > 0 && rows.batch_sizes[t - 1] <= m) --t;
    done += t;
  }
  if (rank == 0) share.begin = 0;
  if (rank + 1 == ranks) share.end = z.B;
  return share;
}

// What is one thread's: in the time loop, rows of its own, or a share of the panels of all rows.
struct Place {
  Index m0, m1;     // its rows
  int rank, ranks;  // its place among those that share them
  int index;        // its place among all

  Place(const Sizes& z, const RowSchedule& rows, const Partition& of, int i)
      : rank(of.by_rows ? 0 : i), ranks(of.by_rows ? 1 : of.threads), index(i) {
    const Share own = of.by_rows ? partition_rows(z, rows, i, of.threads) : Share(z.B, 0, 1);
    m0 = own.begin, m1 = own.end;
  }
  Index size() const { return m1 - m0; }
  Index active(Index count) const { return larger(0, smaller(count, m1) - m0); }
  Share panels(Index count) const { return Share(count, rank, ranks); }
};

// Number of steps of sorted row m: how many times t have batch_sizes[t] > m. Falls with m.
inline Index row_length(const RowSchedule& rows, Index T, Index m) {
  if (!rows.batch_sizes) return T;
  Index low = 0, high = T;
  while (low < high) {
    const Index middle = (low + high) / 2;
    if (rows.batch_sizes[middle] > m)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Lists rows that lie `stride` apart.
template <class Item, class Listed>
void list_rows_at(Item* first, Index stride, Index n, Listed** out) {
  for (Index m = 0; m < n; ++m, first += stride) out[m] = first;
}

// Where the state before and after each step of a pass lies. `h` is (T, B, n) by step; the first
// step of a row starts from `first`, a reset one from `zero`.
template <class Real>
struct History {
  Sequence<const Real> steps;
  const Real* first;  // (B, n)
  const Real* zero;   // (n,)
  Index n;

  const Real* before(const Sizes& z, const RowSchedule& rows, Index t, Index m) const {
    const Index b = rows.row(m);
    if (rows.reset_mask && rows.reset_mask[t * z.B + b]) return zero;
    const Index previous = rows.reverse ? t + 1 : t - 1;
    if (previous < 0 || previous >= z.T || m >= rows.batch_size(previous, z.B))
      return first + b * n;
    return steps.at(previous, b);
  }
};

}  // namespace fastrnn
