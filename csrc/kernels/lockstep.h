// Two vectors of units in lockstep: a cell is one long chain of operations, each of which waits for
// the one before; a second one fills the gaps.

template <class V>
struct Two {
  using Real = typename V::Real;

  V a, b;

  FASTRNN_FN static Two broadcast(Real x) { return {V::broadcast(x), V::broadcast(x)}; }

  FASTRNN_FN friend Two operator+(Two x, Two y) { return {x.a + y.a, x.b + y.b}; }
  FASTRNN_FN friend Two operator-(Two x, Two y) { return {x.a - y.a, x.b - y.b}; }
  FASTRNN_FN friend Two operator-(Two x) { return {-x.a, -x.b}; }
  FASTRNN_FN friend Two operator*(Two x, Two y) { return {x.a * y.a, x.b * y.b}; }
  FASTRNN_FN friend Two operator/(Two x, Two y) { return {x.a / y.a, x.b / y.b}; }
  FASTRNN_FN friend Two fma(Two x, Two y, Two z) {
    return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
  }
  FASTRNN_FN friend Two min(Two x, Two y) { return {min(x.a, y.a), min(x.b, y.b)}; }
  FASTRNN_FN friend Two max(Two x, Two y) { return {max(x.a, y.a), max(x.b, y.b)}; }
  FASTRNN_FN friend Two abs(Two x) { return {abs(x.a), abs(x.b)}; }
  FASTRNN_FN friend Two copy_sign(Two x, Two sign) {
    return {copy_sign(x.a, sign.a), copy_sign(x.b, sign.b)};
  }
  FASTRNN_FN friend Two where_positive(Two test, Two x) {
    return {where_positive(test.a, x.a), where_positive(test.b, x.b)};
  }
  FASTRNN_FN static Two power_of_two(Two n, Two sum) {
    return {V::power_of_two(n.a, sum.a), V::power_of_two(n.b, sum.b)};
  }
  FASTRNN_FN friend Two scale(Two x, Two n, Two sum) {
    return {scale(x.a, n.a, sum.a), scale(x.b, n.b, sum.b)};
  }
};

// Where `count` vectors of units are: row, first unit, how many of its lanes are units.
template <class V, int count>
struct UnitVectors;

template <class V>
struct UnitVectors<V, 1> {
  using Real = typename V::Real;
  using Value = V;
  Index m[1], at[1], left[1];

  FASTRNN_FN V load(const Real* const* rows, Index offset = 0) const {
    return V::load(rows[m[0]] + offset + at[0], left[0]);
  }
  FASTRNN_FN void store(V x, Real* const* rows, Index offset = 0) const {
    x.store(rows[m[0]] + offset + at[0], left[0]);
  }
  // of rows whose units are padded to whole vectors
  FASTRNN_FN V load_padded(const Real* first, Index stride, Index offset) const {
    return V::load(first + m[0] * stride + offset + at[0]);
  }
  FASTRNN_FN void store_padded(V x, Real* first, Index stride, Index offset) const {
    x.store(first + m[0] * stride + offset + at[0]);
  }
  // of what all rows share
  FASTRNN_FN V load_vector(const Real* first) const { return V::load(first + at[0], left[0]); }
};

template <class V>
struct UnitVectors<V, 2> {
  using Real = typename V::Real;
  using Value = Two<V>;
  Index m[2], at[2], left[2];

  FASTRNN_FN Two<V> load(const Real* const* rows, Index offset = 0) const {
    return {V::load(rows[m[0]] + offset + at[0], left[0]),
            V::load(rows[m[1]] + offset + at[1], left[1])};
  }
  FASTRNN_FN void store(Two<V> x, Real* const* rows, Index offset = 0) const {
    x.a.store(rows[m[0]] + offset + at[0], left[0]);
    x.b.store(rows[m[1]] + offset + at[1], left[1]);
  }
  FASTRNN_FN Two<V> load_padded(const Real* first, Index stride, Index offset) const {
    return {V::load(first + m[0] * stride + offset + at[0]),
            V::load(first + m[1] * stride + offset + at[1])};
  }
  FASTRNN_FN void store_padded(Two<V> x, Real* first, Index stride, Index offset) const {
    x.a.store(first + m[0] * stride + offset + at[0]);
    x.b.store(first + m[1] * stride + offset + at[1]);
  }
  FASTRNN_FN Two<V> load_vector(const Real* first) const {
    return {V::load(first + at[0], left[0]), V::load(first + at[1], left[1])};
  }
};
