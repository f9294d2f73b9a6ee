// Every instruction set must give the scalar kernels' bits: random passes of every cell and type,
// forward and backward, with tails, ragged rows, resets, quantised weights, both directions, one to five
// threads, and several calls at a time. Dot products of bfloat16 must give the same bits for any number
// of threads. Runs without Python, so also under an emulator and under sanitizers.
//
// The first line is a digest of the scalar kernels' results, which every platform must give:
// nothing of the inputs is left to the standard library.
//
// Usage: kernels_test [passes for each cell and type; 0: the digest alone]
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "driver/pass.h"

namespace fastrnn {
extern const KernelTable scalar_table, avx2_table, avx512_table, avx512bf16_table, neon_table,
    wasm128_table;
}

using namespace fastrnn;

namespace {

// An array with a guard on either side, which tells a write outside it.
template <class Real>
class Array {
 public:
  explicit Array(Index size = 0) : values_(size + 2 * kGuard, kMark) {}
  Real* data() { return size() ? values_.data() + kGuard : nullptr; }
  const Real* data() const { return size() ? values_.data() + kGuard : nullptr; }
  Index size() const { return static_cast<Index>(values_.size()) - 2 * kGuard; }
  Real* begin() { return values_.data() + kGuard; }
  Real* end() { return values_.data() + kGuard + size(); }

  bool guarded() const {
    for (Index i = 0; i < kGuard; ++i)
      if (values_[i] != kMark || values_[values_.size() - 1 - i] != kMark) return false;
    return true;
  }
  // the same bits, guards included; any NaN equals any NaN
  bool same(const Array& other) const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const Real a = values_[i], b = other.values_[i];
      if (std::memcmp(&a, &b, sizeof a) != 0 && (a == a || b == b)) return false;
    }
    return true;
  }

 private:
  static constexpr Index kGuard =
      64;  // a vector of the widest kind, in bytes of the narrowest type
  static constexpr Real kMark = static_cast<Real>(1234.5);
  std::vector<Real> values_;
};

// One random call: everything that a pass reads.
template <class Real>
struct Inputs {
  int cell;
  Sizes sizes;
  RowSchedule rows;
  std::vector<std::int64_t> sorted_indices, batch_sizes;
  std::vector<std::uint8_t> reset_mask;
  Array<Real> ih, hh, b_ih, b_hh, hr, peephole, x, h0, c0, dy, dh, dc;
  CellOptions<Real> options;
  bool keep;
  WeightType type = WeightType::real;
  bool unpacked = false;  // the weights of one step, without packing: the same bits

  Inputs(const CellTraits& traits, int index, std::mt19937& draw) : cell(index) {
    const auto below = [&](Index n) { return static_cast<Index>(draw() % n); };
    sizes.T = 1 + below(6);
    sizes.B = 1 + below(draw() % 4 ? 9 : 40);
    sizes.I = 1 + below(24);
    sizes.H = 1 + below(draw() % 4 ? 40 : 140);
    sizes.projected = traits.has_c && draw() % 3 == 0;
    sizes.P = sizes.projected ? 1 + below(sizes.H) : sizes.H;
    const auto [T, B, I, H, P, projected] = sizes;
    const Index G = traits.gates;
    const bool bias = draw() % 4 != 0;

    ih = random(G * H * I, draw);
    hh = random(G * H * P, draw);
    b_ih = random(bias ? G * H : 0, draw);
    b_hh = random(bias ? G * H : 0, draw);
    hr = random(projected ? P * H : 0, draw);
    peephole = random(traits.peephole ? 3 * H : 0, draw);
    x = random(T * B * I, draw);
    h0 = random(B * P, draw);
    c0 = random(traits.has_c ? B * H : 0, draw);
    dy = random(draw() % 4 ? T * B * P : 0, draw);
    dh = random(B * P, draw);
    dc = random(traits.has_c ? B * H : 0, draw);
    for (Activation* each : {&options.gate, &options.candidate, &options.output})
      *each = Activation(draw() % 4);
    options.slope = draw() % 2 ? Real(0.2) : Real(1) / 6;
    options.clip = draw() % 2 ? std::numeric_limits<Real>::infinity() : Real(0.75);
    options.coupled = draw() % 2 == 0;
    keep = draw() % 4 != 0;
    if (!keep && sizeof(Real) == 4) type = WeightType(draw() % 3);
    unpacked = sizes.T == 1 && type == WeightType::real;

    rows = {nullptr, nullptr, nullptr, draw() % 2 == 0};
    if (draw() % 2) {  // lengths fall along order; 0 occurs
      batch_sizes.resize(T);
      Index running = B;
      for (auto& size : batch_sizes) size = running = running - below(running / 2 + 1);
      sorted_indices.resize(B);
      for (Index b = 0; b < B; ++b) sorted_indices[b] = B - 1 - b;
      rows.sorted_indices = sorted_indices.data();
      rows.batch_sizes = batch_sizes.data();
    }
    if (draw() % 2) {
      reset_mask.resize(T * B);
      for (auto& flag : reset_mask) flag = draw() % 3 == 0;
      rows.reset_mask = reset_mask.data();
    }
  }

