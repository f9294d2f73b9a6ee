// Runs CUDA kernels on one CPU thread, a fiber for each CUDA thread. Stands in for
// fastrnn/kernels/cuda/gpu.h: the kernels' text is the same, the twins of that file's functions are
// here.
//
// Blocks of a plain launch run one after the other, those of a cluster or of a cooperative launch side
// by side. A fiber runs until it ends or waits. The order is fixed (seed 0), random (1), or random with
// blocks and warps held back now and then (2 and more). When nobody can go on, that is a deadlock.
// Shared memory starts as NaN.
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define FASTRNN_FN inline
#define FASTRNN_NOINLINE inline
#define FASTRNN_UNROLL
#define FASTRNN_UNROLL_BY(n)
#define FASTRNN_CLUSTERED

using Index = long long;
using Word = unsigned long long;

// What the sanitizers must know of fibers. The scheduler's own state is not the kernels', and is
// not watched.
#if defined(__SANITIZE_THREAD__)
#define EMULATOR_UNWATCHED __attribute__((no_sanitize_thread, noinline))
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void* __tsan_get_current_fiber(void);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#elif defined(__SANITIZE_ADDRESS__)
#define EMULATOR_UNWATCHED __attribute__((no_sanitize_address, noinline))
extern "C" {
void __sanitizer_start_switch_fiber(void**, const void*, size_t);
void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
}
#else
#define EMULATOR_UNWATCHED __attribute__((noinline))
#endif

namespace emulator {

struct Dim3 {
  unsigned x, y, z;
};

// Where threads meet: all `need` of them arrive, then all leave.
struct Barrier {
  unsigned need = 0, here = 0, generation = 0;
  char order[2] =
      {};  // the sanitizer's marks, in turn: who leaves late must not see the next arrivals
};

// What the lanes of a warp hand to each other.
struct Board {
  uint64_t word[32][6];
};

struct Block;

// Blocks that run at the same time and reach each other's shared memory.
struct Cluster {
  Block* first;
  Barrier barrier;
};

struct Block {
  Dim3 index;
  Cluster* cluster;
  unsigned running;  // threads that have not ended
  bool entered;      // by one of them
  Barrier barrier;
  std::vector<Barrier> warps;
  std::vector<Board> boards;  // of each warp
  bool any[3];                // of __syncthreads_or: one in use, one being read, one being cleared
  char* shared;
};

struct Fiber {
  ucontext_t context;
  jmp_buf jump;
  bool started, done;
  unsigned thread, votes, meeting;
  Block* block;
  void* sanitizer;
  char* stack;
};

constexpr size_t kStack = 64 << 10;
constexpr int kPatience = 1000;  // rounds in which nobody gets on

// Blocks of a cluster, which follow each other in the grid.
#ifdef FASTRNN_CLUSTER
constexpr unsigned kCluster = FASTRNN_CLUSTER;
#else
constexpr unsigned kCluster = 1;
#endif

// What a launch returns whose grid is not made of whole clusters, or that has reached for the shared
// memory of a block that was not running.
constexpr unsigned kNoCluster = ~0u;

// What a launch returns that a thread has stopped.
constexpr unsigned kStopped = kNoCluster - 1;

struct Scheduler {
  ucontext_t context;
  jmp_buf jump;
  Dim3 grid, block;
  const std::function<void()>* body;
  Fiber* current;
  void* sanitizer;
  void* stack_bottom;
  size_t stack_size;
  uint64_t random, progress, time;
  bool astray, stopped;
};
static Scheduler scheduler;

EMULATOR_UNWATCHED static Fiber* self() { return scheduler.current; }
EMULATOR_UNWATCHED static void got_on() { ++scheduler.progress; }
// A nanosecond passes with each turn of a fiber, or as many as a test says.
extern "C" uint64_t nanoseconds_a_turn;
uint64_t nanoseconds_a_turn = 1;
extern "C" uint64_t looks_at_the_clock;
uint64_t looks_at_the_clock = 0;
EMULATOR_UNWATCHED static uint64_t now() {
  ++looks_at_the_clock;
  return scheduler.time * nanoseconds_a_turn;
}

EMULATOR_UNWATCHED static void acquire(const void* p) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(const_cast<void*>(p));
#endif
  (void)p;
}

