// Which numbers of a tile a lane brings to the tensor cores and gets from them, as the kernels have
// it: one product of TF32, (16, 8) x (8, 8), and one of bfloat16, (16, 16) x (16, 8), in row-major
// arrays.

extern "C" __global__ void fragments(const float* a8, const float* b8, float* tf32,
                                     const float* a16, const float* b16, float* bf16) {
  const int group = threadIdx.x / 4, member = threadIdx.x % 4;
  unsigned a[4], b[2];
  float sums[4] = {};
  for (int i = 0; i < 4; ++i) a[i] = to_tf32(a8[(group + i % 2 * 8) * 8 + member + i / 2 * 4]);
  for (int i = 0; i < 2; ++i) b[i] = to_tf32(b8[(member + i * 4) * 8 + group]);
  mma_tf32(sums, {a[0], a[1], a[2], a[3]}, {b[0], b[1]});
  for (int i = 0; i < 4; ++i) tf32[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = sums[i];

  for (int i = 0; i < 4; ++i) {
    const float* pair = a16 + (group + i % 2 * 8) * 16 + 2 * member + i / 2 * 8;
    a[i] = to_bf16(pair[0], pair[1]);
    sums[i] = 0;
  }
  for (int i = 0; i < 2; ++i) {
    const float* pair = b16 + (2 * member + i * 8) * 8 + group;
    b[i] = to_bf16(pair[0], pair[8]);
  }
  mma_bf16(sums, {a[0], a[1], a[2], a[3]}, {b[0], b[1]});
  for (int i = 0; i < 4; ++i) bf16[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = sums[i];
}
