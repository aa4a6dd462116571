// The whole native API. It knows neither Python nor torch: raw pointers and extents, and every buffer belongs to the
// caller. Arrays are float32, row-major, contiguous. The arguments are not checked here; bind.cpp does.
//
// Ragged layout: the values of all steps of all sequences stand one after another, [N, ...], and the B lengths say
// where one sequence ends. Letters: B sequences, N steps of all sequences, I inputs, H hidden, R recurrent width
// (what h has: P with a projection, else H), G columns of the gates (H, 4H, 3H), O outputs.
//
// The law, to the bit: an output row depends on its own inputs only, never on the batch, its place in it, the
// chunking of a sequence, the number of threads, or the target that runs. Hence every sum of a product is one chain of
// fused multiply-adds in ascending order: what stood there (the bias), then the inputs, then the recurrent part. In
// half precision, and there alone, the target "amx" sums in an order of its own. Numbers below 1.2e-38 count as 0.
//
// Outputs must not overlap inputs or each other, with these exceptions: h_last may be h0, and c_last may be c0
// (the state is then advanced in place), d may be gates, and gates may be p. Pointers said to be optional may be null.
#pragma once

#include <cstdint>

namespace segue {

enum class Activation : int { identity = 0, tanh = 1, relu = 2, sigmoid = 3 };

// A matrix W [outputs, inputs] in the order in which a product reads it; made by pack(). Its outputs are those of 1 to
// 4 gates, one gate after the other, and the gates of one unit are packed side by side. In half precision W and what it
// is multiplied with are rounded to bfloat16 (to nearest, ties to even) and their products, which are then exact,
// summed in float32.
struct Weights {
    std::int64_t inputs, outputs;
    const float* packed;
    std::int64_t gates = 1;
    bool half = false;
};

// How many floats a packed matrix takes; its memory must be aligned to 64 bytes.
std::int64_t packed_size(std::int64_t outputs, std::int64_t inputs, std::int64_t gates = 1, bool half = false);

// Packs W, whose element (o, i) is w[o * row + i * column]: strides swapped give the transpose.
void pack(std::int64_t outputs, std::int64_t inputs, const float* w, std::int64_t row, std::int64_t column,
          float* packed, int threads, std::int64_t gates = 1, bool half = false);

// y[n, o] = b[o] + sum_i x[n, i] * W[o, i]
//
// Of several blocks, matrices W packed one after the other, block m reads the inputs of part m mod parts and gives the
// outputs from m O on: a block-diagonal matrix, or several of them one below the other.
struct Affine {
    std::int64_t rows;
    const float* x;      // [N, parts I]
    std::int64_t x_row;  // from one row to the next
    Weights w;           // I -> O
    const float* b;      // [blocks O], or null for zeros
    float* y;            // [N, blocks O]
    std::int64_t y_row;  // from one row to the next
    int threads;
    std::int64_t blocks = 1, parts = 1;
};

void affine(const Affine& call);

// Which steps there are, and the direction of time.
struct Sequences {
    std::int64_t count, steps;
    const std::int64_t* lengths;  // [B], each >= 0, their sum is N
    bool reverse;                 // each sequence from its last step to its first
    int threads;
};

// Zoneout: a unit keeps its old value where `keep` is 1, or, without draws, keeps the share `rate` of it.
struct Zoneout {
    const std::uint8_t* keep;  // [N, units], optional
    float rate;                // used where there are no draws; 0 for none
};

// Layer norm of a product u, group by group of columns: xhat = (u - mean) * rstd, rstd = 1 / sqrt(variance + 1e-5);
// the gates see gain * xhat. Groups: all columns; of a GRU the columns of r and z, and those of n.
struct Norm {
    const float* gain;  // [G], or null for no norm
    float* xhat;        // [N, G], kept for the way back; optional
    float* rstd;        // [N, groups], likewise
};

// What every recurrence has. "gates" are what the way back needs: after the scan they hold, by law,
//   Elman [N, H]: f(...)      LSTM [N, 4H]: i, f, g, o      GRU [N, 4H]: r, z, n, and u = W_hn h + b_hn
struct Recurrence {
    Sequences over;
    std::int64_t hidden, width;  // H, R
    const float* x;              // [N, I]
    Weights w_x;                 // I -> G, packed by gate: 1, 4 or 3
    const float* b;              // [G]
    Weights w_h;                 // R -> G, likewise; of a GRU that resets before, r and z alone: H -> 2H, 2 gates
    const float* h0;             // [B, R]
    const float* mask;           // [B, R], optional: the product sees mask * h (recurrent dropout)
    Norm norm_x, norm_h;         // of the products with x and with h; both or neither
    Zoneout zone_h;              // [N, R]
    float* gates;                // kept for the way back; optional
    float* y;                    // [N, R]
    float* h_last;               // [B, R]; of an empty sequence, h0
};

// The way back through a scan. d [N, columns of gates] is the gradient of the gates before their activation; of a GRU
// dr, dz, dn, and du (that of W_hn h + b_hn; where the reset comes before, du = dn). d may be gates, and du_x and du_h
// the xhat of their norms. Weight gradients are products of d with the inputs and states, left to the caller; those of
// biases and gains are sums over the steps, given for each sequence.
struct RecurrenceGrad {
    Sequences over;
    std::int64_t hidden, width;
    Weights w_h_t;         // G -> R: W_h transposed; of a GRU, r and z alone: 2H -> H
    const float* h0;       // [B, R]
    const float* y;        // [N, R]
    const float* mask;     // [B, R], optional
    Norm norm_x, norm_h;   // gain, xhat and rstd as the scan left them
    Zoneout zone_h;
    const float* gates;    // as the scan left them
    const float* dy;       // [N, R], optional: zeros
    const float* dh_last;  // [B, R], optional: zeros
    float* d;              // [N, columns of gates]
    float *du_x, *du_h;    // [N, G], with norms: the gradients of the products themselves; else null
    float* d_sum;          // [B, columns of gates], of d
    float *dgain_x, *dgain_h;  // [B, G], with norms; else null
    float* dh0;            // [B, R]
};

// h = f(W_xh x + b + W_hh h)
struct Elman {
    Recurrence over;
    Activation activation;
};

struct ElmanGrad {
    RecurrenceGrad over;
    Activation activation;
};

// i, f, o = sigmoid(...); g = tanh(...); each of W_xh x + b + W_hh h, with peepholes + p_i c, p_f c, p_o c_new;
// gate order i, f, g, o
// c_new = f * c + i * g;  m = o * tanh(c_new), with a norm o * tanh(gain_c * norm(c_new) + bias_c)
// h = m, or with a projection W_hr m
struct Lstm {
    Recurrence over;
    const float* peepholes;  // [3H]: p_i, p_f, p_o; optional
    Weights w_r;             // H -> P; packed is null without a projection
    const float* gain_c;     // [H], optional: the norm of c
    const float* bias_c;     // [H]
    Zoneout zone_c;          // [N, H]
    const float* c0;         // [B, H]
    float* c_last;           // [B, H]
    float* c;                // [N, H], the memory after each step, kept for the way back; optional
    float* chat;             // [N, H], norm(c_new), with a norm of c and a way back
    float* rstd_c;           // [N], likewise
    float* m;                // [N, H], with a projection and a way back
};

struct LstmGrad {
    RecurrenceGrad over;
    const float* peepholes;
    Weights w_r_t;  // P -> H: W_r transposed
    const float* gain_c;
    const float* bias_c;
    Zoneout zone_c;
    const float* c0;
    const float* c;
    const float* chat;
    const float* rstd_c;
    const float* dc_last;  // [B, H], optional: zeros
    float* dc0;            // [B, H]
    float* dm_out;         // [N, R], with a projection: the gradient of h before zoneout; else null
    float *dgain_c, *dbias_c;  // [B, H], with a norm of c, likewise the sums of each sequence; else null
};

// r, z = sigmoid(W_x x + b + W_h h); gate order r, z, n
// reset_after:  n = tanh(W_xn x + b_n + r * u), u = W_hn h + b_hn
// otherwise:    n = tanh(W_xn x + b_n + W_hn (r * h)), and b_hn is not read
// h = (1 - z) * n + z * h
struct Gru {
    Recurrence over;
    Weights w_n;        // H -> H: W_hn, where the reset comes before
    const float* b_hn;  // [H], read where reset_after
    bool reset_after;
};

struct GruGrad {
    RecurrenceGrad over;
    Weights w_n_t;  // H -> H: W_hn transposed
    bool reset_after;
};

// Sums over all rows: sums[g] = sum_n d[n, g].
struct ColumnSums {
    std::int64_t rows, columns;
    const float* d;
    float* sums;  // [G]
    int threads;
};

void column_sums(const ColumnSums& call);

// The gradient of a weight: dw[g, j] = sum_n d[n, g] * x[n, j]. Rows are summed in blocks of one size, whatever the
// number of threads.
struct Outer {
    std::int64_t rows, columns, inputs;  // N, G, J
    const float* d;
    std::int64_t d_row;  // from one row to the next
    const float* x;
    std::int64_t x_row;
    float* dw;  // [G, J]
    int threads;
    bool half = false;  // where the machine has no tiles of bfloat16, nothing is rounded
};

void outer(const Outer& call);

// What the recurrent product has seen at each step, for the gradient of its weights: mask * the state before the step.
struct Before {
    Sequences over;
    std::int64_t width;
    const float* y;      // [N, R], the states after each step
    const float* first;  // [B, R]
    const float* mask;   // [B, R], optional
    float* before;       // [N, R]
};

void before(const Before& call);

// h_t = a_t * h_{t-1} + b_t, each unit by itself. Its way back is the same recurrence in the other direction.
struct Linear {
    Sequences over;
    std::int64_t hidden;
    const float *a, *b;  // [N, H]
    const float* h0;     // [B, H]
    float* y;            // [N, H]
    float* h_last;       // [B, H]
};

void scan_linear(const Linear& call);

// Laws whose state enters linearly, each unit by itself: their recurrence is diagonal. p are the sums W_x x + b of the
// gates, in this order; rates are what the law knows of each unit besides.
//
//   min_gru   gates z, n     h = (1 - sigmoid(p_z)) * h + sigmoid(p_z) * p_n
//   min_lstm  gates i, f, g  h = (f * h + i * p_g) / (f + i), i, f = sigmoid(p_i), sigmoid(p_f)
//   rg_lru    gates r, i, v  h = a * h + sqrt(1 - a^2) * sigmoid(p_i) * p_v, a = exp(-rate * sigmoid(p_r)), rate >= 0
//   s5        gates re, im   h = a * h + p, complex; rates and states are re, im as well
enum class Diagonal : int { min_gru = 0, min_lstm = 1, rg_lru = 2, s5 = 3 };

// How many gates, states and rates a unit has.
struct DiagonalParts {
    std::int64_t gates, states, rates;
};

constexpr DiagonalParts parts_of(Diagonal law) {
    switch (law) {
        case Diagonal::min_gru: return {2, 1, 0};
        case Diagonal::min_lstm: return {3, 1, 0};
        case Diagonal::rg_lru: return {3, 1, 1};
        default: return {2, 2, 2};
    }
}

// R numbers of state, W rates and G sums of gates: those of H units, part by part.
struct DiagonalScan {
    Diagonal law;
    Sequences over;
    std::int64_t hidden;
    const float* x;      // [N, I]
    Weights w_x;         // I -> G, packed by gate, not in half precision
    const float* b;      // [G]
    const float* p;      // [N, G], optional: instead of x and b, and of w_x, which is then of no inputs
    const float* rates;  // [W]
    const float* h0;     // [B, R]
    float* gates;        // [N, G], for the way back: gates behind their sigmoid, others, and those of s5, p; optional
    float* y;            // [N, R]
    float* h_last;       // [B, R]
};

// d [N, G] is the gradient of p, and may be gates. That of b, and that of the rates, are sums over the steps, given for
// each sequence.
struct DiagonalGrad {
    Diagonal law;
    Sequences over;
    std::int64_t hidden;
    const float* rates;
    const float* h0;
    const float* y;
    const float* gates;
    const float* dy;       // [N, R], optional: zeros
    const float* dh_last;  // [B, R], optional: zeros
    float* d;
    float* d_sum;   // [B, G], of d
    float* drates;  // [B, W]
    float* dh0;     // [B, R]
};

void scan_diagonal(const DiagonalScan& call);
void scan_diagonal_back(const DiagonalGrad& call);

// Zeros and ones at random: 1 where a number of Philox4x32-10 is below the threshold. A counter, from 0, gives four
// numbers; of each block of 64 counters come the first numbers, then the second ones, and so on.
struct Draw {
    std::int64_t size;
    std::uint64_t key;
    std::uint32_t threshold;
    std::uint8_t* keep;  // [size]
    int threads;
};

constexpr int kDrawBlock = 256;  // draws

void draw(const Draw& call);
void scan_elman(const Elman& call);
void scan_lstm(const Lstm& call);
void scan_gru(const Gru& call);
void scan_elman_back(const ElmanGrad& call);
void scan_lstm_back(const LstmGrad& call);
void scan_gru_back(const GruGrad& call);

// The name of the target that runs: "amx" (AVX-512, and tiles of bfloat16 in half precision), "avx512", "avx2", "neon"
// or "plain". Throws std::invalid_argument where SEGUE_TARGET names none, or one that this machine cannot run.
const char* compiled_for();

}  // namespace segue
