// How the blocks of a group of rows exchange values at each step: the three exchanges that a program
// chooses among. All have the same functions. Through memory, a block that waits too long stops the kernel,
// which is an error at the next synchronisation. In a cluster nobody waits for a block that does not
// run.

// A wait for the other blocks of a group. It is over when one has lasted kPatience since all of the
// group had begun: a cooperative launch begins where all of its blocks can run at once, and who waits
// for that, beside other kernels, waits for no fault. Time in which the GPU runs something else
// altogether is not counted: of what passes between two readings of the clock, at most kMostCounted is.
// The clock takes longer to read than a poll, and is not read before the first ones.
struct SpinWait {
  static constexpr Word kPatience = 2000000000, kMostCounted = 100000000;  // nanoseconds
  static constexpr unsigned kPolls = 16;                                   // between two readings
  unsigned polls = 0;
  Word last = 0, waited = 0;

  // After a poll in vain. `arrivals` is not less than `blocks` once these have all begun.
  FASTRNN_FN void again(const unsigned* arrivals, unsigned blocks) {
    wait_a_little();
    if (++polls % kPolls) return;
    const Word now = nanoseconds(), passed = now - last;
    if (polls > kPolls && load_acquire(arrivals) >= blocks) {
      waited += passed < kMostCounted ? passed : kMostCounted;
      if (waited > kPatience) stop();
    }
    last = now;
  }
};

// What the blocks of a launch share: 128 bytes for each group of rows, zeros at first; then rows of
// words, one of zeros and slots of a batch each, all padded with zeros.
template <class Word>
struct ExchangeBuffer {
  unsigned* arrivals;  // of the group's blocks
  Word* words;
  Index B;
  int stride;

  // B rows of `padded` words in a slot; neither a group's rows nor the block's memory matter.
  FASTRNN_FN ExchangeBuffer(unsigned* shared, Index B_, Index, int, int padded, void*)
      : arrivals(shared + 32 * blockIdx.y),
        words(reinterpret_cast<Word*>(shared + 32 * gridDim.y)),
        B(B_),
        stride(padded) {}
  FASTRNN_FN const Word* zeros() const { return words; }
  FASTRNN_FN Word* row(Index slot, Index m) const { return words + (1 + slot * B + m) * stride; }
};

// A barrier after each step: a counter has the blocks' arrivals. A slot is written again two steps
// later, when nobody reads it any more.
template <class Word>
struct BarrierExchange : ExchangeBuffer<Word> {
  using ExchangeBuffer<Word>::ExchangeBuffer, ExchangeBuffer<Word>::arrivals;
  static constexpr int kTogether = 1;  // chunks that a loop takes at once: the compiler does more
  unsigned target = 0;

  // The slot of a launch's step n.
  FASTRNN_FN static Index slot(Index n) { return n % 2; }
  FASTRNN_FN static void publish(Word* to, Word value) { *to = value; }

  // All that the block has published, others may consume after `wait`.
  FASTRNN_FN void arrive() {
    target += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0 && gridDim.x > 1) add_release(arrivals, 1);
  }
  FASTRNN_FN void wait() const {
    if (gridDim.x == 1) return;
    if (threadIdx.x == 0) {
      SpinWait in_vain;
      while (load_acquire(arrivals) < target) in_vain.again(arrivals, gridDim.x);
    }
    __syncthreads();
  }

  // Loads what stands at from(i).
  template <int N, class From>
  FASTRNN_FN static void consume(Loaded<Word> (&to)[N], const From& from) {
    FASTRNN_UNROLL
    for (int i = 0; i < N; ++i) load_fresh(from(i), to[i].v);
  }
  // Loads once more what the block has consumed.
  FASTRNN_FN static Word reload(const Word* from) { return load_fresh(from); }
};

// Flag-in-data, as NCCL's LL protocol: a word shows by itself whether it has been published. Before,
// its bits are all ones, a NaN, and none that is published is so. Each step of a launch has a slot of its own, so nothing is written twice.
template <class Word>
struct FlagExchange : ExchangeBuffer<Word> {
  using ExchangeBuffer<Word>::arrivals;
  static constexpr int kTogether = 2;  // over a check, the compiler moves no load

