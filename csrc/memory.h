// Memory that a call leaves behind for the next one. A system gives memory page by page at first
// touch, and C libraries give large blocks back as soon as they are free: a training step that
// allocates anew what the last one freed spends up to a third of its time in page faults.
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

namespace fastrnn {

// Blocks that are free, by size. May be used from any thread.
class Memory {
 public:
  // Uninitialized, on a cache line; throws std::bad_alloc.
  void* take(std::size_t size);
  void give(void* block, std::size_t size) noexcept;  // what take(size) returned

  std::size_t kept();  // bytes that wait to be taken

  static constexpr std::size_t kLeast = 1 << 16;  // bytes; smaller blocks are not kept
  // So many requests a block waits for one that fits; a large one counts kLarge times.
  static constexpr unsigned kPatience = 4096, kLarge = 64;

 private:
  struct Free {
    void* block;
    std::size_t size;  // that it was made with
    unsigned since;    // which request
  };

  // A block is as large as what was asked for first; who gives it back may know less. So its size
  // stands before it, on a cache line of its own.
  void sweep();
  static void* make(std::size_t size);
  static void destroy(void* block) noexcept;
  static std::size_t& size_of(void* block) noexcept;

  // Never waited for: in the child of a fork another thread may hold it for ever.
  std::mutex mutex_;
  std::vector<Free> free_;
  std::atomic<unsigned> requests_{0};
};

// The one that all calls share. Never destroyed: arrays may live until the process ends.
Memory& memory();

// Asks the system to back what lies in a block with pages of two megabytes: weights that are read from
// beyond the caches at each step then need few entries of those that translate addresses. It may refuse.
void ask_for_large_pages(void* block, std::size_t size) noexcept;

// A block as long as this lives.
class Buffer {
 public:
  explicit Buffer(std::size_t size) : size_(size), data_(memory().take(size)) {}
  static Buffer of_weights(std::size_t size) {
    Buffer buffer(size);
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
