// The fast path: which rows are worked on together, in which order, on which thread. It knows no CPU; the arithmetic
// is in the Primitives of a target.
#pragma once

#include "kernels.h"

namespace segue {

// One step of rows whose products have no norm, for the units of panels [from, to) of the weights. The sums of a row's
// gates start with the bias or the input part; to them are added the inputs, unless these pointers are null, and the
// state.
struct Step {
    std::int64_t rows;
    const float *const *start, *const *x, *const *seen;
    Weights w_x, w_h;
    std::int64_t from, to;
    float* scratch;  // in half precision, for what the product has seen
};

// One row of an Elman cell: y, and the same once more where gates are kept.
struct ElmanRow {
    float *gates, *y;
};

// One row of an LSTM: of the sums of its gates, i, f, g, o are made, and c_new (which may be c) and m.
struct LstmRow {
    std::int64_t hidden;
    float* gates;  // [4H], where they are kept
    const float* c;
    float *c_new, *m;
    const float* peepholes;       // [3H], optional
    const float *gain_c, *bias_c;  // optional: the norm of c
    float *chat, *rstd_c;          // written with that norm
};

struct LstmRowGrad {
    std::int64_t hidden;
    const float *gates, *c, *dm;
    float* dc;  // of c_new becomes that of c
    float* d;   // [4H]
    const float* peepholes;
    const float *gain_c, *bias_c, *chat, *rstd_c;
    float *dnorm_c, *spare;    // [H], scratch: of what tanh is taken of; of c_new, through a norm
    float *dgain_c, *dbias_c;  // [H], added up with a norm
};

// One row of a GRU: of the sums of its gates, r, z, n are made; beside them stands u (see kernels.h).
struct GruRow {
    std::int64_t hidden;
    float* gates;  // [4H], where they are kept
    const float* h;
    float* y;
};

struct GruRowGrad {
    std::int64_t hidden;
    const float *gates, *h, *dh;
    float* d;     // [4H]
    float* kept;  // z * dh is added
};

// One row of a diagonal law: of the sums of its gates and the state before, the state after, y.
struct DiagonalRow {
    float* gates;  // [G], where they are kept
    const float* h;
    float* y;
};

// dh, the gradient of y but for dy, becomes that of h; d_sum and drates are added to.
struct DiagonalRowGrad {
    std::int64_t hidden;
    const float *gates, *rates, *h, *dy;  // dy may be null
    float *dh, *d, *d_sum, *drates;
};

// A group of columns of one row: u becomes xhat = (u - mean) * rstd, and gates = start + gain * xhat; gates may be
// start.
struct NormRow {
    float* u;
    const float* gain;
    float* rstd;
    const float* start;
    float* gates;
};

// du, which may be d or xhat, from the gradient d of gain * xhat, and that of gain, which is added up.
struct NormRowGrad {
    const float *xhat, *rstd, *gain, *d;
    float *du, *dgain;
};

// Rows of two matrices whose outer products are summed: d is at its place, x is packed [panels][rows][vectors][lanes],
// the last vector filled; the last panel has as many vectors as it needs. In `strips` there may be room for the columns
// of d that are asked for: they are packed, too, which pays where x has many columns.
struct OuterBlock {
    std::int64_t rows, inputs;
    const float* d;
    std::int64_t d_row;
    float* strips;
    const float* x;
    float* dw;
    std::int64_t dw_row;
    bool is_first;  // then dw is written, else added to
};

// The same with tiles: d and x are at their places, and dw has rows and columns up to multiples of 16, the first of
// them that of column `from`. In `scratch` there is room for both of them in tiles.
struct HalfOuterBlock {
    std::int64_t rows, inputs;
    const float* d;
    std::int64_t d_row;
    const float* x;
    std::int64_t x_row;
    float* scratch;
    float* dw;
    std::int64_t dw_row;
    bool is_first;
};

// The arithmetic of one target. Rows are given as pointers, because the rows worked on together rarely stand together.
struct Primitives {
    // Packed weights are panels, [panels][inputs][vectors][lanes], the last one filled with 0. The vectors of a panel
    // belong to one unit each of all gates; or, of a single gate, to so many units.
    std::int64_t lanes, vectors;
    // Whether those in half precision are tiles instead, [panels][inputs / 32][vectors][16][lanes][2]: bfloat16, the
    // inputs in pairs and filled with 0 to a multiple of 32.
    bool has_tiles;

    // y[r][o] += sum_i x[r][i] * W[o, i], in ascending i, for the outputs of panels [from, to)
    void (*multiply_add)(std::int64_t rows, const float* const* x, const Weights& w, std::int64_t from,
                         std::int64_t to, float* const* y);
    // The same with weights in half precision; scratch for the rounded rows, see half_scratch.
    void (*multiply_add_half)(std::int64_t rows, const float* const* x, const Weights& w, std::int64_t from,
                              std::int64_t to, float* const* y, float* scratch);
    // y = x rounded to bfloat16; y may be x
    void (*round)(std::int64_t size, const float* x, float* y);

    // y = f(a), and d = dy * f'(a) from y; y may be a, d may be dy
    void (*activate)(Activation f, std::int64_t size, const float* a, float* y);
    void (*activate_back)(Activation f, std::int64_t size, const float* y, const float* dy, float* d);

