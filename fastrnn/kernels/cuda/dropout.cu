// Dropout masks, bit by bit those of fastrnn/dropout.py, which says what a mask is a function of.

struct Counter {
  Word word[4];
};

// Philox-4x64 with 10 rounds (Salmon et al. 2011)
FASTRNN_FN Counter philox(Counter c, Word key0, Word key1) {
  for (int round = 0; round < 10; ++round) {
    const Word low0 = 0xD2E7470EE14C6C93ull * c.word[0], low1 = 0xCA5A826395121157ull * c.word[2];
    const Word high0 = product_high(0xD2E7470EE14C6C93ull, c.word[0]);
    const Word high1 = product_high(0xCA5A826395121157ull, c.word[2]);
    c = {{high1 ^ c.word[1] ^ key0, low1, high0 ^ c.word[3] ^ key1, low0}};
    key0 += 0x9E3779B97F4A7C15ull;
    key1 += 0xBB67AE8584CAA73Bull;
  }
  return c;
}

// A thread for each block of eight 32-bit draws: of block `first_block` + its index, those that
// belong to elements start .. start + size.
extern "C" __global__ void dropout_mask(Index start, Index size, Index first_block, Word seed,
                                        Word layer,
                                        Word threshold,  // draws below it are dropped
                                        double kept,     // 1 / (1 - p)
                                        Real* mask) {    // (size,)
  const Index block = first_block + Index(blockIdx.x) * blockDim.x + threadIdx.x;
  if (block * 8 >= start + size) return;
  const Counter drawn = philox({{static_cast<Word>(block) + 1, 0, 0, 0}}, seed, layer);
  for (int d = 0; d < 8; ++d) {
    const Index at = block * 8 + d - start;
    const Word draw = drawn.word[d / 2] >> 32 * (d % 2) & 0xFFFFFFFFull;
    if (at >= 0 && at < size) mask[at] = draw >= threshold ? static_cast<Real>(kept) : Real(0);
  }
}
