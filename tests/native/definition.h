// The laws of csrc/kernels.h in plain loops, forward and backward through time: what every kernel is held to. In
// double it is the definition; in float it says how much an answer owes to rounding alone.
//
// Letters as in kernels.h: B sequences, N steps, I inputs, H hidden, R recurrent width, G columns of the gates. Arrays
// are row-major. An array that is empty is an option that was not taken.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace definition {

using segue::Activation;
using std::int64_t;

enum class Law { elman, lstm, gru };

template <class Real>
using Array = std::vector<Real>;

// What a scan and the way back are asked. A GRU's w_h has the rows r, z, n.
template <class Real>
struct Problem {
    Law law = Law::elman;
    Activation activation = Activation::tanh;
    bool reset_after = true, reverse = false;
    bool half = false;  // what products multiply is rounded to bfloat16
    int64_t inputs = 0, hidden = 0, width = 0;
    std::vector<int64_t> lengths;
    Array<Real> x, w_x, b;              // [N, I], [G, I], [G]
    Array<Real> w_h, b_hn;              // [G, R], [H]
    Array<Real> h0, c0;                 // [B, R], [B, H]
    Array<Real> mask;                   // [B, R]
    Array<Real> gain_x, gain_h;         // [G], of the norms of both products
    Array<Real> peepholes, w_r;         // [3H], [P, H]
    Array<Real> gain_c, bias_c;         // [H], [H]
    std::vector<std::uint8_t> keep_h, keep_c;
    Real rate_h = 0, rate_c = 0;
    Array<Real> dy, dh_last, dc_last;   // [N, R], [B, R], [B, H]: the gradients of what the scan gives

    int64_t count() const { return static_cast<int64_t>(lengths.size()); }
    int64_t steps() const {
        int64_t sum = 0;
        for (int64_t length : lengths) sum += length;
        return sum;
    }
    int64_t columns() const { return (law == Law::elman ? 1 : law == Law::lstm ? 4 : 3) * hidden; }  // G
    int64_t kept_columns() const { return (law == Law::elman ? 1 : 4) * hidden; }                    // of gates and d
    int64_t groups() const { return law == Law::gru ? 2 : 1; }                                       // of the norm
};

// What the scan gives and leaves for the way back. A GRU that resets before keeps no u: its columns are 0.
template <class Real>
struct Result {
    Array<Real> y, h_last, c_last;
    Array<Real> gates, xhat_x, rstd_x, xhat_h, rstd_h;
    Array<Real> c, chat, rstd_c, m;
};

// What the way back gives.
template <class Real>
struct Gradients {
    Array<Real> d, du_x, du_h, d_sum, dgain_x, dgain_h, dh0, dc0, dm_out, dgain_c, dbias_c;
};

// One step of one sequence: its row in [N, ...], and the row of the step before it in time, or -1 at the start.
struct Step {
    int64_t sequence, row, before;
};

inline std::vector<Step> in_time(const std::vector<int64_t>& lengths, bool reverse) {
    std::vector<Step> steps;
    int64_t first = 0;
    for (int64_t s = 0; s < static_cast<int64_t>(lengths.size()); ++s) {
        for (int64_t t = 0; t < lengths[s]; ++t) {
            const int64_t row = reverse ? first + lengths[s] - 1 - t : first + t;
            steps.push_back({s, row, t == 0 ? -1 : reverse ? row + 1 : row - 1});
        }
        first += lengths[s];
    }
    return steps;
}

// Pointwise -----------------------------------------------------------------------------------------------------------

template <class Real>
Real sigmoid(Real a) {
    return 1 / (1 + std::exp(-a));
}

template <class Real>
Real activate(Activation f, Real a) {
    switch (f) {
        case Activation::tanh: return std::tanh(a);
        case Activation::relu: return a < 0 ? 0 : a;
        case Activation::sigmoid: return sigmoid(a);
        default: return a;
    }
}

// f'(a), told from y = f(a)
template <class Real>
Real slope(Activation f, Real y) {
    switch (f) {
        case Activation::tanh: return 1 - y * y;
        case Activation::relu: return y > 0 ? 1 : 0;
        case Activation::sigmoid: return y * (1 - y);
        default: return 1;
    }
}

