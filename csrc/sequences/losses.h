// The compiled loops of CTC and CRF, as functions of the extension.
#pragma once

#include <pybind11/pybind11.h>

namespace fastrnn {

void bind_sequence_losses(pybind11::module_& m);

}  // namespace fastrnn
