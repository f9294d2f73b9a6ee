// All steps of a pass in one launch. A block owns some hidden units and keeps their recurrent
// weights in shared memory; after each step the blocks meet, and each reads what the others wrote.
// All blocks must run at the same time: the launch is cooperative, and its size was asked for.
//
// Rows are packed (fastrnn/backends/packing.py): row m of step t is at starts[t] + m, and the rows
// of a step are the first ones of the batch. Letters as in step.h; T steps, B batch.

constexpr int kRows = 4;                // rows that a thread adds up at once
constexpr int kTile = 4096;             // numbers of the tile through which rows pass
constexpr Word kPatience = 2000000000;  // nanoseconds until a block gives the others up

// How the threads of a block share a product: units x groups of kRows rows x slices of k.
struct Share {
  int units, groups, slices, unit, group, slice;

  FASTRNN_FN Share(Index units_, Index groups_)
      : units(static_cast<int>(units_)),
        groups(static_cast<int>(groups_)),
        slices(static_cast<int>(blockDim.x) / (units * groups)),
        unit(static_cast<int>(threadIdx.x) % units),
        group(static_cast<int>(threadIdx.x) / units % groups),
        slice(static_cast<int>(threadIdx.x) / (units * groups)) {}
  FASTRNN_FN int rows() const { return groups * kRows; }
};

// Sums over k < K of source(m, k) * weights[k][unit][c] for the rows m < n of a tile, c < C. Each
// thread leaves those of its rows, its unit and its slice in `tile`; `sum` adds the slices up.
template <int C, class Source>
FASTRNN_FN void add_up(const Share& my, const Real* weights, const Source& source, Index K, Index n,
                       Real* tile) {
  Real sums[kRows][C] = {};
  const int rows = my.rows(), depth = kTile / rows;
  for (Index first = 0; first < K; first += depth) {
    const int deep = K - first < depth ? static_cast<int>(K - first) : depth;
    for (int i = threadIdx.x; i < rows * deep; i += blockDim.x) {
      const int m = i / deep, k = i % deep;
      tile[k * rows + m] = m < n ? source(m, first + k) : Real(0);
    }
    __syncthreads();
    for (int k = my.slice; k < deep; k += my.slices) {
      const Real* w = weights + ((first + k) * my.units + my.unit) * C;
      const Real* values = tile + k * rows + my.group * kRows;
      FASTRNN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        FASTRNN_UNROLL
        for (int c = 0; c < C; ++c) sums[r][c] = fused(values[r], w[c], sums[r][c]);
      }
    }
    __syncthreads();
  }
  FASTRNN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FASTRNN_UNROLL
    for (int c = 0; c < C; ++c) tile[(threadIdx.x * kRows + r) * C + c] = sums[r][c];
  }
  __syncthreads();
}

template <int C>
FASTRNN_FN Real sum(const Share& my, const Real* tile, int row, int unit, int c) {
  const int thread = row / kRows * my.units + unit;
  Real total = 0;
  for (int s = 0; s < my.slices; ++s)
    total += tile[((s * my.groups * my.units + thread) * kRows + row % kRows) * C + c];
  return total;
}

// Where the blocks of a launch meet; meetings[0] counts arrivals, meetings[1] tells of a failure.
// A block that waits too long says so, and from then on none waits: the results are NaN, and the
// GPU is free again.
struct Meeting {
  unsigned* meetings;
  unsigned target;

  // Returns whether all came, the same to all threads of a block.
  FASTRNN_FN bool wait() {
    target += gridDim.x;
    int failed = 0;
    __syncthreads();
    if (threadIdx.x == 0) {
      add_release(meetings, 1);
      const Word begin = nanoseconds();
      while (load_acquire(meetings) < target && !load_acquire(meetings + 1)) {
        if (nanoseconds() - begin > kPatience) add_release(meetings + 1, 1);
        wait_a_little();
      }
      failed = load_acquire(meetings + 1) != 0;
    }
    return !__syncthreads_or(failed);
  }
};

