// Memory that a call leaves behind for the next one. A system gives memory page by page at first
// touch, and C libraries give large blocks back as soon as they are free: a training step that
// allocates anew what the last one freed spends up to a third of its time in page faults.
#pragma once

#include <chrono>
#include <cstddef>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace fastrnn {

// Says for what there was no memory.
class OutOfMemory : public std::bad_alloc {
 public:
  OutOfMemory(std::size_t size, const char* what)
      : text_("out of memory: " + std::to_string(size) + " bytes for " + what) {}
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  std::string text_;
};

// A backward goes on with the step that its forward began.
enum class Use { any, backward };

// Blocks that are free, and how many bytes they may be (docs/adr/0022-what-memory-is-kept.md). May be
// used from any thread, and in the child of a fork.
class Memory {
 public:
  Memory();

  // Uninitialized, on a cache line; throws OutOfMemory.
  void* take(std::size_t size, const char* what, Use use = Use::any);
  void give(void* block, std::size_t size) noexcept;  // what take(size) returned

  std::size_t kept();                 // bytes that wait to be taken
  std::size_t made();                 // blocks that were made anew so far
  std::size_t release();              // gives all of them back to the system; returns their bytes
  void set_limit(std::size_t bytes);  // of what is kept, from now on
  void set_patience(std::chrono::milliseconds wait);  // how long a block waits

  static constexpr std::size_t kLeast = 1 << 16;  // bytes; smaller blocks are not kept

 private:
  using Clock = std::chrono::steady_clock;
  struct Free {
    void* block;
    std::size_t size;  // that it was made with
    unsigned step;     // in which it was given back
    Clock::time_point since;
  };
  using Lock = std::lock_guard<std::mutex>;

  void begin_step();
  std::size_t bound() const;
  void* take_out(std::size_t most, Clock::time_point before) noexcept;
  void sweep() noexcept;

  // A fork takes it too (allocator.cpp), so that no child finds it held.
  std::mutex mutex_;
  std::vector<Free> free_;             // by the time at which they were given back
  std::size_t idle_ = 0, in_use_ = 0;  // bytes of free blocks and of others
  std::size_t made_ = 0;
  std::size_t limit_ = std::numeric_limits<std::size_t>::max();
  std::chrono::milliseconds patience_{2000};
  bool sweeping_ = false;  // a thread looks from time to time

  // Bytes of the blocks that were in use in this step, each counted once, and in those before.
  static constexpr int kSteps = 3;
  std::size_t of_step_ = 0, before_[kSteps] = {};
  std::size_t most_in_use_ = 0;  // at a time, in this step
  unsigned step_ = 0;
};

// The one that all calls share. Never destroyed: arrays may live until the process ends.
Memory& memory();

// Asks the system to back what lies in a block with pages of two megabytes: weights that are read from
// beyond the caches at each step then need few entries of those that translate addresses. It may refuse.
void ask_for_large_pages(void* block, std::size_t size) noexcept;

// A block as long as this lives; `what` is said where there is no memory.
class Buffer {
 public:
  Buffer(std::size_t size, const char* what, Use use = Use::any)
      : size_(size), data_(memory().take(size, what, use)) {}
  static Buffer of_weights(std::size_t size) {
    Buffer buffer(size, "packed weights");
    ask_for_large_pages(buffer.data(), size);
    return buffer;
  }
  ~Buffer() {
    if (data_) memory().give(data_, size_);
  }
  Buffer(Buffer&& other) noexcept : size_(other.size_), data_(other.data_) {
    other.data_ = nullptr;
  }
  Buffer& operator=(Buffer&&) = delete;

  void* data() const { return data_; }

 private:
  std::size_t size_;
  void* data_;
};

}  // namespace fastrnn