// The share of the old value that unit j of a row keeps.
template <class Real>
Real kept_share(const std::vector<std::uint8_t>& keep, Real rate, int64_t at) {
    return keep.empty() ? rate : keep[at];
}

// Rows ----------------------------------------------------------------------------------------------------------------

template <class Real>
Array<Real> row(const Array<Real>& a, int64_t n, int64_t width) {
    return Array<Real>(a.begin() + n * width, a.begin() + (n + 1) * width);
}

template <class Real>
void put(Array<Real>& a, int64_t n, const Array<Real>& values) {
    const int64_t width = static_cast<int64_t>(values.size());
    for (int64_t j = 0; j < width; ++j) a[n * width + j] = values[j];
}

// a with 8 significant bits, to nearest, ties to even: bfloat16, but for what it cannot hold.
template <class Real>
Real round_to_half(Real a) {
    int exponent;
    const Real share = std::frexp(a, &exponent);  // 0.5 <= |share| < 1
    return std::ldexp(std::nearbyint(share * 256), exponent - 8);
}

template <class Real>
Array<Real> rounded(const Problem<Real>& q, Array<Real> a) {
    if (q.half)
        for (Real& value : a) value = round_to_half(value);
    return a;
}

// Rows [from, to) of W times v
template <class Real>
Array<Real> times(const Problem<Real>& q, const Array<Real>& w, int64_t from, int64_t to, const Array<Real>& v) {
    const int64_t inputs = static_cast<int64_t>(v.size());
    const Array<Real> seen = rounded(q, v);
    Array<Real> u(to - from, 0);
    for (int64_t o = from; o < to; ++o)
        for (int64_t i = 0; i < inputs; ++i) {
            const Real weight = w[o * inputs + i];
            u[o - from] += (q.half ? round_to_half(weight) : weight) * seen[i];
        }
    return u;
}

// v += the transpose of rows [from, to) of W, times u
template <class Real>
void add_transposed(const Problem<Real>& q, const Array<Real>& w, int64_t from, int64_t to, const Array<Real>& u,
                    Array<Real>& v) {
    const int64_t inputs = static_cast<int64_t>(v.size());
    const Array<Real> seen = rounded(q, u);
    for (int64_t o = from; o < to; ++o)
        for (int64_t i = 0; i < inputs; ++i) {
            const Real weight = w[o * inputs + i];
            v[i] += (q.half ? round_to_half(weight) : weight) * seen[o - from];
        }
}

// xhat = (u - mean u) * rstd; returns rstd = 1 / sqrt(variance u + 1e-5)
template <class Real>
Real normalise(Array<Real>& u) {
    const Real size = static_cast<Real>(u.size());
    Real mean = 0, variance = 0;
    for (Real value : u) mean += value / size;
    for (Real value : u) variance += (value - mean) * (value - mean) / size;
    const Real rstd = 1 / std::sqrt(variance + static_cast<Real>(1e-5));
    for (Real& value : u) value = (value - mean) * rstd;
    return rstd;
}

// du = rstd * (dxhat - mean dxhat - xhat * mean(dxhat * xhat))
template <class Real>
Array<Real> normalise_back(const Array<Real>& dxhat, const Array<Real>& xhat, Real rstd) {
    const Real size = static_cast<Real>(xhat.size());
    Real mean = 0, along = 0;
    for (std::size_t j = 0; j < xhat.size(); ++j) mean += dxhat[j] / size, along += dxhat[j] * xhat[j] / size;
    Array<Real> du(xhat.size());
    for (std::size_t j = 0; j < xhat.size(); ++j) du[j] = rstd * (dxhat[j] - mean - xhat[j] * along);
    return du;
}

// Forward -------------------------------------------------------------------------------------------------------------

// Columns [from, to) of a product u of row n become gain * xhat of it. They are group 0 of the norm, or group 1.
template <class Real>
void norm(const Problem<Real>& q, const Array<Real>& gain, int64_t n, int64_t from, Array<Real>& u, Array<Real>& xhat,
          Array<Real>& rstd) {
    if (gain.empty()) return;
    rstd[n * q.groups() + (from > 0)] = normalise(u);
    for (std::size_t j = 0; j < u.size(); ++j) {
        xhat[n * q.columns() + from + j] = u[j];
        u[j] *= gain[from + j];
    }
}

// Where the second group of a norm begins.
template <class Real>
int64_t split(const Problem<Real>& q) {
    return q.law == Law::gru ? 2 * q.hidden : q.columns();
}

