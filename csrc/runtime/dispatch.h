// Which instruction set serves this process.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace fastrnn {

// The best table that this machine can run, or the one that FASTRNN_ISA names. Chosen at first use
// and kept. Throws std::runtime_error when the machine cannot run what is named.
const KernelTable& kernels();

// Names of all tables that this machine can run, best first.
std::vector<std::string> usable_isas();

}  // namespace fastrnn
