// The whole native API. It knows neither Python nor torch: raw pointers and extents, and every buffer belongs to the
// caller.
//
// Ragged layout: the values of all steps of all sequences stand one after another, [N, ...], and the B lengths say
// where one sequence ends. Letters: B sequences, N steps of all sequences, I inputs, H hidden, R recurrent width
// (what h has: P with a projection, else H), O outputs. Arrays are float32, row-major, contiguous.
//
// The law, to the bit: an output row depends on its own inputs only, never on the batch, its place in it, the
// chunking of a sequence, the number of threads, or the target that runs. Hence every sum is one chain of fused
// multiply-adds in ascending order: the bias, then the inputs, then the recurrent part.
//
// Outputs must not overlap inputs or each other, with two exceptions: h_last may be h0, and c_last may be c0
// (the state is then advanced in place). The arguments are not checked here; bind.cpp does.
#pragma once

#include <cstdint>

namespace segue {

enum class Activation : int { identity = 0, tanh = 1, relu = 2, sigmoid = 3 };

// y[n, o] = b[o] + sum_i x[n, i] * w_t[i, o]
struct Affine {
    std::int64_t rows, inputs, outputs;
    const float* x;    // [N, I]
    const float* w_t;  // [I, O]
    const float* b;    // [O], or null for zeros
    float* y;          // [N, O]
    int threads;
};

// What every recurrence has.
struct Sequences {
    std::int64_t count, steps, inputs, hidden;
    const std::int64_t* lengths;  // [B], each >= 0, their sum is N
    const float* x;               // [N, I]
    const float* h0;              // [B, R]
    float* y;                     // [N, R]
    float* h_last;                // [B, R]; of an empty sequence, h0
    int threads;
};

// h = f(W_xh x + b + W_hh h)
struct Elman {
    Sequences over;
    const float* w_xh_t;  // [I, H]
    const float* w_hh_t;  // [H, H]
    const float* b;       // [H]
    Activation activation;
};

// i, f, o = sigmoid(...); g = tanh(...); each of W_xh x + b + W_hh h; gate order i, f, g, o
// c = f * c + i * g;  h = o * tanh(c), or with a projection W_hr (o * tanh(c))
struct Lstm {
    Sequences over;
    const float* w_xh_t;      // [I, 4H]
    const float* w_hh_t;      // [R, 4H]
    const float* b;           // [4H]
    const float* w_hr_t;      // [H, P], or null
    std::int64_t projection;  // P, or 0
    const float* c0;          // [B, H]
    float* c_last;            // [B, H]
};

// r, z = sigmoid(W_x x + b_x + W_h h); gate order r, z, n
// reset_after:  n = tanh(W_xn x + b_xn + r * (W_hn h + b_hn))
// otherwise:    n = tanh(W_xn x + b_xn + b_hn + W_hn (r * h))
// h = (1 - z) * n + z * h
struct Gru {
    Sequences over;
    const float* w_xh_t;  // [I, 3H]
    const float* w_hh_t;  // [H, 3H]
    const float* b_x;     // [3H]
    const float* b_hn;    // [H]
    bool reset_after;
};

void affine(const Affine& call);
void scan_elman(const Elman& call);
void scan_lstm(const Lstm& call);
void scan_gru(const Gru& call);

// The name of the target that runs: "avx512", "avx2" or "reference". Throws std::invalid_argument where
// SEGUE_TARGET names none, or one that this machine cannot run.
const char* compiled_for();

}  // namespace segue
