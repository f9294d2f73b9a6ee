// The tile unit (AMX) in one-line functions, tile numbers as template arguments: the compilers'
// own intrinsics are macros that take literals only.

// Eight tiles of so many rows of 64 bytes.
FASTRNN_FN void tiles_configure(const std::uint8_t (&rows)[8]) {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {};
  } config;
  for (int i = 0; i < 8; ++i) config.rows[i] = rows[i];
  asm volatile("ldtilecfg %0" : : "m"(config));
}

// Back to the state in which a thread's switch saves no tiles.
FASTRNN_FN void tiles_release() { asm volatile("tilerelease" ::: "memory"); }

template <int kTile>
FASTRNN_FN void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

template <int kTile>
FASTRNN_FN void tile_load(const void* from) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(Index(64)), "i"(kTile)
               : "memory");
}

template <int kTile>
FASTRNN_FN void tile_store(void* to) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(Index(64)), "i"(kTile) : "memory");
}

// C[m][n] += sum over k of A[m][k] * B[k][n]: bfloat16 factors, pairs of k side by side in B, a sum
// in float32 that takes numbers below 2^-126 as zero
template <int kC, int kA, int kB>
FASTRNN_FN void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
}
