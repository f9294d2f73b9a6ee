// Floats in bfloat16 terms: x = x0 + x1 + x2, each the rounding of what those before it left.
// Three hold all 24 bits of a float.
//
// Of the product of two such sums the terms' products of weight 2^-16 and more are taken: six for
// three terms (float32 accuracy), three for two (that of TensorFloat-32 and better), one for one.
// Terms of very small numbers would lose bits, their products would flush to zero, and those of huge
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

// Takes the next term off x.
FASTRNN_FN __m256i next_term(__m512* x) {
  const __m256i term = (__m256i)_mm512_cvtneps_pbh(*x);
  const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(term), 16);
  *x = _mm512_sub_ps(*x, _mm512_castsi512_ps(wide));
  return term;
}

// A's tiles of up to 16 rows: [k / 32][term][16][32], zero past the last row and k.
template <class RowOf>
FASTRNN_FN void split_rows(const RowOf& row, Index rows, Index K, int terms, Half* out,
                           Range (&ranges)[kTileRows]) {
  for (Index m = 0; m < kTileRows; ++m) {
    RangeFinder finder;
    const float* from = m < rows ? row(m) : nullptr;
    for (Index k = 0; k < tile_depth(K) * kTileDepth; k += 16) {
      __m512 x = _mm512_setzero_ps();
      if (from && k < K) x = Vec<float>::load(from + k, K - k).v;
      finder.take(x);
      Half* to = out + k / kTileDepth * terms * kTileSize + m * kTileDepth + k % kTileDepth;
      for (int term = 0; term < terms; ++term)
        _mm256_store_si256(reinterpret_cast<__m256i*>(to + term * kTileSize), next_term(&x));
    }
    ranges[m] = finder.range();
  }
}

// As `split_rows`, of a matrix whose columns are the rows wanted: a[k * ld + m].
FASTRNN_FN void split_columns(const float* a, Index ld, Index rows, Index K, int terms, Half* out,
                              Range (&ranges)[kTileRows]) {
  RangeFinder finder;
  for (Index k0 = 0; k0 < K; k0 += kTileDepth, out += terms * kTileSize) {
    __m512i pairs[3][kTileRows];
    for (Index i = 0; i < kTileRows; ++i) {
      const Index k = k0 + 2 * i;
      __m512 even = _mm512_setzero_ps(), odd = even;
      if (k < K) even = Vec<float>::load(a + k * ld, rows).v;
      if (k + 1 < K) odd = Vec<float>::load(a + (k + 1) * ld, rows).v;
      finder.take(even);
      finder.take(odd);
      for (int term = 0; term < terms; ++term) {
        const __m512i low = _mm512_cvtepu16_epi32(next_term(&even));
        const __m512i high = _mm512_cvtepu16_epi32(next_term(&odd));
        pairs[term][i] = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
      }
    }
    for (int term = 0; term < terms; ++term) {
      transpose_words(pairs[term]);
      for (Index m = 0; m < kTileRows; ++m)
        _mm512_store_si512(out + term * kTileSize + m * kTileDepth, pairs[term][m]);
    }
  }
  finder.lanes(ranges);
}

// B's tiles of a panel of `vectors` vectors: [k / 32][vector][term][pair of k][lane][2].
FASTRNN_FN Range split_panel(const float* panel, int vectors, Index K, int terms, Half* out) {
  RangeFinder finder;
  for (Index k = 0; k < tile_depth(K) * kTileDepth; k += 2) {
    for (int n = 0; n < vectors; ++n) {
      const float* from = panel + (k * vectors + n) * 16;
      __m512 even = k < K ? _mm512_loadu_ps(from) : _mm512_setzero_ps();
      __m512 odd = k + 1 < K ? _mm512_loadu_ps(from + vectors * 16) : _mm512_setzero_ps();
      finder.take(even);
      finder.take(odd);
      Half* to = out + ((k / kTileDepth * vectors + n) * terms) * kTileSize + k % kTileDepth * 16;
      for (int term = 0; term < terms; ++term) {
        const __m512i low = _mm512_cvtepu16_epi32(next_term(&even));
        const __m512i high = _mm512_cvtepu16_epi32(next_term(&odd));
        _mm512_store_si512(to + term * kTileSize,
                           _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
    }
  }
  return finder.range();
}