extern "C" __global__ void persistent_forward(
    Index T, Index B, Index H, Index units, Index groups, Index reverse, Index begin,
    Index end,                 // steps begin .. end of the pass, in the order they run
    const Index* starts,       // (T+1,)
    const unsigned char* cut,  // (N,) rows that begin anew, or null
    const Real* recurrent,     // (G*H, H)
    const Real* input,         // (., G*H) W x, from packed row input_start on
    Index input_start, const Real* bias, const Real* split_bias, const Real* peephole,
    const Real* h0,  // (B, H)
    Real* h,         // (B, H) after the last step
    Real* c,         // (B, H) in place
    Real* y,         // (N, H)
    Real* all_c,     // (N, H) or null
    Real* saved,     // (N, S*H) or null
    unsigned* meetings) {
  constexpr int G = Cell::kGates;
  const Share my(units, groups);
  Real* weights = shared_memory<Real>();  // [H][units][G]
  Real* tile = weights + H * units * G;
  const Index first_unit = blockIdx.x * units;
  for (Index i = threadIdx.x; i < H * units * G; i += blockDim.x) {
    const Index k = i % H, u = i / H % units, g = i / H / units;
    const Index unit = first_unit + u;
    weights[(k * units + u) * G + g] = unit < H ? recurrent[(g * H + unit) * H + k] : Real(0);
  }
  __syncthreads();
  Meeting meeting{meetings, 0};
  bool well = true;
  for (Index s = begin; s < end; ++s) {
    const Index t = reverse ? T - 1 - s : s, before = reverse ? t + 1 : t - 1;
    const Index start = starts[t], n = starts[t + 1] - start;
    const Index start_before = s ? starts[before] : 0;
    const Index ran = s ? starts[before + 1] - start_before : 0;  // the other rows begin here
    for (Index first = 0; first < n; first += my.rows()) {
      const Index many = n - first < my.rows() ? n - first : my.rows();
      const auto h_prev = [=](Index m, Index k) {
        m += first;
        if (cut && cut[start + m]) return Real(0);
        return m < ran ? load_fresh(y + (start_before + m) * H + k) : h0[m * H + k];
      };
      add_up<G>(my, weights, h_prev, H, many, tile);
      for (int i = threadIdx.x; i < many * units; i += blockDim.x) {
        const int row = i / my.units, u = i % my.units;
        const Index m = first + row, unit = first_unit + u;
        if (unit >= H) continue;
        Real sums[G];
        FASTRNN_UNROLL
        for (int g = 0; g < G; ++g) sums[g] = sum<G>(my, tile, row, u, g);
        if (Cell::kHasC && cut && cut[start + m]) c[m * H + unit] = 0;
        const Forward step{H,
                           input + (start - input_start) * G * H,
                           bias,
                           split_bias,
                           peephole,
                           c,
                           all_c ? all_c + start * H : nullptr,
                           saved ? saved + start * Cell::kSaved * H : nullptr};
        const Real previous = Cell::kNeedsHPrev ? h_prev(row, unit) : Real(0);
        Real after = step.unit(m, unit, sums, previous);
        if (!well) after = not_a_number(Real());
        y[(start + m) * H + unit] = after;
        h[m * H + unit] = after;
      }
      __syncthreads();
    }
    if (s + 1 < end && well) well = meeting.wait();
  }
}

extern "C" __global__ void persistent_backward(Index T, Index B, Index H, Index units, Index groups,
                                               Index reverse, const Index* starts,
                                               const unsigned char* cut,
                                               const Real* recurrent,  // (G*H, H)
                                               const Real* saved, const Real* y,
                                               const Real* h_before, const Real* c_before,
                                               const Real* c, const Real* peephole,
                                               const Real* dy,  // (N, H) or null
                                               Real* dh,        // (B, H) in place
                                               Real* dc,        // (B, H) in place
                                               Real* delta,     // (N, G*H)
                                               Real* hidden,    // (N, G*H), may be delta
                                               unsigned* meetings) {
  constexpr int G = Cell::kGates;
  const Share my(units, groups);
  Real* weights = shared_memory<Real>();  // [G*H][units]
  Real* tile = weights + G * H * units;
  const Index first_unit = blockIdx.x * units;
  for (Index i = threadIdx.x; i < G * H * units; i += blockDim.x) {
    const Index unit = first_unit + i % units;
    weights[i] = unit < H ? recurrent[i / units * H + unit] : Real(0);
  }
  __syncthreads();
  Meeting meeting{meetings, 0};
  bool well = true;
  for (Index s = T - 1; s >= 0; --s) {
    const Index t = reverse ? T - 1 - s : s;
    const Index start = starts[t], n = starts[t + 1] - start;
    const Backward step{H,
                        saved + start * Cell::kSaved * H,
                        y + start * H,
                        h_before + start * H,
                        Cell::kHasC ? c_before + start * H : nullptr,
                        Cell::kHasC ? c + start * H : nullptr,
                        peephole,
                        dc,
                        delta + start * G * H,
                        hidden + start * G * H,
                        nullptr};
    for (Index i = threadIdx.x; i < n * units; i += blockDim.x) {
      const Index m = i / units, unit = first_unit + i % units;
      if (unit >= H) continue;
      Real gradient = dh[m * H + unit];
      if (dy) gradient += dy[(start + m) * H + unit];
      if (!well) gradient = not_a_number(Real());
      dh[m * H + unit] = step.unit(m, unit, gradient);
    }
    if (well) well = meeting.wait();
    for (Index first = 0; first < n; first += my.rows()) {
      const Index many = n - first < my.rows() ? n - first : my.rows();
      const auto source = [=](Index m, Index k) {
        return load_fresh(hidden + (start + first + m) * G * H + k);
      };
      add_up<1>(my, weights, source, G * H, many, tile);
      for (int i = threadIdx.x; i < many * units; i += blockDim.x) {
        const int row = i / my.units, u = i % my.units;
        const Index m = first + row, unit = first_unit + u;
        if (unit >= H) continue;
        const bool begins = cut && cut[start + m];
        const Real total = dh[m * H + unit] + sum<1>(my, tile, row, u, 0);
        dh[m * H + unit] = begins ? Real(0) : well ? total : not_a_number(Real());
        if (Cell::kHasC && begins) dc[m * H + unit] = 0;
      }
      __syncthreads();
    }
  }
}