// W_x x + b, or gain * xhat + b
template <class Real>
Array<Real> input_part(const Problem<Real>& q, Result<Real>& k, int64_t n) {
    const Array<Real> x = row(q.x, n, q.inputs);
    Array<Real> all;
    for (int64_t from = 0; from < q.columns(); from = from ? q.columns() : split(q)) {
        Array<Real> u = times(q, q.w_x, from, from ? q.columns() : split(q), x);
        norm(q, q.gain_x, n, from, u, k.xhat_x, k.rstd_x);
        all.insert(all.end(), u.begin(), u.end());
    }
    for (int64_t j = 0; j < q.columns(); ++j) all[j] += q.b[j];
    return all;
}

// Columns [from, to) of the recurrent part, W_h v, or gain * xhat of it.
template <class Real>
Array<Real> recurrent_part(const Problem<Real>& q, Result<Real>& k, int64_t n, int64_t from, int64_t to,
                           const Array<Real>& v) {
    Array<Real> u = times(q, q.w_h, from, to, v);
    norm(q, q.gain_h, n, from, u, k.xhat_h, k.rstd_h);
    return u;
}

// mask * h, what the recurrent product sees
template <class Real>
Array<Real> masked(const Problem<Real>& q, int64_t sequence, Array<Real> h) {
    if (!q.mask.empty())
        for (int64_t j = 0; j < q.width; ++j) h[j] *= q.mask[sequence * q.width + j];
    return h;
}

template <class Real>
Array<Real> elman_step(const Problem<Real>& q, Result<Real>& k, const Step& t, const Array<Real>& h) {
    const Array<Real> p = input_part(q, k, t.row);
    const Array<Real> u = recurrent_part(q, k, t.row, 0, q.hidden, masked(q, t.sequence, h));
    Array<Real> y(q.hidden);
    for (int64_t j = 0; j < q.hidden; ++j) y[j] = activate(q.activation, p[j] + u[j]);
    put(k.gates, t.row, y);
    return y;
}

// c is advanced.
template <class Real>
Array<Real> lstm_step(const Problem<Real>& q, Result<Real>& k, const Step& t, const Array<Real>& h, Array<Real>& c) {
    const int64_t H = q.hidden;
    const Array<Real> p = input_part(q, k, t.row);
    const Array<Real> u = recurrent_part(q, k, t.row, 0, 4 * H, masked(q, t.sequence, h));
    Array<Real> peep = q.peepholes.empty() ? Array<Real>(3 * H, 0) : q.peepholes;
    Array<Real> gates(4 * H), c_new(H), m(H);
    for (int64_t j = 0; j < H; ++j) {
        const Real i = sigmoid(p[j] + u[j] + peep[j] * c[j]);
        const Real f = sigmoid(p[H + j] + u[H + j] + peep[H + j] * c[j]);
        const Real g = std::tanh(p[2 * H + j] + u[2 * H + j]);
        c_new[j] = f * c[j] + i * g;
        const Real o = sigmoid(p[3 * H + j] + u[3 * H + j] + peep[2 * H + j] * c_new[j]);
        gates[j] = i, gates[H + j] = f, gates[2 * H + j] = g, gates[3 * H + j] = o;
    }
    Array<Real> seen = c_new;
    if (!q.gain_c.empty()) {
        k.rstd_c[t.row] = normalise(seen);
        put(k.chat, t.row, seen);
        for (int64_t j = 0; j < H; ++j) seen[j] = q.gain_c[j] * seen[j] + q.bias_c[j];
    }
    for (int64_t j = 0; j < H; ++j) {
        m[j] = gates[3 * H + j] * std::tanh(seen[j]);
        const Real share = kept_share(q.keep_c, q.rate_c, t.row * H + j);
        c[j] = share * c[j] + (1 - share) * c_new[j];
    }
    put(k.gates, t.row, gates);
    put(k.c, t.row, c);
    if (q.w_r.empty()) return m;
    put(k.m, t.row, m);
    return times(q, q.w_r, 0, q.width, m);
}