  Weights<const Real> weights() const {
    return {ih.data(), hh.data(), b_ih.data(), b_hh.data(), hr.data(), peephole.data()};
  }

  std::string text(const char* isa, const char* name, int threads) const {
    return std::string(name) + (sizeof(Real) == 4 ? " float32 " : " float64 ") + isa +
           " T=" + std::to_string(sizes.T) + " B=" + std::to_string(sizes.B) +
           " I=" + std::to_string(sizes.I) + " H=" + std::to_string(sizes.H) +
           " P=" + std::to_string(sizes.P) +
           " lengths=" + std::to_string(rows.batch_sizes != nullptr) +
           " resets=" + std::to_string(rows.reset_mask != nullptr) +
           " reverse=" + std::to_string(rows.reverse) + " keep=" + std::to_string(keep) +
           " type=" + std::to_string(static_cast<int>(type)) +
           " unpacked=" + std::to_string(unpacked) + " threads=" + std::to_string(threads);
  }

 private:
  static Array<Real> random(Index size, std::mt19937& draw) {
    Array<Real> values(size);
    for (Real& value : values)  // -1 .. 1, by 2^-23
      value = static_cast<Real>(static_cast<std::int64_t>(draw() >> 8) - (1 << 23)) / (1 << 23);
    return values;
  }
};

// Everything that the kernels write.
template <class Real>
struct Result {
  Array<Real> y, hn, cn, saved_y, gates, c;                  // forward
  Array<Real> dx, dh, dc, ih, hh, b_ih, b_hh, hr, peephole;  // backward

  bool operator==(const Result& o) const {
    return y.same(o.y) && hn.same(o.hn) && cn.same(o.cn) && saved_y.same(o.saved_y) &&
           gates.same(o.gates) && c.same(o.c) && dx.same(o.dx) && dh.same(o.dh) && dc.same(o.dc) &&
           ih.same(o.ih) && hh.same(o.hh) && b_ih.same(o.b_ih) && b_hh.same(o.b_hh) &&
           hr.same(o.hr) && peephole.same(o.peephole);
  }
  bool inside = true;  // nothing was written beside the workspace

  std::vector<const Array<Real>*> all() const {
    return {&y,  &hn, &cn, &saved_y, &gates, &c,  &dx,      &dh,
            &dc, &ih, &hh, &b_ih,    &b_hh,  &hr, &peephole};
  }

  bool guarded() const {
    if (!inside) return false;
    for (const auto* a : all())
      if (!a->guarded()) return false;
    return true;
  }
};

template <class Real>
Array<Real> zeros(Index size) {
  Array<Real> values(size);
  for (Real& value : values) value = 0;
  return values;
}

