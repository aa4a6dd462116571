// The one SIMD source, width-agnostic. A target file defines the struct Lanes (see avx512.cpp), includes this file and
// ends with SEGUE_PRIMITIVES. Only raw pointers here and nothing of std:: that could leave a shared copy of a function
// behind: this is compiled for a CPU that the machine at hand may not be.
//
// The last vector of a row is loaded and stored through a mask, so tails run the same instructions as everything else.
#pragma once

#include <math.h>

#include "activations.h"
#include "blocked.h"

namespace {

using segue::Activation;
using segue::Weights;
using std::int64_t;
using F = Lanes::F;

constexpr int64_t kLanes = Lanes::count;

// Without it the compiler unrolls too late to see that the sums are registers, and stores them at every input.
#define SEGUE_UNROLL _Pragma("GCC unroll 16")
// Into its callers, however many there are: what a tile costs around its loop weighs where there is one row.
#define SEGUE_INLINE __attribute__((always_inline)) inline

}  // namespace

#include "product-inl.h"
#include "half-inl.h"

namespace {

// Calls body(at, mask) for every vector of a row of `size` values.
template <class Body>
inline void each_vector(int64_t size, Body body) {
    for (int64_t at = 0; at < size; at += kLanes) body(at, Lanes::first(size - at < kLanes ? size - at : kLanes));
}

inline F negative(F a) {
    return Lanes::splat(0.0f) - a;
}

template <class Function>
inline void map(int64_t size, const float* a, float* y, Function f) {
    each_vector(size, [&](int64_t at, Lanes::Mask m) { Lanes::store(y + at, f(Lanes::load(a + at, m)), m); });
}

inline F activated(Activation f, F a) {
    const F zero = Lanes::splat(0.0f);
    switch (f) {
        case Activation::tanh: return tanh<Lanes>(a);
        case Activation::relu: return Lanes::select(a < zero, zero, a);
        case Activation::sigmoid: return sigmoid<Lanes>(a);
        default: return a;
    }
}

void activate(Activation f, int64_t size, const float* a, float* y) {
    switch (f) {
        case Activation::tanh: return map(size, a, y, [](F v) { return activated(Activation::tanh, v); });
        case Activation::relu: return map(size, a, y, [](F v) { return activated(Activation::relu, v); });
        case Activation::sigmoid: return map(size, a, y, [](F v) { return activated(Activation::sigmoid, v); });
        default: return map(size, a, y, [](F v) { return v; });
    }
}

template <class Function>
inline void map_back(int64_t size, const float* y, const float* dy, float* d, Function slope) {
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        Lanes::store(d + at, Lanes::load(dy + at, m) * slope(Lanes::load(y + at, m)), m);
    });
}

inline F tanh_slope(F y) {
    return Lanes::fma(negative(y), y, Lanes::splat(1.0f));
}

inline F sigmoid_slope(F y) {
    return Lanes::fma(negative(y), y, y);
}

void activate_back(Activation f, int64_t size, const float* y, const float* dy, float* d) {
    const F zero = Lanes::splat(0.0f), one = Lanes::splat(1.0f);
    switch (f) {
        case Activation::tanh: return map_back(size, y, dy, d, tanh_slope);
        case Activation::relu: return map_back(size, y, dy, d, [=](F v) { return Lanes::select(v > zero, one, zero); });
        case Activation::sigmoid: return map_back(size, y, dy, d, sigmoid_slope);
        default: return map_back(size, y, dy, d, [=](F) { return one; });
    }
}

void add(int64_t size, const float* a, const float* b, float* y) {
    for (int64_t j = 0; j < size; ++j) y[j] = a[j] + b[j];
}

void multiply(int64_t size, const float* a, const float* b, float* y) {
    for (int64_t j = 0; j < size; ++j) y[j] = a[j] * b[j];
}

void add_product(int64_t size, const float* a, const float* b, float* y) {
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        Lanes::store(y + at, Lanes::fma(Lanes::load(a + at, m), Lanes::load(b + at, m), Lanes::load(y + at, m)), m);
    });
}

void mix(int64_t size, const std::uint8_t* keep, float rate, const float* old, float* y) {
    if (keep) {
        for (int64_t j = 0; j < size; ++j) y[j] = keep[j] ? old[j] : y[j];
    } else {
        for (int64_t j = 0; j < size; ++j) y[j] = rate * old[j] + (1.0f - rate) * y[j];
    }
}

void mix_back(int64_t size, const std::uint8_t* keep, float rate, float* dy, float* dold) {
    for (int64_t j = 0; j < size; ++j) {
        const float all = dy[j];
        dold[j] = keep ? (keep[j] ? all : 0.0f) : rate * all;
        dy[j] = keep ? (keep[j] ? 0.0f : all) : (1.0f - rate) * all;
    }
}

// Sums over a row in one order whatever the number of lanes: sixteen partial sums, then a tree, whose last levels are
// Lanes::total, the upper half of the lanes added to the lower one.
struct Sum {
    static constexpr int parts = 16 / kLanes;
    F part[parts];