  FASTRNN_FN FlagExchange(unsigned* shared, Index B, Index each, int slots, int padded,
                          void* memory)
      : ExchangeBuffer<Word>(shared, B, each, slots, padded, memory) {
    if (threadIdx.x == 0) add_release(arrivals, 1);
  }

  FASTRNN_FN static Index slot(Index n) { return n; }
  FASTRNN_FN static void publish(float* to, float x) {
    store_relaxed(to, blank(x) ? not_a_number(x) : x);
  }
  FASTRNN_FN static void publish(double* to, double x) {
    store_relaxed(to, blank(x) ? not_a_number(x) : x);
  }
  FASTRNN_FN static void publish(unsigned short* to, unsigned short x) {
    store_relaxed(to, static_cast<unsigned short>(x == 0xffff ? 0x7fff : x));
  }
  FASTRNN_FN static void arrive() { __syncthreads(); }
  FASTRNN_FN static void wait() {}

  // All loads are on their way at once; those of what had not arrived are repeated.
  template <int N, class From>
  FASTRNN_FN void consume(Loaded<Word> (&to)[N], const From& from) const {
    bool all = true;
    FASTRNN_UNROLL
    for (int i = 0; i < N; ++i) load_relaxed(from(i), to[i].v);
    FASTRNN_UNROLL
    for (int i = 0; i < N; ++i) all &= arrived(to[i]);
    for (SpinWait in_vain; !all; in_vain.again(arrivals, gridDim.x)) {
      all = true;
      FASTRNN_UNROLL
      for (int i = 0; i < N; ++i) {
        if (!arrived(to[i])) load_relaxed(from(i), to[i].v);
      }
      FASTRNN_UNROLL
      for (int i = 0; i < N; ++i) all &= arrived(to[i]);
    }
    __syncwarp();
  }
  FASTRNN_FN static Word reload(const Word* from) { return load_relaxed(from); }

 private:
  FASTRNN_FN static bool blank(float x) { return bits_of(x) == ~0u; }
  FASTRNN_FN static bool blank(double x) { return bits_of(x) == ~0ull; }
  FASTRNN_FN static bool blank(unsigned pair) { return pair >> 16 == 0xffff || ~pair << 16 == 0; }
  // Each word was published by itself, so that each must be checked.
  FASTRNN_FN static bool arrived(const Loaded<Word>& words) {
    bool all = true;
    for (const auto& v : words.v) all &= !blank(v);
    return all;
  }
};

// The blocks of a group are a cluster: the GPU runs them at the same time and has a barrier for them,
// and each publishes into the shared memory of all, where they are read as the block's own.
// There, at `memory`, are a row of zeros and slots of a group's rows each. What is published is so before a
// barrier that all wait at: a block that has ended is not written to.
template <class Word>
struct ClusterExchange {
  static constexpr int kTogether = 1;
  Word* words;
  Index first, each;
  int stride;

  FASTRNN_FN ClusterExchange(unsigned*, Index, Index each_, int slots, int padded, void* memory)
      : words(static_cast<Word*>(memory)),
        first(blockIdx.y * each_),
        each(each_),
        stride(padded + kChunk) {  // rows begin in other banks
    for (Index i = threadIdx.x; i < (1 + slots * each) * stride; i += blockDim.x) words[i] = 0;
    arrive();
    wait();
  }
  FASTRNN_FN const Word* zeros() const { return words; }
  FASTRNN_FN Word* row(Index slot, Index m) const {
    return words + (1 + slot * each + m - first) * stride;
  }

  FASTRNN_FN static Index slot(Index n) { return n % 2; }
  FASTRNN_FN static void publish(Word* to, Word value) {
    for (unsigned block = 0; block < gridDim.x; ++block) store_to(block, to, value);
  }
  FASTRNN_FN static void arrive() { cluster_arrive(); }
  FASTRNN_FN static void wait() { cluster_wait(); }
  template <int N, class From>
  FASTRNN_FN static void consume(Loaded<Word> (&to)[N], const From& from) {
    FASTRNN_UNROLL
    for (int i = 0; i < N; ++i) load_shared(from(i), to[i].v);
  }
  FASTRNN_FN static Word reload(const Word* from) { return *from; }
};