// The weights of a phase in bfloat16 terms, if `how` wants them.
template <class Real>
Array<Half> terms(const Pass<Real>& pass, const Inputs<Real>& inputs, Phase phase,
                  const Algorithms& how, int threads, const Array<Real>& packed) {
  Array<Half> split(pass.split_size(inputs.sizes, phase, how));
  if (split.size()) pass.split(inputs.sizes, phase, how, threads, packed.data(), split.data());
  return split;
}

template <class Real>
Result<Real> run(const KernelTable& table, const Inputs<Real>& inputs, int threads,
                 const Algorithms& how = {}, bool unpacked = false) {
  const Pass<Real> pass(table, inputs.cell);
  const auto [T, B, I, H, P, projected] = inputs.sizes;
  const Index S = pass.traits().saved;
  Result<Real> out;

  Array<Real> packed(pass.packed_size(inputs.sizes, Phase::forward));
  pass.pack(inputs.sizes, inputs.weights(), Phase::forward, threads, packed.data());
  out.y = zeros<Real>(T * B * P);
  out.hn = zeros<Real>(B * P);
  out.cn = zeros<Real>(pass.traits().has_c ? B * H : 0);
  out.saved_y = zeros<Real>(inputs.keep ? T * B * P : 0);
  out.gates = zeros<Real>(inputs.keep ? T * B * S * H : 0);
  out.c = zeros<Real>(inputs.keep && pass.traits().has_c ? T * B * H : 0);
  ForwardCall<Real> forward{};
  forward.sizes = inputs.sizes;
  forward.rows = inputs.rows;
  forward.threads = threads;
  forward.options = inputs.options;
  forward.packed = packed.data();
  const Array<Half> split = terms(pass, inputs, Phase::forward, how, threads, packed);
  forward.split = {split.data(), how};
  Array<Real> quantized;
  if (inputs.type != WeightType::real) {
    quantized = Array<Real>(pass.quantized_size(inputs.sizes, inputs.type) / sizeof(Real));
    pass.quantize(inputs.sizes, inputs.type, packed.data(), quantized.data());
    forward.packed = quantized.data();
    forward.type = inputs.type;
  }
  if (unpacked) {
    forward.type = WeightType::unpacked;
    forward.packed = nullptr;
    forward.parameters = inputs.weights();
  }
  forward.x = {inputs.x.data(), B * I, I};
  forward.h0 = inputs.h0.data();
  forward.c0 = inputs.c0.data();
  forward.hn = out.hn.data();
  forward.cn = out.cn.data();
  forward.y = {out.y.data(), B * P, P};
  forward.saved_y = out.saved_y.data();
  forward.gates = out.gates.data();
  forward.c = out.c.data();
  Array<double> forward_work(pass.forward_work(forward) / sizeof(double) + 1);
  forward.work = forward_work.data();
  pass.forward(forward);
  out.inside = forward_work.guarded() && split.guarded();
  if (!inputs.keep) return out;

  Array<Real> packed_back(pass.packed_size(inputs.sizes, Phase::backward));
  pass.pack(inputs.sizes, inputs.weights(), Phase::backward, threads, packed_back.data());
  out.dx = zeros<Real>(T * B * I);
  out.dh = inputs.dh;
  out.dc = inputs.dc;
  out.ih = zeros<Real>(inputs.ih.size());
  out.hh = zeros<Real>(inputs.hh.size());
  out.b_ih = zeros<Real>(inputs.b_ih.size());
  out.b_hh = zeros<Real>(inputs.b_hh.size());
  out.hr = zeros<Real>(inputs.hr.size());
  out.peephole = zeros<Real>(inputs.peephole.size());
  BackwardCall<Real> backward{};
  backward.sizes = inputs.sizes;
  backward.rows = inputs.rows;
  backward.threads = threads;
  backward.options = inputs.options;
  backward.packed = packed_back.data();
  const Array<Half> split_back = terms(pass, inputs, Phase::backward, how, threads, packed_back);
  backward.split = {split_back.data(), how};
  backward.x = forward.x;
  backward.h0 = forward.h0;
  backward.c0 = forward.c0;
  backward.y = {out.saved_y.data(), B * P, P};
  backward.gates = out.gates.data();
  backward.c = out.c.data();
  backward.dy = {inputs.dy.data(), B * P, P};
  backward.dh = out.dh.data();
  backward.dc = out.dc.data();
  backward.dx = {out.dx.data(), B * I, I};
  Sums<Real> sums{{out.ih.data(), out.hh.data(), out.b_ih.data(), out.b_hh.data(), out.hr.data(),
                   out.peephole.data()},
                  nullptr,
                  nullptr,
                  nullptr};
  backward.sums = &sums;
  Array<double> backward_work(pass.backward_work(backward) / sizeof(double) + 1);
  backward.work = backward_work.data();
  pass.backward(backward);
  out.inside = out.inside && backward_work.guarded() && split_back.guarded();
  return out;
}

