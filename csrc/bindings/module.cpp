// Python's view of the kernels: pointers, dtypes, memory, the release of the GIL. No maths and no
// policy: Python has checked everything, and fastrnn/backends/cpu.py has decided how it is run.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/training.h"
#include "driver/pass.h"
#include "runtime/allocator.h"
#include "runtime/dispatch.h"
#include "runtime/gil.h"
#include "runtime/threads.h"
#include "sequences/losses.h"

namespace py = pybind11;

namespace fastrnn {
namespace {

template <class Item>
Sequence<Item> sequence(py::handle value) {
  Sequence<Item> out{pointer<Item>(value), 0, 0};
  if (!out) return out;
  const auto array = py::reinterpret_borrow<py::array>(value);
  const auto size = static_cast<Index>(sizeof(Item));
  out.stride_t = array.strides(0) / size;
  out.stride_b = array.strides(1) / size;
  return out;
}

// In the order of fastrnn.backends.base.Weights.
template <class Item>
Weights<Item> weights(const py::tuple& w) {
  return {pointer<Item>(w[0]), pointer<Item>(w[1]), pointer<Item>(w[2]),
          pointer<Item>(w[3]), pointer<Item>(w[4]), pointer<Item>(w[5])};
}

// In the order of fastrnn.schedule.RowSchedule.
RowSchedule rows(const py::tuple& r, bool reverse) {
  return {pointer<const std::int64_t>(r[0]), pointer<const std::int64_t>(r[1]),
          reinterpret_cast<const std::uint8_t*>(pointer<const bool>(r[2])), reverse};
}

void zero(const py::object& value) {
  auto array = py::reinterpret_borrow<py::array>(value);
  std::memset(array.mutable_data(), 0, static_cast<std::size_t>(array.nbytes()));
}

// Where the gradients of a pass are summed up, by so many calls of `backward`.
template <class Real>
class GradientSums {
 public:
  GradientSums(py::tuple grads, Index calls)
      : owners_(std::move(grads)), calls_(calls), sums_{weights<Real>(owners_), {}, {}, {}} {
    for (const py::handle array : owners_)
      if (!array.is_none()) size_ += py::reinterpret_borrow<py::array>(array).size();
    if (calls > 1) sums_.open = add_vector();
  }

  // For the next call, which has up to so many rows.
  Sums<Real>* next(Index rows) {
    if (!sums_.settled && sums_.rows + sums_.open_rows + rows >= kSettledRows) {
      sums_.settled = add_vector();
      sums_.left = add_vector();
    }
    sums_.last = --calls_ == 0;
    return &sums_;
  }

 private:
  Real* add_vector() {
    vectors_.emplace_back(static_cast<std::size_t>(size_) * sizeof(Real), "sums of gradients",
                          Use::backward);
    return static_cast<Real*>(vectors_.back().data());
  }

  py::tuple owners_;
  Index calls_, size_ = 0;
  Sums<Real> sums_;
  std::vector<Buffer> vectors_;
};

// The packed weights of one pass and phase.
template <class Real>
struct PackedWeights {
  Buffer buffer;
  WeightType type;
  const Real* data() const { return static_cast<const Real*>(buffer.data()); }
};

// The same in bfloat16 terms.
struct Split {
  Buffer buffer;
  Algorithms how;
};

// As Python holds them: the parts, and whether dot products take them.
using AlgorithmOf = std::tuple<int, bool, Index>;
MatmulAlgorithm algorithm(const AlgorithmOf& from) {
  return {std::get<0>(from), std::get<1>(from), std::get<2>(from)};
}

SplitWeights split_weights(const Split* split) {
  if (!split) return {nullptr, {}};
  return {static_cast<const Half*>(split->buffer.data()), split->how};
}

// In the order of fastrnn.cellmath.weights.OptionCodes; None: of a cell without.
template <class Real>
CellOptions<Real> cell_options(const py::object& codes) {
  if (codes.is_none()) return {};
  const auto [gate, candidate, output, slope, clip, coupled] =
      codes.cast<std::tuple<int, int, int, Real, Real, bool>>();
  return {Activation(gate), Activation(candidate), Activation(output), slope, clip, coupled};
}

template <class Call, class Kernel>
void run(Call& call, const Kernel& kernel, Index size, Use use) {
  const Buffer work(static_cast<std::size_t>(size), "the workspace of a call", use);
  call.work = work.data();
  bool interrupted;
  {
    WithoutGil listener;  // raw pointers only from here
    call.listener = &listener;
    kernel(call);
    interrupted = listener.raised();
  }
  if (interrupted) throw py::error_already_set();
}

// A forward pass bound to its arrays, for a stepper.
template <class Real>
class Bound {
 public:
  Bound(ForwardCall<Real> call, const Pass<Real>& pass, py::tuple owners)
      : owners_(std::move(owners)),
        work_(static_cast<std::size_t>(pass.forward_work(call)), "the workspace of a stepper"),
        pass_(pass.bind(with_work(call, work_.data()))) {}

