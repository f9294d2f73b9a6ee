#include "memory.h"

#include <cstdint>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastrnn {
namespace {

constexpr std::align_val_t kLine{64};
constexpr std::size_t kHeader = 64;

}  // namespace

std::size_t& Memory::size_of(void* block) noexcept {
  return *reinterpret_cast<std::size_t*>(static_cast<char*>(block) - kHeader);
}

void* Memory::make(std::size_t size) {
  if (size + kHeader < size) throw std::bad_alloc();
  void* block = static_cast<char*>(::operator new(size + kHeader, kLine)) + kHeader;
  size_of(block) = size;
  return block;
}

void Memory::destroy(void* block) noexcept {
  ::operator delete(static_cast<char*>(block) - kHeader, kLine);
}

// The smallest free block that fits and wastes less than a quarter, else a new one.
void* Memory::take(std::size_t size) {
  const bool large = size >= kLeast;
  const unsigned now = requests_.fetch_add(large ? kLarge : 1, std::memory_order_relaxed);
  if (!large && now % kPatience) return make(size);
  std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock) return make(size);
  std::size_t best = free_.size();
  for (std::size_t i = 0; i < free_.size(); ++i) {
    const std::size_t has = free_[i].size;
    if (has >= size && has - size <= size / 4 && (best == free_.size() || has < free_[best].size))
      best = i;
  }
  void* found = nullptr;
  if (large && best < free_.size()) {
    found = free_[best].block;
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(best));
  }
  sweep();
  lock.unlock();
  return found ? found : make(size);
}

// Lets go of what has waited too long.
void Memory::sweep() {
  std::size_t kept = 0;
  for (const Free& entry : free_) {
    if (requests_ - entry.since >= kPatience)
      destroy(entry.block);
    else
      free_[kept++] = entry;
  }
  free_.resize(kept);
}

void Memory::give(void* block, std::size_t size) noexcept {
  std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
  if (size < kLeast || !lock.try_lock()) return destroy(block);
  try {
    free_.push_back({block, size_of(block), requests_});
  } catch (const std::bad_alloc&) {
    destroy(block);  // no room to remember it: it goes
  }
}

std::size_t Memory::kept() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::size_t sum = 0;
  for (const Free& entry : free_) sum += entry.size;
  return sum;
}

void ask_for_large_pages([[maybe_unused]] void* block, [[maybe_unused]] std::size_t size) noexcept {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t page = 2 << 20;
  const auto first = reinterpret_cast<std::uintptr_t>(block);
  const std::uintptr_t begin = (first + page - 1) & ~(page - 1), end = (first + size) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

Memory& memory() {
  static Memory& shared = *new Memory;
  return shared;
}

}  // namespace fastrnn