int passed = 0, failed = 0;

void check(bool right, const std::string& what) {
  ++(right ? passed : failed);
  if (!right) std::printf("differs: %s\n", what.c_str());
}

template <class Real>
void compare_passes(const KernelTable& table, int passes) {
  for (int cell = 0; cell < kCells; ++cell) {
    const CellTraits& traits = scalar_table.of<Real>().cells[cell].traits;
    std::mt19937 draw(cell + 1);
    for (int i = 0; i < passes; ++i) {
      const Inputs<Real> inputs(traits, cell, draw);
      const int threads = 1 + i % 5;
      const Result<Real> want = run(scalar_table, inputs, 1);
      const Result<Real> got = run(table, inputs, threads, {}, inputs.unpacked);
      check(want.guarded() && got.guarded() && got == want,
            inputs.text(table.isa, traits.name, threads));
    }
  }
}

#ifdef FASTRNN_HAS_DOTS
void compare_dots(const KernelTable& table, int passes) {
  const int before = failed;
  constexpr MatmulAlgorithm dots{1, true, 3}, none{};
  constexpr Algorithms algorithms[] = {{dots, dots}, {dots, none}, {none, dots}};
  for (int cell = 0; cell < kCells; ++cell) {
    const CellTraits& traits = table.f32.cells[cell].traits;
    std::mt19937 draw(cell + 50);
    for (int i = 0; i < passes; ++i) {
      Inputs<float> inputs(traits, cell, draw);
      inputs.type = WeightType::real;
      const int threads = 2 + i % 4;
      const Algorithms& how = algorithms[i % 3];
      const Result<float> want = run(table, inputs, 1, how);
      const Result<float> got = run(table, inputs, threads, how);
      check(want.guarded() && got.guarded() && got == want,
            "dot products, " + inputs.text(table.isa, traits.name, threads));
    }
  }
  std::printf("dot products: %s\n", failed == before ? "the same for all threads" : "differ");
}
#endif

template <class Real>
using BitsOf = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;

// Random bit patterns: every magnitude, denormals, infinities and NaN.
template <class Real>
Array<Real> random_bits(Index size) {
  std::mt19937_64 draw(7);
  Array<Real> x(size);
  for (Real& value : x) {
    const auto bits = static_cast<BitsOf<Real>>(draw());
    std::memcpy(&value, &bits, sizeof value);
  }
  return x;
}

template <class Real>
void compare_activations(const KernelTable& table) {
  const Array<Real> x = random_bits<Real>(100003);
  Array<Real> want(x.size()), got(x.size());
  const Kernels<Real>&expected = scalar_table.of<Real>(), &tested = table.of<Real>();
  const std::string type = sizeof(Real) == 4 ? " float32 " : " float64 ";
  expected.sigmoid(x.data(), want.data(), x.size());
  tested.sigmoid(x.data(), got.data(), x.size());
  check(got.same(want), "sigmoid" + type + table.isa);
  expected.tanh(x.data(), want.data(), x.size());
  tested.tanh(x.data(), got.data(), x.size());
  check(got.same(want), "tanh" + type + table.isa);
}