  void run() { pass_.run(); }  // without the GIL

 private:
  static const ForwardCall<Real>& with_work(ForwardCall<Real>& call, void* work) {
    call.work = work;
    return call;
  }

  py::tuple owners_;  // of the memory that the call looks at
  Buffer work_;
  BoundForward<Real> pass_;
};

// The passes of a stepper's step. Their buffers are for one thread at a time; another one gets an error.
template <class Real>
class Steps {
 public:
  Steps(py::array_t<Real> x, py::list passes) : x_(std::move(x)), owners_(std::move(passes)) {
    for (const py::handle pass : owners_) passes_.push_back(&pass.cast<Bound<Real>&>());
  }

  void take() {
    // what another thread of a parent had taken as this process was forked, nobody will give back
    const unsigned mine = generation() + 1;
    unsigned found = users_.load(std::memory_order_relaxed);
    if (found == mine || !users_.compare_exchange_strong(found, mine)) raise_in_use();
  }
  void give() { users_.store(0, std::memory_order_release); }

  // Copies x_t (B, I) or, for one row, (I,) into x, and runs them all.
  void run(const py::array& x_t) {
    const Index axes = x_t.ndim(), B = x_.shape(0), I = x_.shape(1);
    if (axes < 1 || axes > 2 || x_t.shape(axes - 1) != I || (axes == 2 ? x_t.shape(0) : 1) != B ||
        x_t.dtype().num() != py::dtype::num_of<Real>())
      throw py::value_error("x_t is not what the stepper takes");
    const Taken taken(*this);
    const auto* from = reinterpret_cast<const char*>(x_t.data());
    const Index along = x_t.strides(axes - 1), across = axes == 2 ? x_t.strides(0) : 0;
    Real* to = x_.mutable_data();
    for (Index b = 0; b < B; ++b, from += across) {
      if (along == sizeof(Real))
        std::memcpy(to + b * I, from, static_cast<std::size_t>(I) * sizeof(Real));
      else
        for (Index i = 0; i < I; ++i) std::memcpy(to + b * I + i, from + i * along, sizeof(Real));
    }
    const WithoutGil here;  // raw pointers only from here
    for (Bound<Real>* pass : passes_) pass->run();
  }

 private:
  struct Taken {
    explicit Taken(Steps& all) : steps(all) { steps.take(); }
    ~Taken() { steps.give(); }
    Steps& steps;
  };

  [[noreturn]] static void raise_in_use() {
    const py::object error = py::module_::import("fastrnn.checks").attr("stepper_in_use")();
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    throw py::error_already_set();
  }

  py::array_t<Real> x_;
  py::list owners_;
  std::vector<Bound<Real>*> passes_;
  std::atomic<unsigned> users_{0};  // 1 + the process that one of them is in
};

// The kernels for one cell and its sizes.
template <class Real>
class SizedPass {
 public:
  SizedPass(int cell, Index I, Index H, Index P, bool projected, const py::object& options)
      : pass_(kernels(), cell),
        sizes_{0, 0, I, H, P, projected},
        options_(cell_options<Real>(options)) {}

  Index hidden_size() const { return sizes_.H; }

