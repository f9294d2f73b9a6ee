// Floats in parts of bfloat16: x = x0 + x1 + x2, each the rounding of what those before it left.
// Three hold all 24 bits of a float.
//
// Of the product of two such sums the parts' products of weight 2^-16 and more are taken: six for
// three parts (float32 accuracy), three for two (that of TensorFloat-32 and better), one for one.
// Parts of very small numbers would lose bits, their products would flush to zero, and those of huge
// numbers would overflow: so the range of the magnitudes is found on the way.

// Finds ranges, of each lane and of all of them.
class RangeFinder {
 public:
  FASTRNN_FN RangeFinder()
      : low_(_mm512_castps_si512(_mm512_set1_ps(Range().low))), high_(_mm512_setzero_si512()) {}

  FASTRNN_FN void take(__m512 x) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    low_ = _mm512_mask_min_epi32(low_, _mm512_test_epi32_mask(bits, bits), low_, bits);
    high_ = _mm512_max_epi32(high_, bits);
  }

  FASTRNN_FN Range range() const {
    return {of_bits(_mm512_reduce_min_epi32(low_)), of_bits(_mm512_reduce_max_epi32(high_))};
  }

  FASTRNN_FN void lanes(Range (&ranges)[16]) const {
    alignas(64) int low[16], high[16];
    _mm512_store_si512(low, low_);
    _mm512_store_si512(high, high_);
    for (int i = 0; i < 16; ++i) ranges[i] = {of_bits(low[i]), of_bits(high[i])};
  }

 private:
  FASTRNN_FN static float of_bits(int bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
  __m512i low_, high_;
};

// Takes the next part off x.
FASTRNN_FN __m256i next_part(__m512* x) {
  const __m256i part = (__m256i)_mm512_cvtneps_pbh(*x);
  const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16);
  *x = _mm512_sub_ps(*x, _mm512_castsi512_ps(wide));
  return part;
}

// A's tiles of up to 16 rows: [k / 32][part][16][32], zero past the last row and k.
template <class RowOf>
FASTRNN_FN void split_rows(const RowOf& row, Index rows, Index K, int parts, Half* out,
                           Range (&ranges)[kTileRows]) {
  for (Index m = 0; m < kTileRows; ++m) {
    RangeFinder finder;
    const float* from = m < rows ? row(m) : nullptr;
    for (Index k = 0; k < tile_depth(K) * kTileDepth; k += 16) {
      __m512 x = _mm512_setzero_ps();
      if (from && k < K) x = Vec<float>::load(from + k, K - k).v;
      finder.take(x);
      Half* to = out + k / kTileDepth * parts * kTileSize + m * kTileDepth + k % kTileDepth;
      for (int part = 0; part < parts; ++part)
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + part * kTileSize), next_part(&x));
    }
    ranges[m] = finder.range();
  }
}

// a[i] lane j to a[j] lane i
FASTRNN_FN void transpose(__m512i (&a)[16]) {
  __m512i b[16];
  FASTRNN_UNROLL
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
  // now four lanes in a row are those of two neighbouring a; make them those of four
  FASTRNN_UNROLL
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 g + r] holds, for the four a of group g, columns r, r + 4, r + 8, r + 12
  FASTRNN_UNROLL
  for (int r = 0; r < 4; ++r) {
    b[r] = _mm512_shuffle_i32x4(a[r], a[r + 4], 0x88);
    b[r + 4] = _mm512_shuffle_i32x4(a[r], a[r + 4], 0xdd);
    b[r + 8] = _mm512_shuffle_i32x4(a[r + 8], a[r + 12], 0x88);
    b[r + 12] = _mm512_shuffle_i32x4(a[r + 8], a[r + 12], 0xdd);
  }
  FASTRNN_UNROLL
  for (int r = 0; r < 4; ++r) {
    a[r] = _mm512_shuffle_i32x4(b[r], b[r + 8], 0x88);
    a[r + 8] = _mm512_shuffle_i32x4(b[r], b[r + 8], 0xdd);
    a[r + 4] = _mm512_shuffle_i32x4(b[r + 4], b[r + 12], 0x88);
    a[r + 12] = _mm512_shuffle_i32x4(b[r + 4], b[r + 12], 0xdd);
  }
}

// As `split_rows`, of a matrix whose columns are the rows wanted: a[k * ld + m].
FASTRNN_FN void split_columns(const float* a, Index ld, Index rows, Index K, int parts, Half* out,
                              Range (&ranges)[kTileRows]) {
  RangeFinder finder;
  for (Index k0 = 0; k0 < K; k0 += kTileDepth, out += parts * kTileSize) {
    __m512i pairs[3][kTileRows];
    for (Index i = 0; i < kTileRows; ++i) {
      const Index k = k0 + 2 * i;
      __m512 even = _mm512_setzero_ps(), odd = even;
      if (k < K) even = Vec<float>::load(a + k * ld, rows).v;
      if (k + 1 < K) odd = Vec<float>::load(a + (k + 1) * ld, rows).v;
      finder.take(even);
      finder.take(odd);
      for (int part = 0; part < parts; ++part) {
        const __m512i low = _mm512_cvtepu16_epi32(next_part(&even));
        const __m512i high = _mm512_cvtepu16_epi32(next_part(&odd));
        pairs[part][i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
      }
    }
    for (int part = 0; part < parts; ++part) {
      transpose(pairs[part]);
      for (Index m = 0; m < kTileRows; ++m)
        _mm512_store_si512(out + part * kTileSize + m * kTileDepth, pairs[part][m]);
    }
  }
  finder.lanes(ranges);
}

// B's tiles of a panel of `vectors` vectors: [k / 32][vector][part][pair of k][lane][2].
FASTRNN_FN Range split_panel(const float* panel, int vectors, Index K, int parts, Half* out) {
  RangeFinder finder;
  for (Index k = 0; k < tile_depth(K) * kTileDepth; k += 2) {
    for (int n = 0; n < vectors; ++n) {
      const float* from = panel + (k * vectors + n) * 16;
      __m512 even = k < K ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
      __m512 odd = k + 1 < K ? _mm512_loadu_ps(from + vectors * 16) : _mm512_setzero_ps();
      finder.take(even);
      finder.take(odd);
      Half* to = out + ((k / kTileDepth * vectors + n) * parts) * kTileSize + k % kTileDepth * 16;
      for (int part = 0; part < parts; ++part) {
        const __m512i low = _mm512_cvtepu16_epi32(next_part(&even));
        const __m512i high = _mm512_cvtepu16_epi32(next_part(&odd));
        _mm512_store_si512(to + part * kTileSize,
                           _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
    }
  }
  return finder.range();
}
