#include "runtime/allocator.h"

#include "runtime/portability.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>

#if (defined(__unix__) || defined(__APPLE__)) && !defined(__EMSCRIPTEN__)
#define FASTRNN_POSIX 1
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#endif

namespace fastrnn {
namespace {

constexpr std::align_val_t kLine{64};

// A block is as large as what was asked for first; who gives it back may know less. So its size stands
// before it, on a cache line of its own.
constexpr std::size_t kHeader = 64;
struct Header {
  std::size_t size;
  void* next;  // of blocks that are to go
};

Header& header_of(void* block) noexcept {
  return *reinterpret_cast<Header*>(static_cast<char*>(block) - kHeader);
}

// Blocks from so many bytes on come from the system, not from the C library, which may keep what it is
// given back. Not under a sanitizer, which puts guards around blocks of the library.
#if defined(FASTRNN_POSIX) && !defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kMapped = 1 << 20;

void* map(std::size_t size) noexcept {
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : at;
}
void unmap(void* at, std::size_t size) noexcept { munmap(at, size); }
#else
constexpr std::size_t kMapped = std::numeric_limits<std::size_t>::max();

void* map(std::size_t) noexcept { return nullptr; }
void unmap(void*, std::size_t) noexcept {}
#endif

// Null where there is no memory.
void* make(std::size_t size) noexcept {
  const std::size_t whole = size + kHeader;
  if (whole < size) return nullptr;
  void* at = size >= kMapped ? map(whole) : ::operator new(whole, kLine, std::nothrow);
  if (!at) return nullptr;
  void* block = static_cast<char*>(at) + kHeader;
  header_of(block) = {size, nullptr};
  return block;
}

// Destroys a block and those that follow it.
void destroy(void* block) noexcept {
  while (block) {
    const auto [size, next] = header_of(block);
    void* at = static_cast<char*>(block) - kHeader;
    size >= kMapped ? unmap(at, size + kHeader) : ::operator delete(at, kLine);
    block = next;
  }
}

// A free block is taken if it wastes no more than a sixteenth. Blocks in use and free ones are together at
// most a tenth, or 2 MiB, more than those of the last steps.
constexpr std::size_t kWaste = 16, kSlack = 10, kLeastSlack = 2 << 20;

// A step counts if its blocks are at least this part of those of others.
constexpr std::size_t kSmallStep = 64;

// How often the thread looks that gives back what has waited too long.
constexpr std::chrono::milliseconds kLook{250};

}  // namespace

Memory::Memory() {
#ifdef FASTRNN_POSIX
  pthread_atfork([] { memory().mutex_.lock(); }, [] { memory().mutex_.unlock(); },
                 [] {
                   memory().sweeping_ = false;  // its thread is not in the child
                   memory().mutex_.unlock();
                 });
#endif
}

// A step begins when what is in use rises again after it fell by a quarter, but for a backward: between a
// forward and it the step before may lose its tape.
void Memory::begin_step() {
  if (in_use_ >= most_in_use_ - most_in_use_ / 4) return;
  if (of_step_ >= *std::max_element(before_, before_ + kSteps) / kSmallStep) {
    std::copy_backward(before_, before_ + kSteps - 1, before_ + kSteps);
    before_[0] = of_step_;
  }
  ++step_;
  of_step_ = most_in_use_ = in_use_;
}

// The most that blocks in use and free ones may be together.
std::size_t Memory::bound() const {
  const std::size_t most = std::max(of_step_, *std::max_element(before_, before_ + kSteps));
  return most + std::max(most / kSlack, kLeastSlack);
}

// Takes out the oldest free blocks until there are at most so many bytes of them, none older; they are to
// be destroyed, which takes time, when the lock is gone.
void* Memory::take_out(std::size_t most, Clock::time_point before) noexcept {
  void* first = nullptr;
  std::size_t n = 0;
  for (; n < free_.size() && (idle_ > most || free_[n].since < before); ++n) {
    header_of(free_[n].block).next = first;
    first = free_[n].block;
    idle_ -= free_[n].size;
  }
  free_.erase(free_.begin(), free_.begin() + static_cast<std::ptrdiff_t>(n));
  return first;
}

void* Memory::take(std::size_t size, const char* what, Use use) {
  void* found = nullptr;
  if (size >= kLeast) {
    void* old;
    {
      const Lock lock(mutex_);
      if (use != Use::backward) begin_step();
      std::size_t best = free_.size();
      for (std::size_t i = 0; i < free_.size(); ++i) {
        const std::size_t has = free_[i].size;
        if (has >= size && has - size <= size / kWaste &&
            (best == free_.size() || has < free_[best].size))
          best = i;
      }
      std::size_t has = size;
      bool counted = false;
      if (best < free_.size()) {
        found = free_[best].block, has = free_[best].size, counted = free_[best].step == step_;
        idle_ -= has;
        free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(best));
      } else {
        ++made_;
      }
      in_use_ += has;
      most_in_use_ = std::max(most_in_use_, in_use_);
      if (!counted) of_step_ += size;
      const std::size_t most = bound();
      old =
          take_out(std::min(limit_, most > in_use_ ? most - in_use_ : 0), Clock::now() - patience_);
    }
    destroy(old);
  }
  if (!found) found = make(size);
  if (!found && release() > 0) found = make(size);
  if (!found) {
    const Lock lock(mutex_);
    if (size >= kLeast) in_use_ -= size;
    throw OutOfMemory(size, what);
  }
  return found;
}

void Memory::give(void* block, std::size_t size) noexcept {
  if (size < kLeast) return destroy(block);
  {
    const Lock lock(mutex_);
    size = header_of(block).size;
    in_use_ -= size;
    if (size <= limit_ && idle_ <= limit_ - size) {
      try {
        free_.push_back({block, size, step_, Clock::now()});
        idle_ += size;
        block = nullptr;
      } catch (const std::bad_alloc&) {  // no room to remember it: it goes
      }
    }
#ifdef FASTRNN_THREADS
    if (!free_.empty() && !sweeping_) {
      try {
        std::thread([this] { sweep(); }).detach();
        sweeping_ = true;
      } catch (const std::exception&) {  // no thread to be had: the next call looks
      }
    }
#endif
  }
  destroy(block);
}

// Lets go of what has waited too long, until nothing waits.
void Memory::sweep() noexcept {
#ifdef FASTRNN_POSIX
  sigset_t all;  // signals are for the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
#endif
  for (;;) {
    std::this_thread::sleep_for(kLook);
    void* old;
    {
      const Lock lock(mutex_);
      if (free_.empty()) {
        sweeping_ = false;
        return;
      }
      old = take_out(idle_, Clock::now() - patience_);
    }
    destroy(old);
  }
}

std::size_t Memory::kept() {
  const Lock lock(mutex_);
  return idle_;
}

std::size_t Memory::made() {
  const Lock lock(mutex_);
  return made_;
}

std::size_t Memory::release() {
  void* all;
  std::size_t bytes;
  {
    const Lock lock(mutex_);
    bytes = idle_;
    all = take_out(0, Clock::time_point::max());
  }
  destroy(all);
  return bytes;
}

void Memory::set_limit(std::size_t bytes) {
  void* old;
  {
    const Lock lock(mutex_);
    limit_ = bytes;
    old = take_out(bytes, Clock::time_point::min());
  }
  destroy(old);
}

void Memory::set_patience(std::chrono::milliseconds wait) {
  const Lock lock(mutex_);
  patience_ = wait;
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