  PackedWeights<Real> pack(const py::tuple& w, bool backward, int threads) const {
    const Weights<const Real> from = weights<const Real>(w);
    const Index size = pass_.packed_size(sizes_, phase(backward));
    PackedWeights<Real> out{Buffer::of_weights(static_cast<std::size_t>(size) * sizeof(Real)),
                            WeightType::real};
    const WithoutGil release;
    pass_.pack(sizes_, from, phase(backward), threads, static_cast<Real*>(out.buffer.data()));
    return out;
  }

  // Panels of the forward phase in bfloat16 or int8.
  PackedWeights<Real> quantize(const PackedWeights<Real>& panels, const std::string& dtype) const {
    const WeightType type = dtype == "int8" ? WeightType::int8 : WeightType::bfloat16;
    const Index size = pass_.quantized_size(sizes_, type);
    PackedWeights<Real> out{Buffer::of_weights(static_cast<std::size_t>(size)), type};
    const WithoutGil release;
    pass_.quantize(sizes_, type, panels.data(), out.buffer.data());
    return out;
  }

  Split split(const PackedWeights<Real>& panels, bool backward, const AlgorithmOf& step,
              const AlgorithmOf& chunk, int threads) const {
    const Algorithms how{algorithm(step), algorithm(chunk)};
    const Index size = pass_.split_size(sizes_, phase(backward), how);
    Split out{Buffer::of_weights(static_cast<std::size_t>(size) * sizeof(Half)), how};
    const WithoutGil release;
    pass_.split(sizes_, phase(backward), how, threads, panels.data(),
                static_cast<Half*>(out.buffer.data()));
    return out;
  }

  py::tuple how_run(Index T, Index B, int threads, const AlgorithmOf& step) const {
    Sizes sizes = sizes_;
    sizes.T = T, sizes.B = B;
    const HowRun how = pass_.how_run(sizes, threads, algorithm(step));
    return py::make_tuple(how.threads, how.by_rows, how.lanes, how.tile_rows, how.tile_vectors);
  }

  // y, hn, cn, and what is saved for backward, or None: y once more, gates, c
  py::tuple forward(py::handle packed, const Split* split, py::handle x, py::handle h0,
                    py::handle c0, const py::tuple& which, bool reverse, int threads,
                    bool save) const {
    auto call = forward_call(packed, split, x, h0, c0, which, reverse, threads);
    const auto [T, B, I, H, P, projected] = call.sizes;
    py::array_t<Real> y = make_array<Real>("the output", {T, B, P});
    py::array_t<Real> hn = make_array<Real>("the final state", {B, P});
    py::object cn = py::none(), saved_y = py::none(), gates = py::none(), c = py::none();
    if (pass_.traits().has_c) cn = make_array<Real>("the final state", {B, H});
    if (save) saved_y = make_array<Real>("the outputs that backward needs", {T, B, P});
    if (save)
      gates = make_array<Real>("the gates that backward needs", {T, B, pass_.traits().saved * H});
    if (save && pass_.traits().has_c)
      c = make_array<Real>("the states that backward needs", {T, B, H});
    // rows that do not run; of gates and c nobody looks at those
    if (call.rows.batch_sizes) zero(y);
    if (call.rows.batch_sizes && save) zero(saved_y);
    call.y = sequence<Real>(y);
    call.hn = pointer<Real>(hn);
    call.cn = pointer<Real>(cn);
    call.saved_y = pointer<Real>(saved_y);
    call.gates = pointer<Real>(gates);
    call.c = pointer<Real>(c);
    run(call, [&](const auto& of) { pass_.forward(of); }, pass_.forward_work(call), Use::any);
    return py::make_tuple(y, hn, cn, saved_y, gates, c);
  }

  // One step, again and again: x (1, B, I) is read, h and c are updated, y (1, B, P) is written.
  Bound<Real> bind(const py::object& packed, const py::object& parts, py::handle x, py::handle h,
                   py::handle c, const py::tuple& which, int threads, py::handle y) const {
    auto call = forward_call(packed, parts.cast<const Split*>(), x, h, c, which, false, threads);
    call.hn = pointer<Real>(h);
    call.cn = pointer<Real>(c);
    call.y = sequence<Real>(y);
    return Bound<Real>(call, pass_, py::make_tuple(packed, parts, x, h, c, y));
  }

