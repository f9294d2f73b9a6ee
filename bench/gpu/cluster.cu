// A cluster of blocks, as persistent kernels use it: in each round a block puts a number into the
// shared memory of all, and each adds up what it finds in its own. Sums are exact.

extern "C" __global__ void FASTRNN_CLUSTERED clusters(Index rounds, float* sums) {
  float* numbers = shared_memory<float>();  // (2, blocks)
  cluster_arrive();
  cluster_wait();  // all have begun
  float sum = 0;
  for (Index r = 0; r < rounds; ++r) {
    float* now = numbers + r % 2 * gridDim.x;  // what was read last is not what is written next
    if (threadIdx.x < gridDim.x)
      store_to(threadIdx.x, now + blockIdx.x, static_cast<float>((r + blockIdx.x) % 8));
    cluster_arrive();
    cluster_wait();
    for (unsigned b = 0; b < gridDim.x; ++b) sum += now[b];
  }
  if (threadIdx.x == 0) sums[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
