// Laws whose recurrence is diagonal, forward and back; part of kernels-inl.h. docs/derivations/diagonal.md has the
// gradients.

namespace {

using segue::Diagonal;
using segue::DiagonalRow;
using segue::DiagonalRowGrad;

// A law on one vector of units: p are the sums of its gates, w its rates.
//
//   step   h becomes the state after the step
//   back   dh, the gradient of the state after the step, becomes that of h, the state before it; d is that of p, and
//          that of w is added to dw

struct MinGruLaw {
    static constexpr int gates = 2, states = 1, rates = 0;

    static void step(const F* p, const F*, F* h) {
        const Shares<Lanes> z = shares<Lanes>(p[0]);
        h[0] = Lanes::fma(z.rest, h[0], z.share * p[1]);
    }
    static void back(const F* p, const F*, const F* h, F* dh, F* d, F*) {
        const Shares<Lanes> z = shares<Lanes>(p[0]);
        d[0] = dh[0] * (p[1] - h[0]) * (z.share * z.rest);
        d[1] = dh[0] * z.share;
        dh[0] = dh[0] * z.rest;
    }
};

struct MinLstmLaw {
    static constexpr int gates = 3, states = 1, rates = 0;

    static void step(const F* p, const F*, F* h) {
        const Parts parts(p[0], p[1]);
        h[0] = Lanes::fma(parts.old, h[0], parts.fresh * p[2]);
    }
    static void back(const F* p, const F*, const F* h, F* dh, F* d, F*) {
        const Parts parts(p[0], p[1]);
        const F along = dh[0] * (p[2] - h[0]) * (parts.old * parts.fresh);
        d[0] = along * rest_of(p[0], parts.e_i);
        d[1] = negative(along) * rest_of(p[1], parts.e_f);
        d[2] = dh[0] * parts.fresh;
        dh[0] = dh[0] * parts.old;
    }

   private:
    // old = f / (f + i) and fresh = i / (f + i). With e = exp(-|a|), sigmoid(a) = exp(min(a, 0)) / (1 + e), so that
    // what is divided can be scaled by the larger of both exponentials: it neither over- nor underflows.
    struct Parts {
        F e_i, e_f, old, fresh;

        Parts(F a_i, F a_f) : e_i(exp<Lanes>(minus_size_of<Lanes>(a_i))), e_f(exp<Lanes>(minus_size_of<Lanes>(a_f))) {
            const F zero = Lanes::splat(0.0f), one = Lanes::splat(1.0f);
            const F apart = Lanes::select(a_i > zero, zero, a_i) - Lanes::select(a_f > zero, zero, a_f);
            const F smaller = exp<Lanes>(minus_size_of<Lanes>(apart));
            const F i = Lanes::select(apart < zero, smaller, one) * (one + e_f);
            const F f = Lanes::select(apart < zero, one, smaller) * (one + e_i);
            const F scale = one / (i + f);
            old = f * scale, fresh = i * scale;
        }
    };
    // 1 - sigmoid(a), with e = exp(-|a|)
    static F rest_of(F a, F e) {
        const F one = Lanes::splat(1.0f);
        return Lanes::select(a < Lanes::splat(0.0f), one, e) / (one + e);
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

    static void step(const F* p, const F* w, F* h) {
        const Kept kept(sigmoid<Lanes>(p[0]), w[0]);
        h[0] = Lanes::fma(kept.a, h[0], kept.scale * (sigmoid<Lanes>(p[1]) * p[2]));
    }
    static void back(const F* p, const F* w, const F* h, F* dh, F* d, F* dw) {
        const F r = sigmoid<Lanes>(p[0]), i = sigmoid<Lanes>(p[1]);
        const Kept kept(r, w[0]);
        const F dinput = dh[0] * kept.scale, dscale = dh[0] * (i * p[2]);
        // d scale / d log a = -a^2 / scale
        const F away = Lanes::select(kept.is_least(), Lanes::splat(0.0f), dscale * kept.a / kept.scale);
        const F dlog_a = (dh[0] * h[0] - away) * kept.a;
        d[0] = negative(dlog_a) * w[0] * sigmoid_slope(r);
        d[1] = dinput * p[2] * sigmoid_slope(i);
        d[2] = dinput * i;
        dw[0] = Lanes::fnma(dlog_a, r, dw[0]);
        dh[0] = dh[0] * kept.a;
    }
};

// The real parts, then the imaginary ones.
struct S5Law {
    static constexpr int gates = 2, states = 2, rates = 2;

    static void step(const F* p, const F* w, F* h) {
        const F re = h[0], im = h[1];
        h[0] = Lanes::fma(w[0], re, Lanes::fnma(w[1], im, p[0]));
        h[1] = Lanes::fma(w[0], im, Lanes::fma(w[1], re, p[1]));
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
        F p[gates], w[Law::rates + 1], h[Law::states];
        load_parts<gates>(sums, apart, mask, p);
        if (Law::rates) load_parts<Law::rates>(rates + at, hidden, mask, w);
        load_parts<Law::states>(row.h + at, hidden, mask, h);
        if (row.gates) store_parts<gates>(row.gates + at, hidden, mask, p);
        Law::step(p, w, h);
        store_parts<Law::states>(row.y + at, hidden, mask, h);
    }
};

template <class Law>
void units_back(const DiagonalRowGrad& row, int64_t from, int64_t to) {
    const int64_t H = row.hidden;
    for (int64_t at = from; at < to; at += kLanes) {
        const Lanes::Mask mask = Lanes::first(to - at < kLanes ? to - at : kLanes);
        F p[Law::gates], w[Law::rates + 1], h[Law::states], dh[Law::states], dy[Law::states];
        F d[Law::gates], d_sum[Law::gates], dw[Law::rates + 1];
        load_parts<Law::gates>(row.gates + at, H, mask, p);
        if (Law::rates) load_parts<Law::rates>(row.rates + at, H, mask, w);
        load_parts<Law::rates>(row.drates + at, H, mask, dw);
        load_parts<Law::states>(row.h + at, H, mask, h);
        load_parts<Law::states>(row.dh + at, H, mask, dh);
        if (row.dy) {
            load_parts<Law::states>(row.dy + at, H, mask, dy);
            for (int k = 0; k < Law::states; ++k) dh[k] = dh[k] + dy[k];
        }
        Law::back(p, w, h, dh, d, dw);
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