  // dx, dh0, dc0; the parameters' gradients are set in `grads`, or added to what is GradientSums
  py::tuple backward(const PackedWeights<Real>& panels, const Split* split, py::handle x,
                     py::handle h0, py::handle c0, const py::tuple& which, bool reverse,
                     int threads, py::handle y, py::handle gates, py::handle c, py::handle dy,
                     py::handle dhn, py::handle dcn, const py::object& grads) const {
    if (!py::isinstance<py::tuple>(grads))
      return sum_up(panels, split, x, h0, c0, which, reverse, threads, y, gates, c, dy, dhn, dcn,
                    grads.cast<GradientSums<Real>&>());
    GradientSums<Real> sums(py::reinterpret_borrow<py::tuple>(grads), 1);
    return sum_up(panels, split, x, h0, c0, which, reverse, threads, y, gates, c, dy, dhn, dcn,
                  sums);
  }

 private:
  py::tuple sum_up(const PackedWeights<Real>& panels, const Split* split, py::handle x,
                   py::handle h0, py::handle c0, const py::tuple& which, bool reverse, int threads,
                   py::handle y, py::handle gates, py::handle c, py::handle dy, py::handle dhn,
                   py::handle dcn, GradientSums<Real>& sums) const {
    const Sizes sizes = sizes_of(x);
    const py::array_t<Real> dx =
        make_array<Real>("the gradient of x", {sizes.T, sizes.B, sizes.I}, Use::backward);
    const py::object dh = copy(dhn), dc = copy(dcn);
    BackwardCall<Real> call{sizes,
                            rows(which, reverse),
                            threads,
                            options_,
                            panels.data(),
                            split_weights(split),
                            sequence<const Real>(x),
                            pointer<const Real>(h0),
                            pointer<const Real>(c0),
                            sequence<const Real>(y),
                            pointer<const Real>(gates),
                            pointer<const Real>(c),
                            sequence<const Real>(dy),
                            pointer<Real>(dh),
                            pointer<Real>(dc),
                            sequence<Real>(dx),
                            sums.next(sizes.T * sizes.B),
                            nullptr,
                            nullptr};
    if (call.rows.batch_sizes) zero(dx);
    run(
        call, [&](const auto& of) { pass_.backward(of); }, pass_.backward_work(call),
        Use::backward);
    return py::make_tuple(dx, dh, dc);
  }

  static Phase phase(bool backward) { return backward ? Phase::backward : Phase::forward; }

  // A copy of an array (B, n), C-contiguous.
  static py::object copy(py::handle value) {
    if (value.is_none()) return py::none();
    const auto array = py::reinterpret_borrow<py::array>(value);
    auto out = make_array<Real>("the gradient of a state", {array.shape(0), array.shape(1)},
                                Use::backward);
    std::memcpy(out.mutable_data(), pointer<const Real>(value),
                static_cast<std::size_t>(array.nbytes()));
    return out;
  }

  Sizes sizes_of(py::handle x) const {
    const auto array = py::reinterpret_borrow<py::array>(x);
    Sizes sizes = sizes_;
    sizes.T = array.shape(0), sizes.B = array.shape(1);
    return sizes;
  }

  // without what is written; packed: Panels, or the parameters for a call of one step
  ForwardCall<Real> forward_call(py::handle packed, const Split* split, py::handle x, py::handle h0,
                                 py::handle c0, const py::tuple& which, bool reverse,
                                 int threads) const {
    ForwardCall<Real> call{};
    call.sizes = sizes_of(x);
    call.rows = rows(which, reverse);
    call.threads = threads;
    if (py::isinstance<py::tuple>(packed)) {
      call.type = WeightType::unpacked;
      call.parameters = weights<const Real>(py::reinterpret_borrow<py::tuple>(packed));
    } else {
      const auto& panels = packed.cast<const PackedWeights<Real>&>();
      call.type = panels.type;
      call.packed = panels.data();
    }
    call.split = split_weights(split);
    call.x = sequence<const Real>(x);
    call.h0 = pointer<const Real>(h0);
    call.c0 = pointer<const Real>(c0);
    call.options = options_;
    return call;
  }

