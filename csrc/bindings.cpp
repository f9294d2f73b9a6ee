// Python's view of the kernels: pointers, dtypes, the release of the GIL. No maths and no policy:
// fastrnn/backends/cpu.py has checked and allocated everything.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "dispatch.h"

namespace py = pybind11;

namespace fastrnn {
namespace {

// The named array's data, null for None. A wrong dtype or a read-only output is a slip in cpu.py,
// but must not become a wild pointer.
template <class Item>
Item* pointer(const py::dict& arguments, const char* name) {
  using Value = std::remove_const_t<Item>;
  const py::object value = arguments[name];
  if (value.is_none()) return nullptr;
  if (!py::isinstance<py::array_t<Value>>(value))
    throw py::type_error(std::string(name) + " is not an array of the call's dtype");
  const auto array = py::reinterpret_borrow<py::array>(value);
  if constexpr (std::is_const_v<Item>)
    return static_cast<const Value*>(array.data());
  else
    return static_cast<Value*>(py::array(array).mutable_data());
}

template <class Item>
Sequence<Item> sequence(const py::dict& arguments, const char* name) {
  Sequence<Item> out{pointer<Item>(arguments, name), 0, 0};
  if (!out) return out;
  const auto array = py::reinterpret_borrow<py::array>(arguments[name]);
  const auto size = static_cast<Index>(sizeof(Item));
  out.stride_t = array.strides(0) / size;
  out.stride_b = array.strides(1) / size;
  return out;
}

template <class Item>
Weights<Item> weights(const py::dict& arguments) {
  return {pointer<Item>(arguments, "ih"),   pointer<Item>(arguments, "hh"),
          pointer<Item>(arguments, "b_ih"), pointer<Item>(arguments, "b_hh"),
          pointer<Item>(arguments, "hr"),   pointer<Item>(arguments, "peephole")};
}

Sizes sizes(const py::dict& a) {
  const auto value = [&](const char* name) { return a[name].cast<Index>(); };
  return {value("T"), value("B"), value("I"), value("H"), value("P"), !a["hr"].is_none()};
}

Rows rows(const py::dict& a) {
  return {pointer<const std::int64_t>(a, "order"), pointer<const std::int64_t>(a, "counts"),
          pointer<const std::uint8_t>(a, "cut"), a["reverse"].cast<bool>()};
}

template <class Real>
const CellKernels<Real>& cell(const py::dict& a) {
  return kernels().of<Real>().cells[a["cell"].cast<int>()];
}

template <class Real>
ForwardCall<Real> call_of(const py::dict& a, ForwardCall<Real>*) {
  return {sizes(a),
          rows(a),
          a["threads"].cast<int>(),
          pointer<const Real>(a, "packed"),
          {pointer<const Half>(a, "split"), a["parts"].cast<int>()},
          weights<const Real>(a),
          sequence<const Real>(a, "x"),
          pointer<const Real>(a, "h0"),
          pointer<const Real>(a, "c0"),
          pointer<Real>(a, "hn"),
          pointer<Real>(a, "cn"),
          sequence<Real>(a, "y"),
          pointer<Real>(a, "gates"),
          pointer<Real>(a, "c"),
          nullptr};
}

template <class Real>
BackwardCall<Real> call_of(const py::dict& a, BackwardCall<Real>*) {
  return {sizes(a),
          rows(a),
          a["threads"].cast<int>(),
          pointer<const Real>(a, "packed"),
          {pointer<const Half>(a, "split"), a["parts"].cast<int>()},
          weights<const Real>(a),
          sequence<const Real>(a, "x"),
          pointer<const Real>(a, "h0"),
          pointer<const Real>(a, "c0"),
          sequence<const Real>(a, "y"),
          pointer<const Real>(a, "gates"),
          pointer<const Real>(a, "c"),
          sequence<const Real>(a, "dy"),
          pointer<Real>(a, "dh"),
          pointer<Real>(a, "dc"),
          sequence<Real>(a, "dx"),
          weights<Real>(a["grads"]),
          nullptr};
}

// A pass bound to its arrays, to be run once or, by a stepper, many times.
template <class Call>
struct Bound {
  py::dict arrays;  // keeps them alive
  Call call;
  Index (*measure)(const Call&);
  void (*kernel)(const Call&);

