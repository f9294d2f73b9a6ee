// The loops of CTC and of linear-chain CRFs, a row of the batch at a time. The same results, to
// rounding, as fastrnn/sequences/loops_numpy.py, which is the reference; Python has checked all.
#include "sequences/losses.h"

#include "driver/share_out.h"
#include "runtime/gil.h"
#include "runtime/portability.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <tuple>
#include <vector>

namespace py = pybind11;

namespace fastrnn {
namespace {

template <class Item>
using Array = py::array_t<Item, py::array::c_style>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kLn2 = 0.693147180559945309417232121458;

// Runs `row(b)` for all b, shared out to threads. Rows share nothing. operations: of exp, log and their
// like, in all rows.
template <class Row>
void each_row(Index rows, double operations, int threads, const Row& row) {
  constexpr double in_a_microsecond = 100, worth_sharing = 1e5;
  std::mutex mutex;
  std::exception_ptr failed;
  if (operations < worth_sharing) threads = 1;
  const int most = static_cast<int>(std::clamp<Index>(threads, 1, std::max<Index>(rows, 1)));
  share_out(most, operations / in_a_microsecond, [&](int rank, int ranks) {
    try {
      for (Index b = rank; b < rows; b += ranks) row(b);
    } catch (...) {  // there is no memory; it must not leave the thread
      const std::lock_guard<std::mutex> lock(mutex);
      failed = std::current_exception();
    }
  });
  if (failed) std::rethrow_exception(failed);
}

// ---- CTC ----------------------------------------------------------------------------------------

// A number >= 0 of any size: m * 2^e, m in [1, 2) or 0, e an integer in a double. Probabilities of
// long sequences fit without logarithms, and a sum needs no exp.
struct Wide {
  double m, e;
};

constexpr double kLeast = -1e300;  // the exponent of 0
constexpr Wide kZero{0, kLeast};
constexpr Wide kOne{1, 0};

double power_of_two(double e) {  // of an integer e <= 0; 0 where it is too small
  if (!(e > -1022)) return 0;
  const auto bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(e) + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// m > 0 and normal
Wide normal(double m, double e) {
  std::uint64_t bits;
  std::memcpy(&bits, &m, sizeof bits);
  const auto exponent = static_cast<std::int64_t>(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffffULL) | (1023ULL << 52);
  std::memcpy(&m, &bits, sizeof m);
  return {m, e + static_cast<double>(exponent)};
}

Wide sum(Wide a, Wide b) {
  const double e = std::max(a.e, b.e);
  const double m = a.m * power_of_two(a.e - e) + b.m * power_of_two(b.e - e);
  return m > 0 ? normal(m, e) : kZero;
}

Wide sum(Wide a, Wide b, Wide c) {
  const double e = std::max(std::max(a.e, b.e), c.e);
  const double m =
      a.m * power_of_two(a.e - e) + b.m * power_of_two(b.e - e) + c.m * power_of_two(c.e - e);
  return m > 0 ? normal(m, e) : kZero;
}

Wide product(Wide a, Wide b) {
  const double m = a.m * b.m;
  return m > 0 ? normal(m, a.e + b.e) : kZero;
}

// exp(log_p), of which p is the rounded value
Wide wide(double p, double log_p) {
  if (p > 1e-290) return normal(p, 0);
  if (log_p == -kInfinity) return kZero;
  const double e = std::floor(log_p / kLn2);
  return normal(std::exp(log_p - e * kLn2), e);
}

struct Labels {
  std::vector<Index> state;  // class of each state: the labels, a blank before and behind each
  std::vector<char> leap;    // whether it is reached from two states before
  Labels(const std::int64_t* targets, Index labels, Index blank)
      : state(static_cast<std::size_t>(2 * labels + 1), blank), leap(state.size(), 0) {
    for (Index s = 0; s < labels; ++s) state[2 * s + 1] = targets[s];
    for (std::size_t s = 2; s < state.size(); ++s)
      leap[s] = state[s] != blank && state[s] != state[s - 2];
  }
};

// One row: its loss, and the gradient of that. z and dz step by `stride` from a time to the next.
template <class Real>
double ctc_row(const Real* z, Real* dz, Index stride, Index steps, Index classes,
               const std::int64_t* targets, Index labels, Index blank) {
  if (steps == 0) return labels == 0 ? 0 : kInfinity;
  const Labels path(targets, labels, blank);
  const Index count = 2 * labels + 1;
  const auto at = [](Index n) { return static_cast<std::size_t>(n); };
  std::vector<double> p(at(steps * classes));
  std::vector<Wide> emit(at(steps * count)), alpha(at(steps * count), kZero);
  bool fine = true;
  for (Index t = 0; t < steps; ++t) {
    const Real* from = z + t * stride;
    double* to = p.data() + t * classes;
    double top = from[0];
    for (Index k = 1; k < classes; ++k) top = std::max(top, static_cast<double>(from[k]));
    double total = 0;
    for (Index k = 0; k < classes; ++k) total += to[k] = std::exp(from[k] - top);
    const double log_total = std::log(total);
    fine = fine && std::isfinite(log_total);
    for (Index k = 0; k < classes; ++k) to[k] /= total;
    for (Index s = 0; s < count; ++s) {
      const Index k = path.state[at(s)];
      emit[at(t * count + s)] = wide(to[k], from[k] - top - log_total);
    }
  }
  const auto spoiled = [&](double loss) {
    for (Index t = 0; t < steps; ++t)
      std::fill_n(dz + t * stride, classes, static_cast<Real>(kNaN));
    return loss;
  };
  if (!fine) return spoiled(kNaN);

  // What cannot be reached from the start, or cannot reach the end any more, is left out.
  const auto first = [&](Index t) { return std::max<Index>(0, count - 2 * (steps - t)); };
  const auto last = [&](Index t) { return std::min(count, 2 * (t + 1)); };
  for (Index s = first(0); s < last(0); ++s) alpha[at(s)] = emit[at(s)];
  for (Index t = 1; t < steps; ++t) {
    const Wide* before = alpha.data() + (t - 1) * count;
    for (Index s = first(t); s < last(t); ++s) {
      const Wide one = s > 0 ? before[s - 1] : kZero;
      const Wide reached =
          path.leap[at(s)] ? sum(before[s], one, before[s - 2]) : sum(before[s], one);
      alpha[at(t * count + s)] = product(reached, emit[at(t * count + s)]);
    }
  }
  const Wide* ends = alpha.data() + (steps - 1) * count;
  const Wide all = count > 1 ? sum(ends[count - 1], ends[count - 2]) : ends[0];
  if (all.m == 0) return spoiled(kInfinity);

  std::vector<Wide> beta(at(count), kZero), next(at(count + 2), kZero);
  for (Index t = steps - 1; t >= 0; --t) {
    if (t == steps - 1) {
      beta[at(count - 1)] = kOne;
      if (count > 1) beta[at(count - 2)] = kOne;
    } else {
      const Wide* ahead = emit.data() + (t + 1) * count;
      for (Index s = 0; s < count; ++s) next[at(s)] = product(beta[at(s)], ahead[s]);
      for (Index s = first(t); s < last(t); ++s) {
        const Wide two = s + 2 < count && path.leap[at(s + 2)] ? next[at(s + 2)] : kZero;
        beta[at(s)] = sum(next[at(s)], next[at(s + 1)], two);
      }
      for (Index s = last(t); s < count; ++s) beta[at(s)] = kZero;
      for (Index s = 0; s < first(t); ++s) beta[at(s)] = kZero;
    }
    double* share = p.data() + t * classes;
    for (Index s = first(t); s < last(t); ++s) {
      const Wide a = alpha[at(t * count + s)], b = beta[at(s)];
      if (a.m > 0 && b.m > 0)
        share[path.state[at(s)]] -=
            a.m * b.m / all.m *
            std::ldexp(1.0, static_cast<int>(std::max(a.e + b.e - all.e, -2000.0)));
    }
    for (Index k = 0; k < classes; ++k) dz[t * stride + k] = static_cast<Real>(share[k]);
  }
  return -(std::log(all.m) + all.e * kLn2);
}

template <class Real>
py::tuple ctc(const Array<Real>& logits, const Array<std::int64_t>& targets,
              const Array<std::int64_t>& steps, const Array<std::int64_t>& labels, Index blank,
              int threads) {
  const Index T = logits.shape(0), B = logits.shape(1), C = logits.shape(2), S = targets.shape(1);
  py::array_t<double> losses(B);
  py::array_t<Real> dlogits({T, B, C});
  const Real* z = logits.data();
  Real* dz = dlogits.mutable_data();
  double* out = losses.mutable_data();
  const std::int64_t *to = targets.data(), *n = steps.data(), *s = labels.data();
  {
    const WithoutGil release;
    const double work =
        static_cast<double>(T) * static_cast<double>(B) * static_cast<double>(C + 8 * S + 1);
    each_row(B, work, threads, [&](Index b) {
      for (Index t = n[b]; t < T; ++t) std::fill_n(dz + (t * B + b) * C, C, Real(0));
      out[b] = ctc_row(z + b * C, dz + b * C, B * C, n[b], C, to + b * S, s[b], blank);
    });
  }
  return py::make_tuple(losses, dlogits);
}

// ---- CRF ----------------------------------------------------------------------------------------

// log(sum(exp(a))) of n numbers; -inf of nothing else.
template <class Number>
double log_sum(Index n, const Number& a) {
  double top = -kInfinity;
  for (Index i = 0; i < n; ++i) top = std::max(top, a(i));
  if (top == -kInfinity) top = 0;
  double total = 0;
  for (Index i = 0; i < n; ++i) total += std::exp(a(i) - top);
  return std::log(total) + top;
}

struct Chain {
  Index T, B, C;
  const double *scores, *transitions, *start, *end;
  const std::int64_t* lengths;

  double score(Index t, Index b, Index j) const { return scores[(t * B + b) * C + j]; }
  double work() const {
    return 8 * static_cast<double>(T) * static_cast<double>(B) * static_cast<double>(C * C);
  }
};

Chain chain(const Array<double>& scores, const Array<double>& transitions,
            const Array<double>& start, const Array<double>& end,
            const Array<std::int64_t>& lengths) {
  return {scores.shape(0),    scores.shape(1), scores.shape(2), scores.data(),
          transitions.data(), start.data(),    end.data(),      lengths.data()};
}

// One row: the log of the sum over all taggings; its marginals (zeros so far) and pairs.
double crf_row(const Chain& c, Index b, double* marginals, double* pairs) {
  const Index n = c.lengths[b], C = c.C;
  if (n == 0) return 0;
  std::vector<double> alpha(static_cast<std::size_t>(n * C)), beta(c.end, c.end + C), ahead(beta);
  for (Index j = 0; j < C; ++j) alpha[static_cast<std::size_t>(j)] = c.score(0, b, j) + c.start[j];
  for (Index t = 1; t < n; ++t) {
    const double* before = alpha.data() + (t - 1) * C;
    for (Index j = 0; j < C; ++j)
      alpha[static_cast<std::size_t>(t * C + j)] = c.score(t, b, j) + log_sum(C, [&](Index i) {
                                                     return before[i] + c.transitions[i * C + j];
                                                   });
  }
  const double* ends = alpha.data() + (n - 1) * C;
  const double log_z = log_sum(C, [&](Index i) { return ends[i] + c.end[i]; });
  for (Index t = n - 1; t >= 0; --t) {
    const double* here = alpha.data() + t * C;
    if (t < n - 1) {
      for (Index j = 0; j < C; ++j)
        ahead[static_cast<std::size_t>(j)] =
            c.score(t + 1, b, j) + beta[static_cast<std::size_t>(j)];
      for (Index i = 0; i < C; ++i) {
        const double* to = c.transitions + i * C;
        beta[static_cast<std::size_t>(i)] =
            log_sum(C, [&](Index j) { return to[j] + ahead[static_cast<std::size_t>(j)]; });
        for (Index j = 0; j < C; ++j)
          pairs[i * C + j] +=
              std::exp(here[i] + to[j] + ahead[static_cast<std::size_t>(j)] - log_z);
      }
    }
    for (Index j = 0; j < C; ++j)
      marginals[(t * c.B + b) * C + j] =
          std::exp(here[j] + beta[static_cast<std::size_t>(j)] - log_z);
  }
  return log_z;
}

py::tuple crf(const Array<double>& scores, const Array<double>& transitions,
              const Array<double>& start, const Array<double>& end,
              const Array<std::int64_t>& lengths, int threads) {
  const Chain c = chain(scores, transitions, start, end, lengths);
  py::array_t<double> log_z(c.B), marginals({c.T, c.B, c.C}), pairs({c.C, c.C});
  std::fill_n(marginals.mutable_data(), marginals.size(), 0.0);
  std::fill_n(pairs.mutable_data(), pairs.size(), 0.0);
  // Each row has its own, added up in the order of the rows, however many threads there are.
  std::vector<double> own(static_cast<std::size_t>(c.B * c.C * c.C), 0.0);
  double *z = log_z.mutable_data(), *m = marginals.mutable_data(), *sum = pairs.mutable_data();
  {
    const WithoutGil release;
    const Index size = c.C * c.C;
    each_row(c.B, c.work(), threads,
             [&](Index b) { z[b] = crf_row(c, b, m, own.data() + b * size); });
    for (Index b = 0; b < c.B; ++b)
      for (Index k = 0; k < size; ++k) sum[k] += own[static_cast<std::size_t>(b * size + k)];
  }
  return py::make_tuple(log_z, marginals, pairs);
}

void viterbi_row(const Chain& c, Index b, std::int64_t* tags) {
  const Index n = c.lengths[b], C = c.C;
  if (n == 0) return;
  std::vector<std::int64_t> origin(static_cast<std::size_t>(n * C), 0);
  std::vector<double> best(static_cast<std::size_t>(C)), moved(best);
  for (Index j = 0; j < C; ++j) best[static_cast<std::size_t>(j)] = c.score(0, b, j) + c.start[j];
  for (Index t = 1; t < n; ++t) {
    for (Index j = 0; j < C; ++j) {
      Index from = 0;
      double top = best[0] + c.transitions[j];
      for (Index i = 1; i < C; ++i) {
        const double value = best[static_cast<std::size_t>(i)] + c.transitions[i * C + j];
        if (value > top) top = value, from = i;
      }
      origin[static_cast<std::size_t>(t * C + j)] = from;
      moved[static_cast<std::size_t>(j)] = top + c.score(t, b, j);
    }
    best.swap(moved);
  }
  Index tag = 0;
  for (Index j = 1; j < C; ++j)
    if (best[static_cast<std::size_t>(j)] + c.end[j] >
        best[static_cast<std::size_t>(tag)] + c.end[tag])
      tag = j;
  for (Index t = n - 1; t >= 0; --t) {
    tags[t * c.B + b] = tag;
    tag = origin[static_cast<std::size_t>(t * C + tag)];
  }
}

py::array_t<std::int64_t> viterbi(const Array<double>& scores, const Array<double>& transitions,
                                  const Array<double>& start, const Array<double>& end,
                                  const Array<std::int64_t>& lengths, int threads) {
  const Chain c = chain(scores, transitions, start, end, lengths);
  py::array_t<std::int64_t> tags({c.T, c.B});
  std::int64_t* to = tags.mutable_data();
  std::fill_n(to, tags.size(), -1);
  const WithoutGil release;
  each_row(c.B, c.work() / 8, threads, [&](Index b) { viterbi_row(c, b, to); });
  return tags;
}

}  // namespace

void bind_sequence_losses(py::module_& m) {
  m.def("ctc32", &ctc<float>);
  m.def("ctc64", &ctc<double>);
  m.def("crf", &crf);
  m.def("viterbi", &viterbi);
}

}  // namespace fastrnn
