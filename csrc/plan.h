// How the work of a call is shared out among threads.

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

// Steps are taken in chunks of about this many rows, so that their gates stay in the L2 cache.
constexpr Index kChunkRows = 192;

// Backward they are more where the weights' gradients, which every chunk reads and writes, exceed it.
constexpr Index kLongChunkRows = 512, kLongChunkBytes = 2 << 20;

// The most rows that a chunk of a call with B rows in each of T steps can have.
FASTRNN_FN Index chunk_rows(Index T, Index B, Index rows = kChunkRows) {
  const Index most = larger(B, rows);
  return T < most && T * B < most ? T * B : most;
}

struct Plan {
  int threads;
  bool by_rows;         // each thread has rows of its own and meets no other in the time loop;
                        // else the threads share the panels of every product and meet after each
  double microseconds;  // that the call takes one thread, at a hundred operations a nanosecond, or
                        // bytes where weights are first read

  // Sharing rows is best where each thread gets `least_rows`, enough for good tiles, or where there
  // are few panels to share; but weights that a single step reads are read by one thread each. Sharing
  // panels costs a meeting a product, so a step must be worth several; `meeting` is in microseconds, 0
  // where it is not known. A call below some ten microseconds is not shared at all.
  FASTRNN_FN Plan(const Sizes& z, int gates, int wanted, Index least_rows, double meeting = 0) {
    const double weights = static_cast<double>(gates) * z.H * (z.I + z.P);
    const double step = 2 * z.B * weights;  // floating point operations
    const bool few_panels = z.H < 32 * wanted;
    by_rows = z.B >= (few_panels ? 4 : least_rows) * wanted && (few_panels || z.T > 1);
    threads = wanted;
    microseconds = (step * z.T + weights * sizeof(float)) / 1e5;
    constexpr double least = 6e4, most = 4e5;
    const double worth = 7e5 * meeting;
    const bool small = step < least || (step < worth && step < most);
    if (step * z.T < 1e6 || (!by_rows && small)) threads = 1;
    if (threads == 1) by_rows = true;
  }

  // What a step takes, in microseconds, roughly.
  double step(Index T) const { return microseconds / static_cast<double>(threads * larger(T, 1)); }
};

// The share of the rows, sorted by falling length, that makes equal numbers of steps.
FASTRNN_NOINLINE Share split_rows(const Sizes& z, const Rows& rows, int rank, int ranks) {
  if (!rows.counts) return Share(z.B, rank, ranks);
  Index total = 0;
  for (Index t = 0; t < z.T; ++t) total += rows.counts[t];
  Share share(z.B, 0, 1);
  Index done = 0, t = z.T;
  for (Index m = 0; m < z.B; ++m) {
    if (done * ranks <= total * rank) share.begin = m;
    if (done * ranks <= total * (rank + 1)) share.end = m;
    while (t > 0 && rows.counts[t - 1] <= m) --t;
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

  FASTRNN_FN Place(const Sizes& z, const Rows& rows, const Plan& plan, int i)
      : rank(plan.by_rows ? 0 : i), ranks(plan.by_rows ? 1 : plan.threads), index(i) {
    const Share own = plan.by_rows ? split_rows(z, rows, i, plan.threads) : Share(z.B, 0, 1);
    m0 = own.begin, m1 = own.end;
  }
  FASTRNN_FN Index size() const { return m1 - m0; }
  FASTRNN_FN Index active(Index count) const { return larger(0, smaller(count, m1) - m0); }
  FASTRNN_FN Share panels(Index count) const { return Share(count, rank, ranks); }
};

// Number of steps of sorted row m: how many times t have counts[t] > m. Falls with m.
FASTRNN_FN Index row_length(const Rows& rows, Index T, Index m) {
  if (!rows.counts) return T;
  Index low = 0, high = T;
  while (low < high) {
    const Index middle = (low + high) / 2;
    if (rows.counts[middle] > m)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

// Where the state before and after each step of a pass lies. `h` is (T, B, n) by step; the first
// step of a row starts from `first`, a cut one from `zero`.
template <class Real>
struct History {
  Sequence<const Real> steps;
  const Real* first;  // (B, n)
  const Real* zero;   // (n,)
  Index n;

  FASTRNN_FN const Real* before(const Sizes& z, const Rows& rows, Index t, Index m) const {
    const Index b = rows.row(m);
    if (rows.cut && rows.cut[t * z.B + b]) return zero;
    const Index previous = rows.reverse ? t + 1 : t - 1;
    if (previous < 0 || previous >= z.T || m >= rows.count(previous, z.B)) return first + b * n;
    return steps.at(previous, b);
  }
};