  Index work_size() const { return measure(call); }

  void run(const py::array_t<std::uint8_t>& work) const {
    Call with_work = call;
    with_work.work = py::array(work).mutable_data();
    const py::gil_scoped_release release;  // raw pointers only from here
    kernel(with_work);
  }
};

template <class Real>
void bind(py::module_& m, const std::string& suffix) {
  using Forward = Bound<ForwardCall<Real>>;
  using Backward = Bound<BackwardCall<Real>>;
  py::class_<Forward>(m, ("Forward" + suffix).c_str())
      .def(py::init([](const py::dict& a) {
        return Forward{a, call_of(a, static_cast<ForwardCall<Real>*>(nullptr)),
                       cell<Real>(a).forward_work, cell<Real>(a).forward};
      }))
      .def("work_size", &Forward::work_size)
      .def("__call__", &Forward::run);
  py::class_<Backward>(m, ("Backward" + suffix).c_str())
      .def(py::init([](const py::dict& a) {
        return Backward{a, call_of(a, static_cast<BackwardCall<Real>*>(nullptr)),
                        cell<Real>(a).backward_work, cell<Real>(a).backward};
      }))
      .def("work_size", &Backward::work_size)
      .def("__call__", &Backward::run);
  const auto phase = [](bool backward) { return backward ? Phase::backward : Phase::forward; };
  m.def(("packed_size" + suffix).c_str(), [phase](const py::dict& a, bool backward) {
    return cell<Real>(a).packed_size(sizes(a), phase(backward));
  });
  m.def(("pack" + suffix).c_str(),
        [phase](const py::dict& a, bool backward, int threads, py::array_t<Real> out) {
          const auto pack = cell<Real>(a).pack;
          const Sizes z = sizes(a);
          const Weights<const Real> w = weights<const Real>(a);
          Real* to = out.mutable_data();
          const py::gil_scoped_release release;
          pack(z, w, phase(backward), threads, to);
        });
  m.def(("how_run" + suffix).c_str(), [](const py::dict& a, int threads, int parts) {
    const HowRun how = cell<Real>(a).how_run(sizes(a), threads, parts);
    return py::make_tuple(how.threads, how.by_rows, how.lanes, how.tile_rows, how.tile_vectors);
  });
  m.def(("split_size" + suffix).c_str(), [phase](const py::dict& a, bool backward, int parts) {
    return cell<Real>(a).split_size(sizes(a), phase(backward), parts);
  });
  m.def(("split" + suffix).c_str(),
        [phase](const py::dict& a, bool backward, int parts, int threads,
                const py::array_t<Real>& packed, py::array_t<Half> out) {
          const auto split = cell<Real>(a).split;
          const Sizes z = sizes(a);
          const Real* from = packed.data();
          Half* to = out.mutable_data();
          const py::gil_scoped_release release;
          split(z, phase(backward), parts, threads, from, to);
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
    const py::gil_scoped_release release;
    Real sum;
    return kernels().of<Real>().fma_loop(rounds, &sum);
  });
  m.def(("read_sum" + suffix).c_str(),
        [](const py::array_t<Real, py::array::c_style>& x, Index repeats) {
          const Real* data = x.data();
          const Index n = x.size();
          const py::gil_scoped_release release;
          return kernels().of<Real>().read_sum(data, n, repeats);
        });
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  bind<float>(m, "32");
  bind<double>(m, "64");
  m.def("tile_unit", [] { return kernels().tile_unit; });
  m.def("isa", [] { return kernels().isa; });
  m.def("usable_isas", &usable_isas);
  m.def("cells", [] {
    py::list cells;
    for (const CellKernels<float>& cell : kernels().f32.cells)
      cells.append(py::make_tuple(cell.name, cell.gates, cell.saved, cell.has_c));
    return cells;
  });
#ifdef FASTRNN_LINEAR_ACTIVATIONS
  m.attr("linear_activations") = true;
#else
  m.attr("linear_activations") = false;
#endif
}

}  // namespace fastrnn
