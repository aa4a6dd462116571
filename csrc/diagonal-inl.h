// Laws whose recurrence is diagonal, forward and back; part of kernels-inl.h. docs/derivations/diagonal.md has the
// gradients.

namespace {

using segue::Diagonal;
using segue::DiagonalRow;
using segue::DiagonalRowGrad;

// A law on one vector of units; w are its rates.
//
//   step   g, the sums of the gates, become what is kept of them (see DiagonalScan), and h the state after the step
//   back   dh, the gradient of the state after the step, becomes that of h, the state before it; d is that of the sums,
//          from what was kept of them, and that of w is added to dw

struct MinGruLaw {
    static constexpr int gates = 2, states = 1, rates = 0;

    static void step(F* g, const F*, F* h) {
        const Shares<Lanes> z = shares<Lanes>(g[0]);
        h[0] = Lanes::fma(z.rest, h[0], z.share * g[1]);
        g[0] = z.share;
    }
    static void back(const F* g, const F*, const F* h, F* dh, F* d, F*) {
        const F z = g[0], n = g[1];
        d[0] = dh[0] * (n - h[0]) * sigmoid_slope(z);
        d[1] = dh[0] * z;
        dh[0] = dh[0] * (Lanes::splat(1.0f) - z);
    }
};

struct MinLstmLaw {
    static constexpr int gates = 3, states = 1, rates = 0;

    // With e = exp(-|a|), sigmoid(a) = exp(min(a, 0)) / (1 + e). So f / (f + i) can be scaled by the larger of both
    // exponentials, which neither over- nor underflows.
    static void step(F* g, const F*, F* h) {
        const F zero = Lanes::splat(0.0f), one = Lanes::splat(1.0f);
        const F e_i = exp<Lanes>(minus_size_of<Lanes>(g[0])), e_f = exp<Lanes>(minus_size_of<Lanes>(g[1]));
        const F apart = Lanes::select(g[0] > zero, zero, g[0]) - Lanes::select(g[1] > zero, zero, g[1]);
        const F smaller = exp<Lanes>(minus_size_of<Lanes>(apart));
        const F i = Lanes::select(apart < zero, smaller, one) * (one + e_f);
        const F f = Lanes::select(apart < zero, one, smaller) * (one + e_i);
        const F scale = one / (i + f);
        h[0] = Lanes::fma(f * scale, h[0], i * scale * g[2]);
        g[0] = Lanes::select(g[0] < zero, e_i, one) / (one + e_i);
        g[1] = Lanes::select(g[1] < zero, e_f, one) / (one + e_f);
    }
    static void back(const F* g, const F*, const F* h, F* dh, F* d, F*) {
        const F i = g[0], f = g[1], least = Lanes::splat(1e-37f);
        const F scale = Lanes::splat(1.0f) / Lanes::larger(least, i + f), fresh = i * scale, old = f * scale;
        const F along = dh[0] * (g[2] - h[0]) * (old * fresh);
        d[0] = Lanes::fnma(along, i, along);
        d[1] = Lanes::fma(along, f, negative(along));
        d[2] = dh[0] * fresh;
        dh[0] = dh[0] * old;
    }
};

class RgLruLaw {
    static constexpr float kLeast = 1e-12f;
    // a = exp(-rate r) and scale = sqrt(1 - a^2), of at least 1e-6; 1 - a comes without cancellation, see Exp.
    struct Kept {
        F a, square, scale;

        auto is_least() const { return square < Lanes::splat(kLeast); }
        Kept(F r, F rate) {
            const F one = Lanes::splat(1.0f);
            const Exp<Lanes> exp = exp_of_negative<Lanes>(negative(rate * r));
            a = Lanes::fma(exp.power, exp.part, exp.power);
            square = Lanes::fnma(exp.power, exp.part, one - exp.power) * (one + a);
            scale = Lanes::root(Lanes::select(is_least(), Lanes::splat(kLeast), square));
        }
    };

   public:
    static constexpr int gates = 3, states = 1, rates = 1;

    static void step(F* g, const F* w, F* h) {
        g[0] = sigmoid<Lanes>(g[0]), g[1] = sigmoid<Lanes>(g[1]);
        const Kept kept(g[0], w[0]);
        h[0] = Lanes::fma(kept.a, h[0], kept.scale * (g[1] * g[2]));
    }
    static void back(const F* g, const F* w, const F* h, F* dh, F* d, F* dw) {
        const F r = g[0], i = g[1], v = g[2];
        const Kept kept(r, w[0]);
        const F dinput = dh[0] * kept.scale, dscale = dh[0] * (i * v);
        // d scale / d log a = -a^2 / scale
        const F away = Lanes::select(kept.is_least(), Lanes::splat(0.0f), dscale * kept.a / kept.scale);
        const F dlog_a = (dh[0] * h[0] - away) * kept.a;
        d[0] = negative(dlog_a) * w[0] * sigmoid_slope(r);
        d[1] = dinput * v * sigmoid_slope(i);
        d[2] = dinput * i;
        dw[0] = Lanes::fnma(dlog_a, r, dw[0]);
        dh[0] = dh[0] * kept.a;
    }
};

// The real parts, then the imaginary ones.
struct S5Law {
    static constexpr int gates = 2, states = 2, rates = 2;