template <class Real>
Array<Real> gru_step(const Problem<Real>& q, Result<Real>& k, const Step& t, const Array<Real>& h) {
    const int64_t H = q.hidden;
    const Array<Real> p = input_part(q, k, t.row), seen = masked(q, t.sequence, h);
    Array<Real> gates = recurrent_part(q, k, t.row, 0, 2 * H, seen), reset = seen, y(H);
    gates.resize(4 * H);
    for (int64_t j = 0; j < 2 * H; ++j) gates[j] = sigmoid(p[j] + gates[j]);
    for (int64_t j = 0; j < H; ++j) reset[j] *= gates[j];
    Array<Real> u = recurrent_part(q, k, t.row, 2 * H, 3 * H, q.reset_after ? seen : reset);
    for (int64_t j = 0; j < H; ++j) {
        const Real r = gates[j], z = gates[H + j];
        if (q.reset_after) u[j] += q.b_hn[j];
        const Real n = std::tanh(p[2 * H + j] + (q.reset_after ? r * u[j] : u[j]));
        gates[2 * H + j] = n, gates[3 * H + j] = q.reset_after ? u[j] : 0;
        y[j] = (1 - z) * n + z * h[j];
    }
    put(k.gates, t.row, gates);
    return y;
}

template <class Real>
Result<Real> forward(const Problem<Real>& q) {
    const int64_t N = q.steps(), H = q.hidden, R = q.width;
    Result<Real> k;
    k.y.resize(N * R), k.h_last = q.h0, k.c_last = q.c0;
    k.gates.resize(N * q.kept_columns());
    if (!q.gain_h.empty()) {
        k.xhat_x.resize(N * q.columns()), k.rstd_x.resize(N * q.groups());
        k.xhat_h.resize(N * q.columns()), k.rstd_h.resize(N * q.groups());
    }
    if (q.law == Law::lstm) k.c.resize(N * H);
    if (!q.gain_c.empty()) k.chat.resize(N * H), k.rstd_c.resize(N);
    if (!q.w_r.empty()) k.m.resize(N * H);
    for (const Step& t : in_time(q.lengths, q.reverse)) {
        const Array<Real> h = row(k.h_last, t.sequence, R);
        Array<Real> next, c;
        if (q.law == Law::elman) next = elman_step(q, k, t, h);
        if (q.law == Law::gru) next = gru_step(q, k, t, h);
        if (q.law == Law::lstm) {
            c = row(k.c_last, t.sequence, H);
            next = lstm_step(q, k, t, h, c);
            put(k.c_last, t.sequence, c);
        }
        for (int64_t j = 0; j < R; ++j) {
            const Real share = kept_share(q.keep_h, q.rate_h, t.row * R + j);
            next[j] = share * h[j] + (1 - share) * next[j];
        }
        put(k.y, t.row, next);
        put(k.h_last, t.sequence, next);
    }
    return k;
}

// Backward ------------------------------------------------------------------------------------------------------------

// The state before a step.
template <class Real>
Array<Real> state_before(const Array<Real>& initial, const Array<Real>& after, const Step& t, int64_t width) {
    return t.before < 0 ? row(initial, t.sequence, width) : row(after, t.before, width);
}

// From the gradient of columns [from, ..) of gain * xhat to that of the product, which is kept.
template <class Real>
Array<Real> norm_back(const Problem<Real>& q, const Array<Real>& gain, const Array<Real>& xhat, const Array<Real>& rstd,
                      int64_t n, int64_t from, Array<Real> d, Array<Real>& du) {
    if (gain.empty()) return d;
    Array<Real> own(d.size());
    for (std::size_t j = 0; j < d.size(); ++j) own[j] = xhat[n * q.columns() + from + j], d[j] *= gain[from + j];
    d = normalise_back(d, own, rstd[n * q.groups() + (from > 0)]);
    for (std::size_t j = 0; j < d.size(); ++j) du[n * q.columns() + from + j] = d[j];
    return d;
}

// Of the input part, whose gradient is the first columns of d.
template <class Real>
void input_part_back(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, int64_t n) {
    const auto first = g.d.begin() + n * q.kept_columns();
    for (int64_t from = 0; from < q.columns(); from = from ? q.columns() : split(q)) {
        const Array<Real> d(first + from, first + (from ? q.columns() : split(q)));
        norm_back(q, q.gain_x, k.xhat_x, k.rstd_x, n, from, d, g.du_x);
    }
}

