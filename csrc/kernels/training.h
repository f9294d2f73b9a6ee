// What a training step does number by number, beside its products: a row of softmax, Adam.

// As many lanes as the widest vector has: a sum has the same bits on every vector width.
constexpr int kSumLanes = 16;

// Calls work(vector i of the sixteen lanes, where it lies, how many of its lanes there are) for
// numbers begin .. end-1.
template <class V, class Work>
FASTRNN_FN void for_sum_lanes(Index begin, Index end, const Work& work) {
  constexpr int vectors = kSumLanes / static_cast<int>(V::kLanes);
  for (Index at = begin; at < end; at += kSumLanes) {
    FASTRNN_UNROLL
    for (int i = 0; i < vectors; ++i) {
      const Index lane = at + i * V::kLanes;
      if (lane < end) work(i, lane, end - lane);
    }
  }
}

// e^x for x <= 0; 0 where it is less than e^-86. NaN stays NaN.
template <class V>
FASTRNN_FN V exp_of_negative(V x) {
  const V least = V::broadcast(ExpConstants<typename V::Real>::kLeast);
  const ExpParts<V> parts = exp_parts(max(least, x));
  const V e = scale(V::broadcast(1) + parts.p, parts.n, parts.sum);
  return e - where_positive(least - x, e);
}

// The sum of sixteen lanes, in the same order for all widths.
template <class V>
FASTRNN_FN double sum_of_lanes(const V* sums) {
  typename V::Real lanes[kSumLanes];
  for (int i = 0; i < kSumLanes / V::kLanes; ++i) sums[i].store(lanes + i * V::kLanes);
  for (int n = kSumLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
  return lanes[0];
}

// The largest of n numbers, or any if one is NaN.
template <class V>
FASTRNN_FN typename V::Real largest(const typename V::Real* z, Index n) {
  using Real = typename V::Real;
  V most = V::broadcast(z[0]);
  Index i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) most = max(most, V::load(z + i));
  Real lanes[V::kLanes];
  most.store(lanes);
  for (const Real lane : lanes) lanes[0] = lane > lanes[0] ? lane : lanes[0];
  for (; i < n; ++i) lanes[0] = z[i] > lanes[0] ? z[i] : lanes[0];
  return lanes[0];
}

// Softmax of a row and what cross entropy makes of it; see CrossEntropyRow.
template <class V>
double cross_entropy_row(const CrossEntropyRow<typename V::Real>& row) {
  using Real = typename V::Real;
  constexpr int vectors = kSumLanes / static_cast<int>(V::kLanes);
  constexpr Index chain = 128 * kSumLanes;  // numbers that a sum of sixteen lanes takes in
  const Index C = row.classes;
  const Real most = largest<V>(row.z, C);
  const V top = V::broadcast(most);
  double total = 0, shifted = 0;
  for (Index begin = 0; begin < C; begin += chain) {
    V sums[vectors], of_z[vectors];
    for (int i = 0; i < vectors; ++i) sums[i] = of_z[i] = V::broadcast(0);
    for_sum_lanes<V>(begin, smaller(C, begin + chain), [&](int i, Index at, Index left) {
      V x = V::load(row.z + at, left) - top;
      V e = exp_of_negative(x);
      e.store(row.dz + at, left);
      if (left < V::kLanes) {  // lanes that are not there
        Real kept[kSumLanes];
        x.store(kept, left);
        x = V::load(kept, left);
        e = V::load(row.dz + at, left);
      }
      sums[i] = sums[i] + e;
      of_z[i] = of_z[i] + x;
    });
    total += sum_of_lanes(sums);
    shifted += sum_of_lanes(of_z);
  }
  const Real hit = row.z[row.target] - most;
  const auto factor = static_cast<Real>(row.factor);
  const V scale_by = V::broadcast(static_cast<Real>(row.factor / total));
  const auto spread = static_cast<Real>(row.factor * row.smoothing / static_cast<double>(C));
  for (Index i = 0; i < C; i += V::kLanes)
    fma(V::load(row.dz + i, C - i), scale_by, V::broadcast(-spread)).store(row.dz + i, C - i);
  row.dz[row.target] -= factor * static_cast<Real>(1 - row.smoothing);
  double loss = std::log(total) - hit;
  if (row.smoothing > 0) loss += (hit - shifted / static_cast<double>(C)) * row.smoothing;
  return loss;
}

// In the order of operations that NumPy has in fastrnn/train/optim.py: the same bits.
template <class V>
void adam(const AdamStep<typename V::Real>& step, Index begin, Index end) {
  using Real = typename V::Real;
  const auto all = [](Real x) { return V::broadcast(x); };
  for (Index i = begin; i < end; i += V::kLanes) {
    const Index n = end - i;
    const V param = V::load(step.param + i, n);
    V grad = V::load(step.grad + i, n);
    if (step.weight_decay != 0) grad = param * all(step.weight_decay) + grad;
    const V mean = V::load(step.mean + i, n) * all(step.beta1) + grad * all(step.rest1);
    const V square = V::load(step.square + i, n) * all(step.beta2) + grad * grad * all(step.rest2);
    mean.store(step.mean + i, n);
    square.store(step.square + i, n);
    const V root = sqrt(square) / all(step.correction) + all(step.eps);
    (param - mean / root * all(step.rate)).store(step.param + i, n);
  }
}
