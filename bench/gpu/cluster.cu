// Clusters of blocks, compute capability 9.0 and later: no kernel of ours has them yet. Each block
// leaves a number in its shared memory and reads its neighbour's, `rounds` times.

extern "C" __global__ void __cluster_dims__(8, 1, 1) neighbours(Index rounds, float* out) {
  float* mine = shared_memory<float>();
  unsigned rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(mine));
  unsigned there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(there)
               : "r"(here), "r"((rank + 1) % 8));
  float sum = 0;
  for (Index r = 0; r < rounds; ++r) {
    if (threadIdx.x == 0) mine[r % 2] = static_cast<float>(rank + r % 4);
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
    float value;
    asm volatile("ld.shared::cluster.f32 %0, [%1];"
                 : "=f"(value)
                 : "r"(there + static_cast<unsigned>(r % 2) * 4)
                 : "memory");
    sum += value;
  }
  // nobody ends while another may read its memory
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}