    static void step(F* g, const F* w, F* h) {
        const F re = h[0], im = h[1];
        h[0] = Lanes::fma(w[0], re, Lanes::fnma(w[1], im, g[0]));
        h[1] = Lanes::fma(w[0], im, Lanes::fma(w[1], re, g[1]));
    }
    static void back(const F*, const F* w, const F* h, F* dh, F* d, F* dw) {
        const F re = dh[0], im = dh[1];
        d[0] = re, d[1] = im;
        dw[0] = Lanes::fma(re, h[0], Lanes::fma(im, h[1], dw[0]));
        dw[1] = Lanes::fma(im, h[0], Lanes::fnma(re, h[1], dw[1]));
        dh[0] = Lanes::fma(w[0], re, w[1] * im);
        dh[1] = Lanes::fnma(w[1], re, w[0] * im);
    }
};

// Vectors of an array whose parts, of `hidden` units each, stand one after the other.
template <int Count>
inline void load_parts(const float* from, int64_t hidden, Lanes::Mask mask, F* to) {
    for (int k = 0; k < Count; ++k) to[k] = Lanes::load(from + k * hidden, mask);
}

template <int Count>
inline void store_parts(float* to, int64_t hidden, Lanes::Mask mask, const F* from) {
    for (int k = 0; k < Count; ++k) Lanes::store(to + k * hidden, from[k], mask);
}

// The law for Advance. Rows may follow each other in time: the state of one is then what the one before it has written.
template <class Law>
struct DiagonalUnits {
    using Row = DiagonalRow;
    static constexpr int gates = Law::gates, sums = Law::gates;
    static constexpr int x_at(int gate) { return gate; }
    static constexpr int h_at(int gate) { return gate; }
    int64_t hidden;
    const float* rates;

    F start(const float* row, int sum, int64_t at, Lanes::Mask mask) const {
        return Lanes::load(row + sum * hidden + at, mask);
    }
    void operator()(const DiagonalRow& row, int64_t at, Lanes::Mask mask, const float* sums, int64_t apart) const {
        F g[gates], w[Law::rates + 1], h[Law::states];
        load_parts<gates>(sums, apart, mask, g);
        if (Law::rates) load_parts<Law::rates>(rates + at, hidden, mask, w);
        load_parts<Law::states>(row.h + at, hidden, mask, h);
        Law::step(g, w, h);
        if (row.gates) store_parts<gates>(row.gates + at, hidden, mask, g);
        store_parts<Law::states>(row.y + at, hidden, mask, h);
    }
};

template <class Law>
void units_back(const DiagonalRowGrad& row, int64_t from, int64_t to) {
    const int64_t H = row.hidden;
    for (int64_t at = from; at < to; at += kLanes) {
        const Lanes::Mask mask = Lanes::first(to - at < kLanes ? to - at : kLanes);
        F g[Law::gates], w[Law::rates + 1], h[Law::states], dh[Law::states], dy[Law::states];
        F d[Law::gates], d_sum[Law::gates], dw[Law::rates + 1];
        load_parts<Law::gates>(row.gates + at, H, mask, g);
        if (Law::rates) load_parts<Law::rates>(row.rates + at, H, mask, w);
        load_parts<Law::rates>(row.drates + at, H, mask, dw);
        load_parts<Law::states>(row.h + at, H, mask, h);
        load_parts<Law::states>(row.dh + at, H, mask, dh);
        if (row.dy) {
            load_parts<Law::states>(row.dy + at, H, mask, dy);
            for (int k = 0; k < Law::states; ++k) dh[k] = dh[k] + dy[k];
        }
        Law::back(g, w, h, dh, d, dw);
        load_parts<Law::gates>(row.d_sum + at, H, mask, d_sum);
        for (int k = 0; k < Law::gates; ++k) d_sum[k] = d_sum[k] + d[k];
        store_parts<Law::gates>(row.d + at, H, mask, d);
        store_parts<Law::gates>(row.d_sum + at, H, mask, d_sum);
        store_parts<Law::rates>(row.drates + at, H, mask, dw);
        store_parts<Law::states>(row.dh + at, H, mask, dh);
    }
}

template <class Body>
inline void with_law(Diagonal law, Body body) {
    switch (law) {
        case Diagonal::min_gru: return body(MinGruLaw{});
        case Diagonal::min_lstm: return body(MinLstmLaw{});
        case Diagonal::rg_lru: return body(RgLruLaw{});
        default: return body(S5Law{});
    }
}

void advance_diagonal(Diagonal law, const Step& step, const DiagonalRow* rows, const float* rates) {
    with_law(law, [&](auto one) {
        using Law = decltype(one);
        Advance<DiagonalUnits<Law>>({step.w_h.outputs / Law::gates, rates}, step, rows).run();
    });
}

void diagonal_back(Diagonal law, const DiagonalRowGrad& row, int64_t from, int64_t to) {
    with_law(law, [&](auto one) { units_back<decltype(one)>(row, from, to); });
}

}  // namespace