// From the gradient of columns [from, to) of the recurrent part to that of the vector it was made of, added to dv.
template <class Real>
void recurrent_part_back(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, int64_t n, int64_t from,
                         int64_t to, Array<Real> du, Array<Real>& dv) {
    du = norm_back(q, q.gain_h, k.xhat_h, k.rstd_h, n, from, du, g.du_h);
    add_transposed(q, q.w_h, from, to, du, dv);
}

// Each takes dnext, the gradient of h~, gives that of mask * h, and adds to dh what reaches h on another way.
template <class Real>
Array<Real> elman_back(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, const Step& t,
                       const Array<Real>& dnext) {
    Array<Real> d = dnext, dseen(q.width, 0);
    for (int64_t j = 0; j < q.hidden; ++j) d[j] *= slope(q.activation, k.gates[t.row * q.hidden + j]);
    put(g.d, t.row, d);
    recurrent_part_back(q, k, g, t.row, 0, q.hidden, d, dseen);
    return dseen;
}

// dc, the gradient of c after the step, becomes that of c before it.
template <class Real>
Array<Real> lstm_back(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, const Step& t,
                      const Array<Real>& dnext, Array<Real>& dc) {
    const int64_t H = q.hidden;
    const Array<Real> c = state_before(q.c0, k.c, t, H), gates = row(k.gates, t.row, 4 * H);
    const Array<Real> peep = q.peepholes.empty() ? Array<Real>(3 * H, 0) : q.peepholes;
    const Real *i = gates.data(), *f = i + H, *c_in = i + 2 * H, *o = i + 3 * H;
    Array<Real> dm = dnext, dseen_c(H), d(4 * H), dseen(q.width, 0);
    if (!q.w_r.empty()) {
        put(g.dm_out, t.row, dnext);
        dm.assign(H, 0);
        add_transposed(q, q.w_r, 0, q.width, dnext, dm);
    }
    for (int64_t j = 0; j < H; ++j) {
        Real seen = f[j] * c[j] + i[j] * c_in[j];
        if (!q.gain_c.empty()) seen = q.gain_c[j] * k.chat[t.row * H + j] + q.bias_c[j];
        const Real squashed = std::tanh(seen);
        d[3 * H + j] = dm[j] * squashed * o[j] * (1 - o[j]);
        dseen_c[j] = dm[j] * o[j] * (1 - squashed * squashed);
    }
    Array<Real> dc_new = dseen_c;
    if (!q.gain_c.empty()) {
        for (int64_t j = 0; j < H; ++j) {
            g.dgain_c[t.sequence * H + j] += dseen_c[j] * k.chat[t.row * H + j];
            g.dbias_c[t.sequence * H + j] += dseen_c[j];
            dseen_c[j] *= q.gain_c[j];
        }
        dc_new = normalise_back(dseen_c, row(k.chat, t.row, H), k.rstd_c[t.row]);
    }
    for (int64_t j = 0; j < H; ++j) {
        const Real share = kept_share(q.keep_c, q.rate_c, t.row * H + j);
        dc_new[j] += (1 - share) * dc[j] + peep[2 * H + j] * d[3 * H + j];
        d[j] = dc_new[j] * c_in[j] * i[j] * (1 - i[j]);
        d[H + j] = dc_new[j] * c[j] * f[j] * (1 - f[j]);
        d[2 * H + j] = dc_new[j] * i[j] * (1 - c_in[j] * c_in[j]);
        dc[j] = share * dc[j] + dc_new[j] * f[j] + peep[j] * d[j] + peep[H + j] * d[H + j];
    }
    put(g.d, t.row, d);
    recurrent_part_back(q, k, g, t.row, 0, 4 * H, d, dseen);
    return dseen;
}

