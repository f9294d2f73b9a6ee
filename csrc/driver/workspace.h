// One block of memory, given by Python, divided among a call's buffers. The same code that takes the
// buffers measures them when it is run on no memory, so sizes cannot drift apart.
#pragma once

#include "kernels/table.h"

namespace fastrnn {

class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {
    if (base_) used_ = -reinterpret_cast<std::intptr_t>(base_) & (kAlign - 1);
  }

  template <class Item>
  Item* take(Index n) {
    char* p = base_ + used_;
    used_ += (n * static_cast<Index>(sizeof(Item)) + kAlign - 1) & ~(kAlign - 1);
    return base_ ? reinterpret_cast<Item*>(p) : nullptr;
  }

  // bytes taken, with room to align the base
  Index size() const { return used_ + kAlign; }

 private:
  static constexpr Index kAlign = 64;
  char* base_;
  Index used_ = 0;
};

}  // namespace fastrnn