EMULATOR_UNWATCHED static void release(const void* p) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(const_cast<void*>(p));
#endif
  (void)p;
}

EMULATOR_UNWATCHED static uint64_t draw() {
  uint64_t& r = scheduler.random;
  r ^= r << 13, r ^= r >> 7, r ^= r << 17;
  return r >> 16;
}

// From a fiber to the scheduler.
EMULATOR_UNWATCHED static void yield() {
  Fiber* f = scheduler.current;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(scheduler.sanitizer, 1);  // 1: a switch orders nothing
  swapcontext(&f->context, &scheduler.context);
#elif defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(f->done ? nullptr : &fake, scheduler.stack_bottom,
                                 scheduler.stack_size);
  swapcontext(&f->context, &scheduler.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  if (!_setjmp(f->jump)) _longjmp(scheduler.jump, 1);  // no system call, unlike swapcontext
#endif
}

EMULATOR_UNWATCHED static void enter() {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &scheduler.stack_size);
  scheduler.stack_bottom = const_cast<void*>(bottom);
#endif
  acquire(&scheduler);
  self()->block->entered = true;
  (*scheduler.body)();
  release(&scheduler.body);  // not what the others acquire: an end orders nothing among threads
  self()->done = true;
  --self()->block->running;
  got_on();
  yield();
  abort();
}

// From the scheduler to a fiber, and back when that waits or ends.
EMULATOR_UNWATCHED static void resume(Fiber* f) {
  scheduler.current = f;
  ++scheduler.time;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f->sanitizer, 1);
  swapcontext(&scheduler.context, &f->context);
#elif defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, f->stack, kStack);
  swapcontext(&scheduler.context, &f->context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
  if (_setjmp(scheduler.jump)) return;
  if (f->started) _longjmp(f->jump, 1);
  f->started = true;
  setcontext(&f->context);
#endif
}

// Returns what to wait for.
EMULATOR_UNWATCHED static unsigned arrive(Barrier& b, bool orders = true) {
  const unsigned generation = b.generation;
  if (orders) release(&b.order[generation % 2]);
  if (++b.here == b.need) {
    b.here = 0;
    ++b.generation;
    got_on();
  }
  return generation;
}

EMULATOR_UNWATCHED static void leave(Barrier& b, unsigned generation, bool orders = true) {
  while (b.generation == generation) yield();
  if (orders) acquire(&b.order[generation % 2]);
}

EMULATOR_UNWATCHED static void wait(Barrier& b, bool orders = true) {
  leave(b, arrive(b, orders), orders);
}

EMULATOR_UNWATCHED static void wait_block() { wait(self()->block->barrier); }
EMULATOR_UNWATCHED static void wait_warp() { wait(self()->block->warps[self()->thread / 32]); }

// Shows this lane's words to its warp and copies what all show. Orders nothing in memory, as
// shuffles and products of tiles do not.
EMULATOR_UNWATCHED static Board together(const uint64_t* words, int count) {
  Fiber* f = self();
  Barrier& warp = f->block->warps[f->thread / 32];
  Board& board = f->block->boards[f->thread / 32];
  for (int i = 0; i < count; ++i) board.word[f->thread % 32][i] = words[i];
  wait(warp, false);
  const Board all = board;
  wait(warp, false);
  return all;
}