    Sum() {
        for (F& one : part) one = Lanes::splat(0.0f);
    }
    F& at(int64_t place) { return part[place / kLanes % parts]; }
    float total() const {
        F half[parts];
        for (int k = 0; k < parts; ++k) half[k] = part[k];
        for (int k = parts / 2; k; k /= 2)
            for (int j = 0; j < k; ++j) half[j] = half[j] + half[j + k];
        return Lanes::total(half[0]);
    }
};

// The mean of a row and 1 / sqrt(variance + 1e-5), of R rows of one size at once.
template <int R>
struct Moments {
    float mean[R], rstd[R];

    Moments(int64_t size, const float* const* u) {
        const float share = 1.0f / static_cast<float>(size);
        Sum sum[R], squares[R];
        each_vector(size, [&](int64_t at, Lanes::Mask m) {
            SEGUE_UNROLL for (int r = 0; r < R; ++r) sum[r].at(at) = sum[r].at(at) + Lanes::load(u[r] + at, m);
        });
        for (int r = 0; r < R; ++r) mean[r] = sum[r].total() * share;
        each_vector(size, [&](int64_t at, Lanes::Mask m) {
            SEGUE_UNROLL for (int r = 0; r < R; ++r) {
                const F away = Lanes::keep(Lanes::load(u[r] + at, m) - Lanes::splat(mean[r]), m);
                squares[r].at(at) = Lanes::fma(away, away, squares[r].at(at));
            }
        });
        for (int r = 0; r < R; ++r) rstd[r] = 1.0f / sqrtf(squares[r].total() * share + 1e-5f);
    }
    F standard(int r, F u) const { return (u - Lanes::splat(mean[r])) * Lanes::splat(rstd[r]); }
};

template <int R>
void normalize_rows(int64_t size, const segue::NormRow* rows) {
    const float* u[R];
    for (int r = 0; r < R; ++r) u[r] = rows[r].u;
    const Moments<R> moments(size, u);
    for (int r = 0; r < R; ++r) *rows[r].rstd = moments.rstd[r];
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        SEGUE_UNROLL for (int r = 0; r < R; ++r) {
            const segue::NormRow& row = rows[r];
            const F xhat = moments.standard(r, Lanes::load(row.u + at, m));
            const F start = Lanes::load(row.start + at, m);
            Lanes::store(row.u + at, xhat, m);
            Lanes::store(row.gates + at, Lanes::fma(Lanes::load(row.gain + at, m), xhat, start), m);
        }
    });
}

void normalize(int64_t size, const segue::NormRow* rows, int count) {
    count == 1 ? normalize_rows<1>(size, rows) : normalize_rows<2>(size, rows);
}

// With dxhat = gain * d: du = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
template <int R>
void normalize_rows_back(int64_t size, const segue::NormRowGrad* rows) {
    const float share = 1.0f / static_cast<float>(size);
    Sum sum[R], along[R];
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        SEGUE_UNROLL for (int r = 0; r < R; ++r) {
            const F d = Lanes::load(rows[r].d + at, m), xhat = Lanes::load(rows[r].xhat + at, m);
            const F dxhat = Lanes::load(rows[r].gain + at, m) * d;
            sum[r].at(at) = sum[r].at(at) + dxhat;
            along[r].at(at) = Lanes::fma(dxhat, xhat, along[r].at(at));
            float* dgain = rows[r].dgain + at;
            Lanes::store(dgain, Lanes::fma(d, xhat, Lanes::load(dgain, m)), m);
        }
    });
    F mean[R], slope[R], rstd[R];
    for (int r = 0; r < R; ++r) {
        mean[r] = Lanes::splat(sum[r].total() * share), slope[r] = Lanes::splat(along[r].total() * share);
        rstd[r] = Lanes::splat(*rows[r].rstd);
    }
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        SEGUE_UNROLL for (int r = 0; r < R; ++r) {
            const F dxhat = Lanes::load(rows[r].gain + at, m) * Lanes::load(rows[r].d + at, m);
            const F rest = Lanes::fnma(slope[r], Lanes::load(rows[r].xhat + at, m), dxhat - mean[r]);
            Lanes::store(rows[r].du + at, rstd[r] * rest, m);
        }
    });
}

void normalize_back(int64_t size, const segue::NormRowGrad* rows, int count) {
    count == 1 ? normalize_rows_back<1>(size, rows) : normalize_rows_back<2>(size, rows);
}

}  // namespace

#include "laws-inl.h"
#include "diagonal-inl.h"
#include "outer-inl.h"
#include "draw-inl.h"

#define SEGUE_PRIMITIVES                                                                                             \
    {kLanes,         Lanes::vectors, kHasTiles,      multiply_add, multiply_add_half, round,           activate,      \
     activate_back,  add,            multiply,       add_product,  add_outer,         add_outer_half,  mix,           \
     mix_back,       normalize,      normalize_back, advance_elman, advance_lstm,     advance_gru,     lstm,          \
     lstm_back,      gru_after,      gru_after_back, gru_before,   gru_before_rest,   gru_before_back,                \
     gru_before_rest_back, advance_linear, advance_diagonal, diagonal_back, draw_blocks}