  Pass<Real> pass_;
  Sizes sizes_;  // with T = B = 0
  CellOptions<Real> options_;
};

template <class Real>
void bind(py::module_& m, const std::string& suffix) {
  py::class_<Bound<Real>>(m, ("Bound" + suffix).c_str());
  py::class_<Steps<Real>>(m, ("Steps" + suffix).c_str())
      .def(py::init<py::array_t<Real>, py::list>())
      .def("__call__", &Steps<Real>::run)
      .def("exclusive", [](py::object self) { return self; })
      .def("__enter__", &Steps<Real>::take)
      .def("__exit__", [](Steps<Real>& self, const py::args&) { self.give(); });
  py::class_<PackedWeights<Real>>(m, ("Panels" + suffix).c_str());
  py::class_<GradientSums<Real>>(m, ("GradientSums" + suffix).c_str())
      .def(py::init<py::tuple, Index>());
  py::class_<SizedPass<Real>>(m, ("Pass" + suffix).c_str())
      .def(py::init<int, Index, Index, Index, bool, py::object>())
      .def_property_readonly("hidden_size", &SizedPass<Real>::hidden_size)
      .def("pack", &SizedPass<Real>::pack)
      .def("quantize", &SizedPass<Real>::quantize)
      .def("split", &SizedPass<Real>::split)
      .def("how_run", &SizedPass<Real>::how_run)
      .def("forward", &SizedPass<Real>::forward)
      .def("backward", &SizedPass<Real>::backward)
      .def("bind", &SizedPass<Real>::bind);
  m.def(("empty" + suffix).c_str(), [](Index n) {
    return make_array<Real>("the gradients of the parameters", {n}, Use::backward);
  });
  const auto activation =
      [&m, &suffix](const char* name, void (*Kernels<Real>::*function)(const Real*, Real*, Index)) {
        m.def((name + suffix).c_str(), [function](const py::array_t<Real, py::array::c_style>& x) {
          py::array_t<Real> y(x.size());
          (kernels().of<Real>().*function)(x.data(), y.mutable_data(), x.size());
          return y;
        });
      };
  activation("sigmoid", &Kernels<Real>::sigmoid);
  activation("tanh", &Kernels<Real>::tanh);
  m.def(("fma_loop" + suffix).c_str(), [](Index rounds) {
    const WithoutGil release;
    Real sum;
    return kernels().of<Real>().fma_loop(rounds, &sum);
  });
  m.def(("read_sum" + suffix).c_str(),
        [](const py::array_t<Real, py::array::c_style>& x, Index repeats) {
          const Real* data = x.data();
          const Index n = x.size();
          const WithoutGil release;
          return kernels().of<Real>().read_sum(data, n, repeats);
        });
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  py::class_<Split>(m, "Split");
  bind<float>(m, "32");
  bind<double>(m, "64");
  bind_sequence_losses(m);
  bind_training(m);
  memory();  // made here: a fork while a thread makes it would leave the child without
  m.def("set_flush_denormals", [](bool on) { flush_denormals = on; });
  m.def("memory_kept", [] { return memory().kept(); });
  m.def("memory_made", [] { return memory().made(); });
  m.def("release_memory", [] {
    const py::gil_scoped_release release;
    return memory().release();
  });
  m.def("set_memory_limit", [](std::size_t bytes) { memory().set_limit(bytes); });
  m.def("set_memory_patience",
        [](int ms) { memory().set_patience(std::chrono::milliseconds(ms)); });
  m.def("dots", [] { return kernels().dots; });
  m.def("tile_unit", [] { return kernels().tile_unit; });
  m.def("isa", [] { return kernels().isa; });
  m.def("usable_isas", &usable_isas);
  m.def("cells", [] {
    py::list cells;
    for (const CellKernels<float>& each : kernels().f32.cells) {
      const CellTraits& cell = each.traits;
      cells.append(py::make_tuple(cell.name, cell.gates, cell.saved, cell.has_c));
    }
    return cells;
  });
#ifdef FASTRNN_LINEAR_ACTIVATIONS
  m.attr("linear_activations") = true;
#else
  m.attr("linear_activations") = false;
#endif
}

}  // namespace fastrnn