// What tensor cores were measured to do (Fasi, Higham, Mikaitis and Pranesh 2021): exact products of
// a few k are brought to the largest exponent among them and the sum so far, cut to 24 bits there,
// added, and the sum is cut again. Later GPUs keep two bits more.
EMULATOR_UNWATCHED static float tensor_sum(float sum, const double* products, int count) {
  double largest = std::fabs(sum), total = sum;
  for (int i = 0; i < count; ++i) {
    largest = std::fmax(largest, std::fabs(products[i]));
    total += products[i];
  }
  if (!(std::fabs(total) <= 1e300) || largest == 0) return static_cast<float>(total);
  uint64_t bits;
  memcpy(&bits, &largest, 8);
  bits &= 0x7FF0000000000000ull;  // the power of two
  double unit;
  memcpy(&unit, &bits, 8);
  unit *= 0x1p-23;
  const double each = 1 / unit;
  total = std::trunc(sum * each);
  for (int i = 0; i < count; ++i) total += std::trunc(products[i] * each);
  total *= unit;
  const float rounded = static_cast<float>(total);
  return std::fabs(rounded) > std::fabs(total) ? std::nextafter(rounded, 0.0f) : rounded;
}

EMULATOR_UNWATCHED static bool vote(bool mine) {
  Fiber* f = self();
  const unsigned turn = f->votes++;
  bool* any = f->block->any;
  any[turn % 3] |= mine;
  wait_block();
  any[(turn + 2) % 3] = false;
  return any[turn % 3];
}

// Where an address in this block's shared memory is in that of a block of its cluster. One that no
// thread has entered, or that all have left, has none.
EMULATOR_UNWATCHED static char* shared_of(unsigned block, const void* p) {
  Block* mine = self()->block;
  Block& there = mine->cluster->first[block];
  if (!there.running || !there.entered) scheduler.astray = true;
  return there.shared + (static_cast<const char*>(p) - mine->shared);
}

static char* stack(unsigned index) {
  static std::vector<std::unique_ptr<char[]>> stacks;
  while (stacks.size() <= index) stacks.emplace_back(new char[kStack]);
  return stacks[index].get();
}

#if defined(__SANITIZE_THREAD__)
// To make one takes the sanitizer a while, so that they serve again in the next launch.
static void* watched_thread(unsigned index) {
  static std::vector<void*> threads;
  while (threads.size() <= index) threads.push_back(__tsan_create_fiber(0));
  return threads[index];
}
#endif

EMULATOR_UNWATCHED static void prepare(Fiber& f, Block& block, unsigned thread, unsigned index) {
  f = Fiber{};
  f.block = &block;
  f.thread = thread;
  f.stack = stack(index);
  ++block.running;
  ++block.barrier.need;
  ++block.cluster->barrier.need;
  ++block.warps[thread / 32].need;
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = f.stack;
  f.context.uc_stack.ss_size = kStack;
  makecontext(&f.context, enter, 0);
#if defined(__SANITIZE_THREAD__)
  f.sanitizer = watched_thread(index);
#endif
}

