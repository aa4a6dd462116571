// The fast path: which rows are worked on together, in which order, on which thread. It knows no CPU; the arithmetic
// is in the Primitives of a target.
#pragma once

#include "kernels.h"

namespace segue {

// The arithmetic of one target. Rows are given as pointers, because the rows worked on together rarely stand together.
struct Primitives {
    // y[r][o] += sum_i x[r][i] * w[i * stride + o], for o < outputs, in ascending i
    void (*multiply_add)(std::int64_t rows, const float* const* x, std::int64_t inputs, const float* w,
                         std::int64_t stride, std::int64_t outputs, float* const* y);
    // y[j] = f(a[j]); y may be a
    void (*activate)(Activation f, std::int64_t size, const float* a, float* y);
    // a [4H] holds the gates before their activation; c [H] is advanced; m[j] = o[j] * tanh(c[j])
    void (*lstm_cell)(std::int64_t hidden, const float* a, float* c, float* m);
    // a [3H] holds r, z, and n before its activation; n += r * hn, then y = (1 - z) * tanh(n) + z * h
    void (*gru_reset_after)(std::int64_t hidden, const float* a, const float* hn, const float* h, float* y);
    // rh = r * h, and n += b_hn
    void (*gru_reset_before)(std::int64_t hidden, float* a, const float* b_hn, const float* h, float* rh);
    // y = (1 - z) * tanh(n) + z * h
    void (*gru_blend)(std::int64_t hidden, const float* a, const float* h, float* y);
};

#ifdef SEGUE_X86_TARGETS
extern const Primitives avx2_primitives, avx512_primitives;
#endif

namespace blocked {

void affine(const Primitives& p, const Affine& call);
void scan_elman(const Primitives& p, const Elman& call);
void scan_lstm(const Primitives& p, const Lstm& call);
void scan_gru(const Primitives& p, const Gru& call);

}  // namespace blocked
}  // namespace segue
