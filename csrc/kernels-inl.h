// The one SIMD source, width-agnostic. A target file defines the struct Lanes (see avx512.cpp), includes this file and
// ends with SEGUE_PRIMITIVES. Only raw pointers here and nothing of std:: that could leave a shared copy of a function
// behind: this is compiled for a CPU that the machine at hand may not be.
//
// The last vector of a row is loaded and stored through a mask, so tails run the same instructions as everything else.
#pragma once

#include "activations.h"
#include "blocked.h"

namespace {

using segue::Activation;
using std::int64_t;
using F = Lanes::F;

constexpr int64_t kLanes = Lanes::count;

// Without it the compiler unrolls too late to see that the sums are registers, and stores them at every input.
#define SEGUE_UNROLL _Pragma("GCC unroll 8")

// What a tile multiplies: inputs [from, to) with a panel of weights, whose first row is that of input `from`.
struct Panel {
    int64_t from, to, stride;
    const float* w;
    int64_t at;        // the first output
    Lanes::Mask mask;  // the lanes of the last vector
};

// R rows times V vectors of outputs, all sums in registers.
template <int R, int V>
void tile(const float* const* x, const Panel& panel, float* const* y) {
    const int64_t at = panel.at, end = (V - 1) * kLanes;
    const Lanes::Mask mask = panel.mask;
    F sum[R][V];
    const float* row[R];
    SEGUE_UNROLL for (int r = 0; r < R; ++r) {
        row[r] = x[r];
        SEGUE_UNROLL for (int v = 0; v < V - 1; ++v) sum[r][v] = Lanes::load(y[r] + at + v * kLanes);
        sum[r][V - 1] = Lanes::load(y[r] + at + end, mask);
    }
    const float* w = panel.w;
    for (int64_t i = panel.from; i < panel.to; ++i, w += panel.stride) {
        F weights[V];
        SEGUE_UNROLL for (int v = 0; v < V - 1; ++v) weights[v] = Lanes::load(w + v * kLanes);
        weights[V - 1] = Lanes::load(w + end, mask);
        SEGUE_UNROLL for (int r = 0; r < R; ++r) {
            const F value = Lanes::splat(row[r][i]);
            SEGUE_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = Lanes::fma(value, weights[v], sum[r][v]);
        }
    }
    SEGUE_UNROLL for (int r = 0; r < R; ++r) {
        SEGUE_UNROLL for (int v = 0; v < V - 1; ++v) Lanes::store(y[r] + at + v * kLanes, sum[r][v]);
        Lanes::store(y[r] + at + end, sum[r][V - 1], mask);
    }
}

using Tile = void (*)(const float* const*, const Panel&, float* const*);

// How many vectors a tile of R rows is wide: the sums fill the registers that the weights and one input leave free.
constexpr int widest(int rows) {
    return rows == 1 ? Lanes::wide_1 : rows == 2 ? Lanes::wide_2 : Lanes::wide_many;
}

constexpr int smaller(int a, int b) {
    return a < b ? a : b;
}

template <int R>
Tile tile_of_width(int64_t vectors) {
    constexpr int W = widest(R);
    switch (vectors) {
        case 1: return tile<R, 1>;
        case 2: return tile<R, smaller(W, 2)>;
        case 3: return tile<R, smaller(W, 3)>;
        case 4: return tile<R, smaller(W, 4)>;
        case 5: return tile<R, smaller(W, 5)>;
        case 6: return tile<R, smaller(W, 6)>;
        case 7: return tile<R, smaller(W, 7)>;
        default: return tile<R, W>;
    }
}

Tile tile_of(int64_t rows, int64_t vectors) {
    switch (rows) {
        case 1: return tile_of_width<1>(vectors);
        case 2: return tile_of_width<2>(vectors);
        case 3: return tile_of_width<3>(vectors);
        case 4: return tile_of_width<4>(vectors);
        case 5: return tile_of_width<5>(vectors);
        default: return tile_of_width<6>(vectors);
    }
}

// All rows through one panel, in even blocks of at most 6 rows.
void multiply_panel(int64_t rows, const float* const* x, const Panel& panel, int64_t vectors, float* const* y) {
    const int64_t blocks = (rows + 5) / 6, small = rows / blocks, larger = rows % blocks;
    const Tile plain = tile_of(small, vectors), one_more = tile_of(small + 1, vectors);
    for (int64_t block = 0, r = 0; block < blocks; ++block) {
        const bool extra = block < larger;
        (extra ? one_more : plain)(x + r, panel, y + r);
        r += small + extra;
    }
}

// Inputs per panel: with the widest vectors of many rows, a packed panel fills half of the nearest cache.
constexpr int64_t kDepth = 96;

// Copies the weights of a panel to `packed`, vector after vector.
void pack(Panel& panel, int64_t vectors, float* packed) {
    float* to = packed;
    for (int64_t i = 0; i < panel.to - panel.from; ++i)
        for (int64_t v = 0; v < vectors; ++v, to += kLanes) {
            const Lanes::Mask mask = v + 1 < vectors ? Lanes::first(kLanes) : panel.mask;
            Lanes::store(to, Lanes::load(panel.w + i * panel.stride + v * kLanes, mask));
        }
    panel.w = packed;
    panel.stride = vectors * kLanes;
}

// Where several blocks of rows pass, a panel is packed first: rows of a wide matrix fall on the same few cache lines.
// Sums are stored and loaded again between two panels of the same outputs, which changes no bit.
void multiply_add(int64_t rows, const float* const* x, int64_t inputs, const float* w, int64_t stride, int64_t outputs,
                  float* const* y) {
    if (rows == 0 || outputs == 0) return;
    alignas(64) float packed[kDepth * Lanes::wide_many * kLanes];
    const int64_t most = widest(rows < 3 ? static_cast<int>(rows) : 3), depth = rows > 6 ? kDepth : inputs;
    const int64_t all = (outputs + kLanes - 1) / kLanes;
    for (int64_t v = 0; v < all; v += most) {
        const int64_t vectors = all - v < most ? all - v : most, at = v * kLanes;
        const Lanes::Mask mask = Lanes::first(v + vectors == all ? outputs - (all - 1) * kLanes : kLanes);
        for (int64_t from = 0; from < inputs; from += depth) {
            const int64_t to = inputs - from < depth ? inputs : from + depth;
            Panel panel{from, to, stride, w + from * stride + at, at, mask};
            if (rows > 6) pack(panel, vectors, packed);
            multiply_panel(rows, x, panel, vectors, y);
        }
    }
}

// Calls body(at, mask) for every vector of a row of `size` values.
template <class Body>
inline void each_vector(int64_t size, Body body) {
    for (int64_t at = 0; at < size; at += kLanes) body(at, Lanes::first(size - at < kLanes ? size - at : kLanes));
}

template <class Function>
inline void map(int64_t size, const float* a, float* y, Function f) {
    each_vector(size, [&](int64_t at, Lanes::Mask m) { Lanes::store(y + at, f(Lanes::load(a + at, m)), m); });
}

void activate(Activation f, int64_t size, const float* a, float* y) {
    const F zero = Lanes::splat(0.0f);
    switch (f) {
        case Activation::tanh: return map(size, a, y, [](F v) { return tanh<Lanes>(v); });
        case Activation::relu: return map(size, a, y, [=](F v) { return Lanes::select(v < zero, zero, v); });
        case Activation::sigmoid: return map(size, a, y, [](F v) { return sigmoid<Lanes>(v); });
        default: return map(size, a, y, [](F v) { return v; });
    }
}

void lstm_cell(int64_t H, const float* a, float* c, float* m) {
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const F i = sigmoid<Lanes>(Lanes::load(a + at, mask));
        const F f = sigmoid<Lanes>(Lanes::load(a + H + at, mask));
        const F g = tanh<Lanes>(Lanes::load(a + 2 * H + at, mask));
        const F o = sigmoid<Lanes>(Lanes::load(a + 3 * H + at, mask));
        const F next = Lanes::fma(f, Lanes::load(c + at, mask), i * g);
        Lanes::store(c + at, next, mask);
        Lanes::store(m + at, o * tanh<Lanes>(next), mask);
    });
}

