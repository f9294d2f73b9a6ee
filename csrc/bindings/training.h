#pragma once

#include <pybind11/pybind11.h>

namespace fastrnn {

// What stands around recurrent layers in a training step: products, losses, optimisers.
void bind_training(pybind11::module_& m);

}  // namespace fastrnn