// Runs fibers until all are done; returns how many wait for ever.
EMULATOR_UNWATCHED static unsigned run(std::vector<Fiber>& fibers, unsigned threads,
                                       uint64_t seed) {
  std::vector<unsigned> order(fibers.size());
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  unsigned live = fibers.size(), idle = 0;
  while (live && idle < kPatience && !scheduler.stopped) {
    const uint64_t before = scheduler.progress;
    uint64_t blocks = ~0ull, warps = ~0ull;  // those that may run in this round
    if (seed)
      for (unsigned i = order.size(); i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
    if (seed > 1 && !idle) blocks = draw() << 32 ^ draw(), warps = draw() << 32 ^ draw();
    live = 0;
    for (unsigned i : order) {
      Fiber& f = fibers[i];
      if (f.done) continue;
      if (blocks >> (i / threads % 64) & warps >> (f.thread / 32) & 1) resume(&f);
      live += !f.done;
    }
    idle = scheduler.progress == before ? idle + 1 : 0;
  }
  return live;
}

EMULATOR_UNWATCHED static unsigned launch(Dim3 grid, Dim3 block, size_t shared, bool cooperative,
                                          uint64_t seed, const std::function<void()>& body) {
  const unsigned blocks = grid.x * grid.y * grid.z, threads = block.x * block.y * block.z;
  const unsigned together = cooperative ? blocks : kCluster;
  if (grid.x % kCluster) return kNoCluster;
  scheduler = Scheduler{};
  scheduler.grid = grid, scheduler.block = block, scheduler.body = &body;
  scheduler.random = (seed + 1) * 0x9E3779B97F4A7C15ull | 1;
#if defined(__SANITIZE_THREAD__)
  scheduler.sanitizer = __tsan_get_current_fiber();
#endif
  unsigned waiting = 0;
  for (unsigned first = 0; first < blocks && !waiting && !scheduler.stopped; first += together) {
    std::vector<Block> running(together);
    std::vector<Cluster> clusters(together / kCluster);
    std::vector<Fiber> fibers(size_t(together) * threads);
    for (unsigned b = 0; b < together; ++b) {
      const unsigned id = first + b;
      running[b].index = {id % grid.x, id / grid.x % grid.y, id / grid.x / grid.y};
      running[b].cluster = &clusters[b / kCluster];
      running[b].cluster->first = &running[b / kCluster * kCluster];
      running[b].warps.resize((threads + 31) / 32);
      running[b].boards.resize(running[b].warps.size());
      running[b].shared = new (std::align_val_t(128)) char[shared];
      memset(running[b].shared, 0xFF, shared);
      for (unsigned t = 0; t < threads; ++t)
        prepare(fibers[b * threads + t], running[b], t, b * threads + t);
    }
    release(&scheduler);
    waiting = run(fibers, threads, seed);
    acquire(&scheduler.body);
    for (Block& b : running) operator delete[](b.shared, std::align_val_t(128));
  }
  return scheduler.stopped ? kStopped : scheduler.astray ? kNoCluster : waiting;
}

// Calls a kernel with arguments as cuLaunchKernel takes them, an address each.
template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
  kernel(*static_cast<A*>(args[I])...);
}

// What kind each of a kernel's parameters is: 'p' an address, 'f' a double, 'i' an integer; all are
// 8 bytes.
template <class... A>
static const char* kinds(void (*)(A...)) {
  static_assert(((sizeof(A) == 8) && ...), "arguments have 8 bytes each");
  static const char text[] = {(std::is_pointer<A>::value          ? 'p'
                               : std::is_floating_point<A>::value ? 'f'
                                                                  : 'i')...,
                              0};
  return text;
}

template <class... A>
static unsigned start(void (*kernel)(A...), const unsigned* grid, const unsigned* block,
                      size_t shared, bool cooperative, uint64_t seed, void** args) {
  return launch({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared, cooperative,
                seed, [=] { call(kernel, args, std::make_index_sequence<sizeof...(A)>()); });
}

EMULATOR_UNWATCHED static Dim3 thread_index() { return {self()->thread, 0, 0}; }
EMULATOR_UNWATCHED static Dim3 block_index() { return self()->block->index; }
EMULATOR_UNWATCHED static Dim3 block_size() { return scheduler.block; }
EMULATOR_UNWATCHED static Dim3 grid_size() { return scheduler.grid; }

}  // namespace emulator

// Two functions for a kernel: its parameters' kinds, and a launch, which returns how many threads
// wait for ever, kNoCluster or kStopped.
#define EMULATE(name)                                                                           \
  extern "C" const char* kinds_##name() { return emulator::kinds(name); }                       \
  extern "C" unsigned launch_##name(const unsigned* grid, const unsigned* block, size_t shared, \
                                    bool cooperative, uint64_t seed, void** args) {             \
    return emulator::start(name, grid, block, shared, cooperative, seed, args);                 \
  }