// FNV-1a of numbers' bits, as integers and so of either byte order; all NaN are one.
class Digest {
 public:
  template <class Real>
  void add(const Array<Real>& of) {
    for (Index i = 0; i < of.size(); ++i) {
      const Real value = of.data()[i];
      BitsOf<Real> bits = 0;
      if (value == value) std::memcpy(&bits, &value, sizeof bits);
      for (std::size_t shift = 0; shift < 8 * sizeof bits; shift += 8)
        sum_ = (sum_ ^ (bits >> shift & 0xff)) * 0x100000001b3u;
    }
  }
  template <class Real>
  void add(const Result<Real>& of) {
    for (const auto* a : of.all()) add(*a);
  }
  unsigned long long sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 0xcbf29ce484222325u;
};

template <class Real>
void add_scalar(Digest* digest) {
  for (int cell = 0; cell < kCells; ++cell) {
    std::mt19937 draw(cell + 500);
    for (int i = 0; i < 4; ++i)
      digest->add(run(scalar_table,
                      Inputs<Real>(scalar_table.of<Real>().cells[cell].traits, cell, draw), 1));
  }
  const Array<Real> x = random_bits<Real>(10007);
  Array<Real> y(x.size());
  scalar_table.of<Real>().sigmoid(x.data(), y.data(), x.size());
  digest->add(y);
  scalar_table.of<Real>().tanh(x.data(), y.data(), x.size());
  digest->add(y);
}

void print_digest() {
  Digest digest;
  add_scalar<float>(&digest);
  add_scalar<double>(&digest);
  std::printf("digest %016llx\n", digest.sum());
}

#ifdef FASTRNN_THREADS
// Calls from several threads at a time, each asking for threads of its own.
void compare_calls_at_a_time(const KernelTable& table, int passes) {
  constexpr int kCallers = 4;
  int wrong[kCallers] = {};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&, caller] {
      for (int cell = 0; cell < kCells; ++cell) {
        const CellTraits& traits = scalar_table.f32.cells[cell].traits;
        std::mt19937 draw(100 * caller + cell);
        for (int i = 0; i < passes; ++i) {
          const Inputs<float> inputs(traits, cell, draw);
          wrong[caller] += !(run(table, inputs, 3) == run(scalar_table, inputs, 1));
        }
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (int count : wrong) check(count == 0, std::string("calls at a time, ") + table.isa);
}
#endif

void compare(const KernelTable& table, int passes) {
  const int before = failed;
  compare_passes<float>(table, passes);
  compare_passes<double>(table, passes);
  compare_activations<float>(table);
  compare_activations<double>(table);
#ifdef FASTRNN_THREADS
  compare_calls_at_a_time(table, passes / 4 + 1);
#endif
  std::printf("%s: %s\n", table.isa, failed == before ? "the scalar kernels' bits" : "differs");
}

}  // namespace

int main(int argc, char** argv) {
  const int passes = argc > 1 ? std::atoi(argv[1]) : 60;
  print_digest();
  if (passes == 0) return 0;
  compare(scalar_table, passes);  // against itself: threads, and calls at a time
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) compare(avx2_table, passes);
#endif
#ifdef FASTRNN_HAS_AVX512
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
    compare(avx512_table, passes);
#endif
#ifdef FASTRNN_HAS_DOTS
  if (__builtin_cpu_supports("avx512bf16")) compare_dots(avx512bf16_table, passes);
#endif
#if defined(__aarch64__)
  compare(neon_table, passes);
#elif defined(FASTRNN_WASM128)
  compare(wasm128_table, passes);
#endif
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