    void (*add)(std::int64_t size, const float* a, const float* b, float* y);       // y = a + b
    void (*multiply)(std::int64_t size, const float* a, const float* b, float* y);  // y = a * b
    void (*add_product)(std::int64_t size, const float* a, const float* b, float* y);  // y += a * b
    // dw[g] += sum_n d[n][g] * x[n] of a block of rows, for columns g of [from, to)
    void (*add_outer)(const OuterBlock& block, std::int64_t from, std::int64_t to);
    void (*add_outer_half)(const HalfOuterBlock& block, std::int64_t from, std::int64_t to);  // null without tiles
    // y = old where kept, or the share `rate` of it; and the way back: dy splits into that of old and that of y
    void (*mix)(std::int64_t size, const std::uint8_t* keep, float rate, const float* old, float* y);
    void (*mix_back)(std::int64_t size, const std::uint8_t* keep, float rate, float* dy, float* dold);

    // One row, or two one after the other: their sums are made side by side.
    void (*normalize)(std::int64_t size, const NormRow* rows, int count);
    void (*normalize_back)(std::int64_t size, const NormRowGrad* rows, int count);

    // The sums of some units of some rows, and at once the law of these.
    void (*advance_elman)(const Step& step, const ElmanRow* rows, Activation f);
    void (*advance_lstm)(const Step& step, const LstmRow* rows);
    void (*advance_gru)(const Step& step, const GruRow* rows, const float* b_hn);

    // The law of a whole row, whose gates are the sums.
    void (*lstm)(const LstmRow& row);
    void (*lstm_back)(const LstmRowGrad& row);
    void (*gru_after)(const GruRow& row);
    void (*gru_after_back)(const GruRowGrad& row);
    // The form that resets before, in two parts: r, z and rh = r * h, then n and y.
    void (*gru_before)(const GruRow& row, const float* h_seen, float* rh);
    void (*gru_before_rest)(const GruRow& row);
    // dn and dz, then, from drh = the gradient of r * h, dr; drh becomes that of h
    void (*gru_before_back)(const GruRowGrad& row);
    void (*gru_before_rest_back)(const GruRowGrad& row, const float* h_seen, float* drh);

    // y = a * h + b
    void (*advance_linear)(std::int64_t size, const float* a, const float* h, const float* b, float* y);

    // The sums of some units of some rows, where `seen` are the inputs, and at once the law of these, row after row.
    void (*advance_diagonal)(Diagonal law, const Step& step, const DiagonalRow* rows, const float* rates);
    void (*diagonal_back)(Diagonal law, const DiagonalRowGrad& row, std::int64_t from, std::int64_t to);  // some units

    // Blocks [from, to) of the draws of a key; `keep` is where the first of them goes.
    void (*draw_blocks)(std::uint64_t key, std::uint32_t threshold, std::int64_t from, std::int64_t to,
                        std::uint8_t* keep);
};

extern const Primitives plain_primitives;
#ifdef SEGUE_X86_TARGETS
extern const Primitives avx2_primitives, avx512_primitives, amx_primitives;
#endif
#ifdef SEGUE_ARM_TARGETS
extern const Primitives neon_primitives;
#endif

namespace blocked {

constexpr std::int64_t kRows = 96;  // rows worked on together, at most; a multiple of the tallest tiles

std::int64_t panels(const Primitives& p, std::int64_t outputs, std::int64_t gates);
inline std::int64_t panels(const Primitives& p, const Weights& w) { return panels(p, w.outputs, w.gates); }
std::int64_t packed_size(const Primitives& p, std::int64_t outputs, std::int64_t inputs, std::int64_t gates, bool half);
void pack(const Primitives& p, std::int64_t outputs, std::int64_t inputs, const float* w, std::int64_t row,
          std::int64_t column, float* packed, int threads, std::int64_t gates, bool half);
// Scratch of this thread for so many rounded rows, of one kind or two, as long as it does not ask again.
float* half_scratch(std::int64_t rows, std::int64_t inputs, std::int64_t others = 0);
// Primitives::multiply_add in the precision of the weights.
void multiply_add(const Primitives& p, std::int64_t rows, const float* const* x, const Weights& w, std::int64_t from,
                  std::int64_t to, float* const* y);
void affine(const Primitives& p, const Affine& call);
void column_sums(const Primitives& p, const ColumnSums& call);
void outer(const Primitives& p, const Outer& call);
void before(const Primitives& p, const Before& call);
void draw(const Primitives& p, const Draw& call);
void scan_linear(const Primitives& p, const Linear& call);
void scan_diagonal(const Primitives& p, const DiagonalScan& call);
void scan_diagonal_back(const Primitives& p, const DiagonalGrad& call);
void scan_elman(const Primitives& p, const Elman& call);
void scan_lstm(const Primitives& p, const Lstm& call);
void scan_gru(const Primitives& p, const Gru& call);
void scan_elman_back(const Primitives& p, const ElmanGrad& call);
void scan_lstm_back(const Primitives& p, const LstmGrad& call);
void scan_gru_back(const Primitives& p, const GruGrad& call);

}  // namespace blocked
}  // namespace segue
