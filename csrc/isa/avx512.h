// AVX-512 F and DQ: 32 registers of 512 bits, a mask register for every tail.

template <class Real>
struct Vec;

// a[i] lane j to a[j] lane i
FASTRNN_FN void transpose_words(__m512i (&a)[16]) {
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

template <>
struct Vec<float> {
  using Real = float;
  static constexpr Index kLanes = 16;
  // 6 x 4 tile: 24 accumulators + 4 weights + 1 broadcast of 32 registers; 8 x 3: 24 + 3 + 1
  static constexpr int tile_rows(int n) { return n >= 4 ? 6 : 8; }
  static constexpr bool kTransposes = true;
  static constexpr bool kHalfPanels = false;

  __m512 v;

  FASTRNN_FN static __mmask16 mask(Index n) { return static_cast<__mmask16>((1u << n) - 1); }
  FASTRNN_FN static Vec broadcast(float x) { return {_mm512_set1_ps(x)}; }
  FASTRNN_FN static Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
  FASTRNN_FN static Vec load(const Half* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
  }
  FASTRNN_FN static Vec load(const std::int8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))};
  }
  FASTRNN_FN static Vec load(const float* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm512_maskz_loadu_ps(mask(n), p)};
  }
  FASTRNN_FN void store(float* p) const { _mm512_storeu_ps(p, v); }
  FASTRNN_FN void stream(float* p) const { _mm512_stream_ps(p, v); }
  FASTRNN_FN void store(float* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm512_mask_storeu_ps(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {-a.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm512_or_ps(a.v, _mm512_and_ps(_mm512_set1_ps(-0.0f), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    const __mmask16 positive = _mm512_cmp_ps_mask(test.v, _mm512_setzero_ps(), _CMP_GT_OQ);
    return {_mm512_maskz_mov_ps(positive, a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec n, Vec sum) { return scale(broadcast(1), n, sum); }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec) { return {_mm512_scalef_ps(a.v, n.v)}; }

  // a[i] lane j to a[j] lane i
  FASTRNN_FN static void transpose(Vec (&a)[kLanes]) {
    __m512i bits[kLanes];
    FASTRNN_UNROLL
    for (int i = 0; i < kLanes; ++i) bits[i] = _mm512_castps_si512(a[i].v);
    transpose_words(bits);
    FASTRNN_UNROLL
    for (int i = 0; i < kLanes; ++i) a[i].v = _mm512_castsi512_ps(bits[i]);
  }
};

#ifdef FASTRNN_DOTS
// Dot products of bfloat16 (AVX512-BF16), an instruction each: the compilers' intrinsics want a target
// of their own for all that they are inlined into.

// What two neighbouring k hold, k even.
struct Pair {
  Half even, odd;
};

struct Pairs {
  using Real = Pair;
  static constexpr Index kLanes = 16;

  __m512i v;

  FASTRNN_FN static Pairs broadcast(Pair x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return {_mm512_set1_epi32(bits)};
  }
  FASTRNN_FN static Pairs load(const Pair* p) { return {_mm512_loadu_si512(p)}; }
  FASTRNN_FN void store(Pair* p) const { _mm512_storeu_si512(p, v); }

  // Floats, rounded to the nearest, that follow each other: low, then high.
  FASTRNN_FN static Pairs of(Vec<float> low, Vec<float> high) {
    Pairs pairs;
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(pairs.v) : "v"(low.v), "v"(high.v));
    return pairs;
  }
  // Lane by lane.
  FASTRNN_FN static Pairs zip(Vec<float> even, Vec<float> odd) {
    const __m512i halves = of(even, odd).v;
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    return {_mm512_or_si512(low, _mm512_slli_epi32(high, 16))};
  }

  // c + a.odd b.odd + a.even b.even; numbers below 2^-126 are taken as zero
  FASTRNN_FN friend Vec<float> fma(Pairs a, Pairs b, Vec<float> c) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
    return c;
  }
};
#endif

template <>
struct Vec<double> {
  using Real = double;
  static constexpr Index kLanes = 8;
  static constexpr int tile_rows(int n) { return Vec<float>::tile_rows(n); }
  static constexpr bool kTransposes = true;
  static constexpr bool kHalfPanels = false;

  __m512d v;

  FASTRNN_FN static __mmask8 mask(Index n) { return static_cast<__mmask8>((1u << n) - 1); }
  FASTRNN_FN static Vec broadcast(double x) { return {_mm512_set1_pd(x)}; }
  FASTRNN_FN static Vec load(const double* p) { return {_mm512_loadu_pd(p)}; }
  FASTRNN_FN static Vec load(const double* p, Index n) {
    return n >= kLanes ? load(p) : Vec{_mm512_maskz_loadu_pd(mask(n), p)};
  }
  FASTRNN_FN void store(double* p) const { _mm512_storeu_pd(p, v); }
  FASTRNN_FN void stream(double* p) const { _mm512_stream_pd(p, v); }
  FASTRNN_FN void store(double* p, Index n) const {
    if (n >= kLanes)
      store(p);
    else
      _mm512_mask_storeu_pd(p, mask(n), v);
  }

  FASTRNN_FN friend Vec operator+(Vec a, Vec b) { return {_mm512_add_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a, Vec b) { return {_mm512_sub_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator-(Vec a) { return {-a.v}; }
  FASTRNN_FN friend Vec operator*(Vec a, Vec b) { return {_mm512_mul_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec operator/(Vec a, Vec b) { return {_mm512_div_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Vec sqrt(Vec a) { return {_mm512_sqrt_pd(a.v)}; }
  FASTRNN_FN friend Vec min(Vec a, Vec b) { return {_mm512_min_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec max(Vec a, Vec b) { return {_mm512_max_pd(a.v, b.v)}; }
  FASTRNN_FN friend Vec abs(Vec a) { return {_mm512_andnot_pd(_mm512_set1_pd(-0.0), a.v)}; }
  FASTRNN_FN friend Vec copy_sign(Vec a, Vec sign) {
    return {_mm512_or_pd(a.v, _mm512_and_pd(_mm512_set1_pd(-0.0), sign.v))};
  }
  FASTRNN_FN friend Vec where_positive(Vec test, Vec a) {
    const __mmask8 positive = _mm512_cmp_pd_mask(test.v, _mm512_setzero_pd(), _CMP_GT_OQ);
    return {_mm512_maskz_mov_pd(positive, a.v)};
  }
  FASTRNN_FN static Vec power_of_two(Vec n, Vec sum) { return scale(broadcast(1), n, sum); }
  FASTRNN_FN friend Vec scale(Vec a, Vec n, Vec) { return {_mm512_scalef_pd(a.v, n.v)}; }

  // a[i] lane j to a[j] lane i
  FASTRNN_FN static void transpose(Vec (&a)[kLanes]) {
    __m512d b[kLanes];
    FASTRNN_UNROLL
    for (int i = 0; i < kLanes; i += 2) {
      b[i] = _mm512_unpacklo_pd(a[i].v, a[i + 1].v);
      b[i + 1] = _mm512_unpackhi_pd(a[i].v, a[i + 1].v);
    }
    // two lanes in a row are those of two neighbouring a; b[i] and b[i + 2], i % 4 < 2, hold columns
    // i % 2, i % 2 + 2, ...
    FASTRNN_UNROLL
    for (int i = 0; i < 2; ++i) {
      const __m512d low = _mm512_shuffle_f64x2(b[i], b[i + 2], 0x88);
      const __m512d low_odd = _mm512_shuffle_f64x2(b[i], b[i + 2], 0xdd);
      const __m512d high = _mm512_shuffle_f64x2(b[i + 4], b[i + 6], 0x88);
      const __m512d high_odd = _mm512_shuffle_f64x2(b[i + 4], b[i + 6], 0xdd);
      a[i].v = _mm512_shuffle_f64x2(low, high, 0x88);
      a[i + 4].v = _mm512_shuffle_f64x2(low, high, 0xdd);
      a[i + 2].v = _mm512_shuffle_f64x2(low_odd, high_odd, 0x88);
      a[i + 6].v = _mm512_shuffle_f64x2(low_odd, high_odd, 0xdd);
    }
  }
};