template <class Real>
Array<Real> gru_back(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, const Step& t,
                     const Array<Real>& h, const Array<Real>& dnext, Array<Real>& dh) {
    const int64_t H = q.hidden;
    const Array<Real> seen = masked(q, t.sequence, h), gates = row(k.gates, t.row, 4 * H);
    const Real *r = gates.data(), *z = r + H, *n = r + 2 * H, *u = r + 3 * H;
    Array<Real> drz(2 * H), dn(H), du(H), dseen(H, 0), dreset(H, 0);
    for (int64_t j = 0; j < H; ++j) {
        dn[j] = dnext[j] * (1 - z[j]) * (1 - n[j] * n[j]);
        du[j] = q.reset_after ? dn[j] * r[j] : dn[j];
        drz[H + j] = dnext[j] * (h[j] - n[j]) * z[j] * (1 - z[j]);
        dh[j] += dnext[j] * z[j];
    }
    recurrent_part_back(q, k, g, t.row, 2 * H, 3 * H, du, q.reset_after ? dseen : dreset);
    for (int64_t j = 0; j < H; ++j) {
        const Real dr = q.reset_after ? dn[j] * u[j] : dreset[j] * seen[j];
        drz[j] = dr * r[j] * (1 - r[j]);
        if (!q.reset_after) dseen[j] += dreset[j] * r[j];
    }
    recurrent_part_back(q, k, g, t.row, 0, 2 * H, drz, dseen);
    for (int64_t j = 0; j < H; ++j) {
        Real* d = &g.d[t.row * 4 * H];
        d[j] = drz[j], d[H + j] = drz[H + j], d[2 * H + j] = dn[j], d[3 * H + j] = du[j];
    }
    return dseen;
}

// The gradients of biases and gains, step by step.
template <class Real>
void sum_up(const Problem<Real>& q, const Result<Real>& k, Gradients<Real>& g, const Step& t) {
    const int64_t D = q.kept_columns(), G = q.columns();
    for (int64_t j = 0; j < D; ++j) g.d_sum[t.sequence * D + j] += g.d[t.row * D + j];
    for (int64_t j = 0; j < G && !q.gain_h.empty(); ++j) {
        const bool is_last = q.law == Law::gru && j >= 2 * q.hidden;  // du stands apart
        const Real d = g.d[t.row * D + j], d_h = is_last ? g.d[t.row * D + j + q.hidden] : d;
        g.dgain_x[t.sequence * G + j] += d * k.xhat_x[t.row * G + j];
        g.dgain_h[t.sequence * G + j] += d_h * k.xhat_h[t.row * G + j];
    }
}

template <class Real>
Gradients<Real> backward(const Problem<Real>& q, const Result<Real>& k) {
    const int64_t N = q.steps(), H = q.hidden, R = q.width;
    Gradients<Real> g;
    g.d.resize(N * q.kept_columns());
    g.d_sum.resize(q.count() * q.kept_columns());
    if (!q.gain_h.empty()) {
        g.du_x.resize(N * q.columns()), g.du_h.resize(N * q.columns());
        g.dgain_x.resize(q.count() * q.columns()), g.dgain_h.resize(q.count() * q.columns());
    }
    if (!q.w_r.empty()) g.dm_out.resize(N * R);
    if (!q.gain_c.empty()) g.dgain_c.resize(q.count() * H), g.dbias_c.resize(q.count() * H);
    g.dh0 = q.dh_last.empty() ? Array<Real>(q.count() * R, 0) : q.dh_last;
    if (q.law == Law::lstm) g.dc0 = q.dc_last.empty() ? Array<Real>(q.count() * H, 0) : q.dc_last;
    const std::vector<Step> steps = in_time(q.lengths, q.reverse);
    for (auto t = steps.rbegin(); t != steps.rend(); ++t) {
        const Array<Real> h = state_before(q.h0, k.y, *t, R);
        Array<Real> dh = row(g.dh0, t->sequence, R), dnext(R), dseen, dc;
        for (int64_t j = 0; j < R; ++j) {
            if (!q.dy.empty()) dh[j] += q.dy[t->row * R + j];
            const Real share = kept_share(q.keep_h, q.rate_h, t->row * R + j);
            dnext[j] = (1 - share) * dh[j];
            dh[j] *= share;
        }
        if (q.law == Law::elman) dseen = elman_back(q, k, g, *t, dnext);
        if (q.law == Law::gru) dseen = gru_back(q, k, g, *t, h, dnext, dh);
        if (q.law == Law::lstm) {
            dc = row(g.dc0, t->sequence, H);
            dseen = lstm_back(q, k, g, *t, dnext, dc);
            put(g.dc0, t->sequence, dc);
        }
        input_part_back(q, k, g, t->row);
        sum_up(q, k, g, *t);
        dseen = masked(q, t->sequence, dseen);
        for (int64_t j = 0; j < R; ++j) dh[j] += dseen[j];
        put(g.dh0, t->sequence, dh);
    }
    return g;
}

}  // namespace definition