inline F blend(F z, F n, F h) {
    const F candidate = tanh<Lanes>(n);
    return Lanes::fma(z, h - candidate, candidate);
}

void gru_reset_after(int64_t H, const float* a, const float* hn, const float* h, float* y) {
    each_vector(H, [&](int64_t at, Lanes::Mask m) {
        const F r = Lanes::load(a + at, m), z = Lanes::load(a + H + at, m);
        const F n = Lanes::fma(r, Lanes::load(hn + at, m), Lanes::load(a + 2 * H + at, m));
        Lanes::store(y + at, blend(z, n, Lanes::load(h + at, m)), m);
    });
}

void gru_reset_before(int64_t H, float* a, const float* b_hn, const float* h, float* rh) {
    each_vector(H, [&](int64_t at, Lanes::Mask m) {
        Lanes::store(rh + at, Lanes::load(a + at, m) * Lanes::load(h + at, m), m);
        Lanes::store(a + 2 * H + at, Lanes::load(a + 2 * H + at, m) + Lanes::load(b_hn + at, m), m);
    });
}

void gru_blend(int64_t H, const float* a, const float* h, float* y) {
    each_vector(H, [&](int64_t at, Lanes::Mask m) {
        const F z = Lanes::load(a + H + at, m), n = Lanes::load(a + 2 * H + at, m);
        Lanes::store(y + at, blend(z, n, Lanes::load(h + at, m)), m);
    });
}

}  // namespace

#define SEGUE_PRIMITIVES {multiply_add, activate, lstm_cell, gru_reset_after, gru_reset_before, gru_blend}
