// What the persistent kernels rest on, alone: how long it takes, and that it does what is said of it.

extern "C" __global__ void nothing(Index) {}

// Of a wait: a second, which is counted from the first poll in vain.
struct Patience {
  Word begin = 0;

  // Whether to poll again; if not, the wait counts as late.
  FASTRNN_FN bool again(unsigned* late) {
    const Word now = nanoseconds();
    if (!begin) begin = now;
    if (now - begin > 1000000000) {
      add_release(late, 1);
      return false;
    }
    wait_a_little();
    return true;
  }
};

// All blocks meet `rounds` times, as persistent kernels do. `late` counts those that gave up.
struct Rounds {
  unsigned *counter, *late;
  unsigned target;

  FASTRNN_FN void meet() {
    target += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0) {
      add_release(counter, 1);
      Patience left;
      while (load_acquire(counter) < target && left.again(late)) {
      }
    }
    __syncthreads();
  }
};

extern "C" __global__ void meetings(Index rounds, unsigned* counter, unsigned* late) {
  Rounds all{counter, late, 0};
  for (Index r = 0; r < rounds; ++r) all.meet();
}

// In each round a block writes its `width` numbers, and all read all. A thread's sum is exact.
extern "C" __global__ void exchange(Index rounds, Index width,
                                    float* values,  // (2, blocks * width)
                                    float* sums,    // (blocks * threads,)
                                    unsigned* counter, unsigned* late) {
  Rounds all{counter, late, 0};
  const Index many = gridDim.x * width;
  float sum = 0;
  for (Index r = 0; r < rounds; ++r) {
    float* now = values + r % 2 * many;  // what was read last is not what is written next
    for (Index i = threadIdx.x; i < width; i += blockDim.x)
      now[blockIdx.x * width + i] = static_cast<float>((r + blockIdx.x + i) % 8);
    all.meet();
    for (Index i = threadIdx.x; i < many; i += blockDim.x) sum += load_fresh(now + i);
  }
  sums[Index(blockIdx.x) * blockDim.x + threadIdx.x] = sum;
}

// A number goes from one block to another and back, as words that tell whether they have arrived.
extern "C" __global__ void round_trip(Index rounds,
                                      float* words,  // zeros; 128 bytes for each block
                                      unsigned* late) {
  float *mine = words + 32 * blockIdx.x, *other = words + 32 * (1 - blockIdx.x);
  for (Index r = 1; r <= rounds; ++r) {
    const float number = static_cast<float>(r);
    if (blockIdx.x == 0) store_relaxed(mine, number);
    Patience left;
    while (load_relaxed(other) != number && left.again(late)) {
    }
    if (blockIdx.x == 1) store_relaxed(mine, number);
  }
}
