#include "reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "activations.h"

namespace segue::reference {
namespace {

using std::int64_t;

// y[o] += sum_i x[i] * w_t[i, o], for o < outputs; a row of w_t is `stride` wide.
void multiply_add(const float* x, int64_t inputs, const float* w_t, int64_t stride, int64_t outputs, float* y) {
    for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < inputs; ++i) y[o] = std::fma(x[i], w_t[i * stride + o], y[o]);
}

float activate(Activation f, float a) {
    switch (f) {
        case Activation::tanh: return tanh<OneLane>(a);
        case Activation::relu: return a < 0.0f ? 0.0f : a;
        case Activation::sigmoid: return sigmoid<OneLane>(a);
        default: return a;
    }
}

// Calls step(sequence, x, h, y) for every step in time order; h is the state before the step, y the one after it.
template <class Step>
void each_step(const Sequences& over, int64_t width, Step step) {
    int64_t n = 0;
    for (int64_t s = 0; s < over.count; ++s) {
        const float* h = over.h0 + s * width;
        for (int64_t t = 0; t < over.lengths[s]; ++t, ++n) {
            float* y = over.y + n * width;
            step(s, over.x + n * over.inputs, h, y);
            h = y;
        }
        std::copy(h, h + width, over.h_last + s * width);
    }
}

}  // namespace

void affine(const Affine& call) {
    for (int64_t n = 0; n < call.rows; ++n) {
        float* y = call.y + n * call.outputs;
        for (int64_t o = 0; o < call.outputs; ++o) y[o] = call.b ? call.b[o] : 0.0f;
        multiply_add(call.x + n * call.inputs, call.inputs, call.w_t, call.outputs, call.outputs, y);
    }
}

void scan_elman(const Elman& call) {
    const int64_t I = call.over.inputs, H = call.over.hidden;
    each_step(call.over, H, [&](int64_t, const float* x, const float* h, float* y) {
        std::copy(call.b, call.b + H, y);
        multiply_add(x, I, call.w_xh_t, H, H, y);
        multiply_add(h, H, call.w_hh_t, H, H, y);
        for (int64_t j = 0; j < H; ++j) y[j] = activate(call.activation, y[j]);
    });
}

void scan_lstm(const Lstm& call) {
    const int64_t I = call.over.inputs, H = call.over.hidden, G = 4 * H;
    const int64_t R = call.w_hr_t ? call.projection : H;
    std::copy(call.c0, call.c0 + call.over.count * H, call.c_last);
    std::vector<float> a(G), m(H);
    each_step(call.over, R, [&](int64_t s, const float* x, const float* h, float* y) {
        std::copy(call.b, call.b + G, a.begin());
        multiply_add(x, I, call.w_xh_t, G, G, a.data());
        multiply_add(h, R, call.w_hh_t, G, G, a.data());
        float* c = call.c_last + s * H;
        for (int64_t j = 0; j < H; ++j) {
            const float i = sigmoid<OneLane>(a[j]), f = sigmoid<OneLane>(a[H + j]);
            const float g = tanh<OneLane>(a[2 * H + j]), o = sigmoid<OneLane>(a[3 * H + j]);
            c[j] = std::fma(f, c[j], i * g);
            m[j] = o * tanh<OneLane>(c[j]);
        }
        if (call.w_hr_t) {
            std::fill(y, y + R, 0.0f);
            multiply_add(m.data(), H, call.w_hr_t, R, R, y);
        } else {
            std::copy(m.begin(), m.end(), y);
        }
    });
}

void scan_gru(const Gru& call) {
    const int64_t I = call.over.inputs, H = call.over.hidden, G = 3 * H;
    std::vector<float> a(G), hn(H), rh(H);
    each_step(call.over, H, [&](int64_t, const float* x, const float* h, float* y) {
        std::copy(call.b_x, call.b_x + G, a.begin());
        multiply_add(x, I, call.w_xh_t, G, G, a.data());
        multiply_add(h, H, call.w_hh_t, G, 2 * H, a.data());
        for (int64_t j = 0; j < 2 * H; ++j) a[j] = sigmoid<OneLane>(a[j]);
        const float *r = a.data(), *z = r + H;
        float* n = a.data() + 2 * H;
        if (call.reset_after) {
            std::copy(call.b_hn, call.b_hn + H, hn.begin());
            multiply_add(h, H, call.w_hh_t + 2 * H, G, H, hn.data());
            for (int64_t j = 0; j < H; ++j) n[j] = std::fma(r[j], hn[j], n[j]);
        } else {
            for (int64_t j = 0; j < H; ++j) rh[j] = r[j] * h[j], n[j] += call.b_hn[j];
            multiply_add(rh.data(), H, call.w_hh_t + 2 * H, G, H, n);
        }
        for (int64_t j = 0; j < H; ++j) {
            const float candidate = tanh<OneLane>(n[j]);
            y[j] = std::fma(z[j], h[j] - candidate, candidate);
        }
    });
}

}  // namespace segue::reference