#define threadIdx (emulator::thread_index())
#define blockIdx (emulator::block_index())
#define blockDim (emulator::block_size())
#define gridDim (emulator::grid_size())

static inline void __syncthreads() { emulator::wait_block(); }
static inline void __syncwarp() { emulator::wait_warp(); }
static inline int __syncthreads_or(int mine) { return emulator::vote(mine); }

// ---- twins of gpu.h

template <class T>
static inline T* shared_memory() {
  return reinterpret_cast<T*>(emulator::self()->block->shared);
}

static inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
static inline double fused(double a, double b, double c) { return std::fma(a, b, c); }
static inline float magnitude(float a) { return std::fabs(a); }
static inline double magnitude(double a) { return std::fabs(a); }
static inline float with_sign(float a, float sign) { return std::copysign(a, sign); }
static inline double with_sign(double a, double sign) { return std::copysign(a, sign); }
static inline float power_of_two(float sum, unsigned bias) {
  std::uint32_t bits;
  std::memcpy(&bits, &sum, sizeof bits);
  bits = (bits + bias) << 23;
  std::memcpy(&sum, &bits, sizeof bits);
  return sum;
}
static inline double power_of_two(double sum, unsigned bias) {
  Word bits;
  std::memcpy(&bits, &sum, sizeof bits);
  bits = (bits + bias) << 52;
  std::memcpy(&sum, &bits, sizeof bits);
  return sum;
}
static inline Word product_high(Word a, Word b) {
  return static_cast<Word>(static_cast<unsigned __int128>(a) * b >> 64);
}

static inline float load_fresh(const float* p) { return *p; }
static inline double load_fresh(const double* p) { return *p; }
template <class T>
static inline void load_fresh(const T* p, T (&to)[4]) {
  const bool aligned = reinterpret_cast<uintptr_t>(p) % 16 == 0;  // else a GPU would stop here
  for (int i = 0; i < 4; ++i) to[i] = aligned ? p[i] : std::nan("");
}
static inline void load_fresh(const unsigned short* p, unsigned (&to)[2]) {
  const bool aligned = reinterpret_cast<uintptr_t>(p) % 8 == 0;
  for (int i = 0; i < 2; ++i) to[i] = aligned ? p[2 * i + 1] << 16 | p[2 * i] : ~0u;
}
template <class T>
static inline T atomic_load(const T* p) {
  T value;
  __atomic_load(p, &value, __ATOMIC_RELAXED);
  return value;
}
static inline float load_relaxed(const float* p) { return atomic_load(p); }
template <class T>
static inline void load_relaxed(const T* p, T (&to)[4]) {
  const bool aligned = reinterpret_cast<uintptr_t>(p) % 16 == 0;
  for (int i = 0; i < 4; ++i) to[i] = aligned ? atomic_load(p + i) : std::nan("");
}
static inline void load_relaxed(const unsigned short* p, unsigned (&to)[2]) {
  const bool aligned = reinterpret_cast<uintptr_t>(p) % 8 == 0;
  for (int i = 0; i < 2; ++i)
    to[i] = aligned ? atomic_load(p + 2 * i + 1) << 16 | atomic_load(p + 2 * i) : ~0u;
}
template <class T>
static inline void store_relaxed(T* p, T value) {
  __atomic_store(p, &value, __ATOMIC_RELAXED);
  emulator::got_on();
}
EMULATOR_UNWATCHED static unsigned load_acquire(const unsigned* p) {
  const unsigned value = *static_cast<const volatile unsigned*>(p);
  emulator::acquire(p);
  return value;
}
EMULATOR_UNWATCHED static void add_release(unsigned* p, unsigned value) {
  emulator::release(p);
  *static_cast<volatile unsigned*>(p) = *p + value;
  emulator::got_on();
}
static inline void cluster_arrive() {
  emulator::Fiber* f = emulator::self();
  f->meeting = emulator::arrive(f->block->cluster->barrier);
}
static inline void cluster_wait() {
  emulator::Fiber* f = emulator::self();
  emulator::leave(f->block->cluster->barrier, f->meeting);
}
template <class T>
static inline void store_to(unsigned block, T* p, T value) {
  *reinterpret_cast<T*>(emulator::shared_of(block, p)) = value;
}
template <class T, class To>
static inline void load_shared(const T* p, To& to) {
  load_fresh(p, to);  // aligned as those are
}
static inline Word nanoseconds() { return emulator::now(); }
static inline void wait_a_little() { emulator::yield(); }
EMULATOR_UNWATCHED static void stop() {
  emulator::scheduler.stopped = true;
  while (true) emulator::yield();
}
static inline float not_a_number(float) { return std::nanf(""); }
static inline double not_a_number(double) { return std::nan(""); }

