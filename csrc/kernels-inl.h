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

}  // namespace

#include "product-inl.h"

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

// Sums over a row in one order whatever the number of lanes: sixteen partial sums, then a tree.
struct Sum {
    static constexpr int parts = 16 / kLanes;
    F part[parts];

    Sum() {
        for (F& one : part) one = Lanes::splat(0.0f);
    }
    F& at(int64_t place) { return part[place / kLanes % parts]; }
    float total() const {
        float all[16];
        for (int k = 0; k < parts; ++k) Lanes::store(all + k * kLanes, part[k]);
        for (int half = 8; half; half /= 2)
            for (int k = 0; k < half; ++k) all[k] += all[k + half];
        return all[0];
    }
};

// u becomes (u - mean) / sqrt(variance + 1e-5), into xhat; returns that factor.
float standardize(int64_t size, const float* u, float* xhat) {
    Sum sum, squares;
    each_vector(size, [&](int64_t at, Lanes::Mask m) { sum.at(at) = sum.at(at) + Lanes::load(u + at, m); });
    const F mean = Lanes::splat(sum.total() / static_cast<float>(size));
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        const F away = Lanes::keep(Lanes::load(u + at, m) - mean, m);
        squares.at(at) = Lanes::fma(away, away, squares.at(at));
    });
    const float rstd = 1.0f / sqrtf(squares.total() / static_cast<float>(size) + 1e-5f);
    map(size, u, xhat, [&](F v) { return (v - mean) * Lanes::splat(rstd); });
    return rstd;
}

void normalize_row(int64_t size, float* u, const float* gain, float* rstd, float* gates) {
    *rstd = standardize(size, u, u);
    add_product(size, gain, u, gates);
}

// With dxhat = gain * d: du = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
void normalize_row_back(int64_t size, const float* xhat, float rstd, const float* gain, const float* d, float* du) {
    Sum sum, along;
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        const F dxhat = Lanes::load(gain + at, m) * Lanes::load(d + at, m);
        sum.at(at) = sum.at(at) + dxhat;
        along.at(at) = Lanes::fma(dxhat, Lanes::load(xhat + at, m), along.at(at));
    });
    const float share = 1.0f / static_cast<float>(size);
    const F mean = Lanes::splat(sum.total() * share), slope = Lanes::splat(along.total() * share);
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        const F dxhat = Lanes::load(gain + at, m) * Lanes::load(d + at, m);
        const F rest = Lanes::fma(negative(slope), Lanes::load(xhat + at, m), dxhat - mean);
        Lanes::store(du + at, Lanes::splat(rstd) * rest, m);
    });
}

}  // namespace

#include "laws-inl.h"

#define SEGUE_PRIMITIVES                                                                                          \
    {kLanes,      Lanes::vectors, multiply_add,    round,         activate,           activate_back,             \
     add,         multiply,       add_product,     mix,           mix_back,           normalize_row,             \
     normalize_row_back, advance_elman, advance_lstm, advance_gru, lstm,              lstm_back,                 \
     gru_after,   gru_after_back, gru_before,      gru_before_rest, gru_before_back,  gru_before_rest_back}
