// The value type of a GPU thread, one number: the primitives that activations.h and the cells ask
// for. The same as those of csrc/isa/scalar.h, so the same bits.

using Real = FASTRNN_REAL;  // float or double, an option of the program

template <class Real_>
struct Value {
  using Real = Real_;

  Real v;

  FASTRNN_FN static Value broadcast(Real x) { return {x}; }

  FASTRNN_FN friend Value operator+(Value a, Value b) { return {a.v + b.v}; }
  FASTRNN_FN friend Value operator-(Value a, Value b) { return {a.v - b.v}; }
  FASTRNN_FN friend Value operator-(Value a) { return {-a.v}; }
  FASTRNN_FN friend Value operator*(Value a, Value b) { return {a.v * b.v}; }
  FASTRNN_FN friend Value operator/(Value a, Value b) { return {a.v / b.v}; }
  FASTRNN_FN friend Value fma(Value a, Value b, Value c) { return {fused(a.v, b.v, c.v)}; }
  FASTRNN_FN friend Value min(Value a, Value b) { return {a.v < b.v ? a.v : b.v}; }
  FASTRNN_FN friend Value max(Value a, Value b) { return {a.v > b.v ? a.v : b.v}; }
  FASTRNN_FN friend Value abs(Value a) { return {magnitude(a.v)}; }
  FASTRNN_FN friend Value copy_sign(Value a, Value sign) { return {with_sign(a.v, sign.v)}; }
  FASTRNN_FN friend Value where_positive(Value test, Value a) {
    return {test.v > 0 ? a.v : Real(0)};
  }
  FASTRNN_FN static Value power_of_two(Value, Value sum) { return {::power_of_two(sum.v, kBias)}; }
  FASTRNN_FN friend Value scale(Value a, Value, Value sum) {
    return (a + a) * Value{::power_of_two(sum.v, kBias - 1)};
  }

 private:
  static constexpr unsigned kBias = sizeof(Real) == 4 ? 127 : 1023;
};