template <class T>
EMULATOR_UNWATCHED static T from_lane_xor(T value, int mask) {
  uint64_t word = 0;
  memcpy(&word, &value, sizeof value);
  const emulator::Board all = emulator::together(&word, 1);
  memcpy(&value, all.word[emulator::self()->thread % 32 ^ mask], sizeof value);
  return value;
}
static inline unsigned bits_of(float a) {
  unsigned bits;
  memcpy(&bits, &a, 4);
  return bits;
}
static inline Word bits_of(double a) {
  Word bits;
  memcpy(&bits, &a, 8);
  return bits;
}
static inline float float_of(unsigned bits) {
  float a;
  memcpy(&a, &bits, 4);
  return a;
}
static inline unsigned to_tf32(float a) {
  return a == a ? (bits_of(a) + 0x1000) & ~0x1FFFu : 0x7FFFFFFF;
}
static inline unsigned to_near_tf32(float a) {
  return a == a ? (bits_of(a) + 0xFFF + (bits_of(a) >> 13 & 1)) & ~0x1FFFu : 0x7FFFFFFF;
}
static inline unsigned to_bf16(float a) {
  return a == a ? (bits_of(a) + 0x7FFF + (bits_of(a) >> 16 & 1)) >> 16 : 0x7FFF;
}
static inline unsigned to_bf16(float low, float high) { return to_bf16(high) << 16 | to_bf16(low); }

// The lane with number t of group g has, of a word's P numbers (one of TF32, two of bfloat16):
//   a[i]: row g + i % 2 * 8, words t + i / 2 * 4;  b[i]: column g, the same words;
//   d[i]: row g + i / 2 * 8, column 2 * t + i % 2
template <int P>
EMULATOR_UNWATCHED static void multiply_tile(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
  const uint64_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const emulator::Board all = emulator::together(words, 6);
  const int lane = emulator::self()->thread % 32, g = lane / 4, t = lane % 4;
  const auto number = [](unsigned word, int part) {
    return static_cast<double>(float_of(P == 1 ? word & ~0x1FFFu
                                        : part ? word & 0xFFFF0000u
                                               : word << 16));
  };
  for (int i = 0; i < 4; ++i) {
    for (int half = 0; half < 2; ++half) {  // four words of k at once
      double products[4 * P];
      for (int k = 0; k < 4; ++k)
        for (int part = 0; part < P; ++part)
          products[k * P + part] = number(all.word[g * 4 + k][i / 2 + 2 * half], part) *
                                   number(all.word[(2 * t + i % 2) * 4 + k][4 + half], part);
      d[i] = emulator::tensor_sum(d[i], products, 4 * P);
    }
  }
}
static inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  multiply_tile<1>(d, a, b);
}
static inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  multiply_tile<2>(d, a, b);
}

// What a test plants in place of add_release: it counts, and orders nothing.
EMULATOR_UNWATCHED static void add_relaxed(unsigned* p, unsigned value) {
  *static_cast<volatile unsigned*>(p) = *p + value;
  emulator::got_on();
}
