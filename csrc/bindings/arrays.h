// NumPy's arrays as the kernels take them.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>

#include "kernels/table.h"
#include "runtime/allocator.h"

namespace fastrnn {

// An array's data, null for None. Another dtype or a read-only output is a slip in Python's code, but
// must not become a wild pointer.
template <class Item>
Item* pointer(pybind11::handle value) {
  namespace py = pybind11;
  using Value = std::remove_const_t<Item>;
  if (value.is_none()) return nullptr;
  if (!py::isinstance<py::array>(value) ||
      py::reinterpret_borrow<py::array>(value).dtype().num() != py::dtype::num_of<Value>())
    throw py::type_error("an argument is not an array of the call's dtype");
  auto array = py::reinterpret_borrow<py::array>(value);
  if constexpr (std::is_const_v<Item>)
    return static_cast<const Value*>(array.data());
  else
    return static_cast<Value*>(array.mutable_data());
}

// A new array, uninitialized; `what` it is, if there is no memory.
template <class Item, int N>
pybind11::array_t<Item> make_array(const char* what, const Index (&shape)[N], Use use = Use::any) {
  namespace py = pybind11;
  py::array::ShapeContainer extents(shape, shape + N);
  Index size = sizeof(Item);
  for (const Index n : shape) size *= n;
  if (size < static_cast<Index>(Memory::kLeast)) return py::array_t<Item>(extents);
  auto buffer = std::make_unique<Buffer>(static_cast<std::size_t>(size), what, use);
  const auto* data = static_cast<const Item*>(buffer->data());
  const py::capsule owner(buffer.get(), [](void* p) { delete static_cast<Buffer*>(p); });
  buffer.release();
  return py::array_t<Item>(extents, data, owner);
}

}  // namespace fastrnn
