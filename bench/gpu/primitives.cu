// What the persistent kernels rest on, alone: how long it takes, and that it does what is said of it.

extern "C" __global__ void nothing(Index) {}

// All blocks meet `rounds` times, as persistent kernels do. `late` counts those that gave up.
struct Rounds {
  unsigned *counter, *late;
  unsigned target;

  FASTRNN_FN void meet() {
    target += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0) {
      add_release(counter, 1);
      const Word begin = nanoseconds();
      while (load_acquire(counter) < target) {
        if (nanoseconds() - begin > 1000000000) {
          add_release(late, 1);
          break;
        }
        wait_a_little();
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
