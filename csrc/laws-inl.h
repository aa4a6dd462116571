// The pointwise laws, one row at a time, forward and back; part of kernels-inl.h. docs/derivations has the gradients.

namespace {

using segue::GruRow;
using segue::GruRowGrad;
using segue::LstmRow;
using segue::LstmRowGrad;

void lstm(const LstmRow& row) {
    const int64_t H = row.hidden;
    const float* p = row.peepholes;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F c = Lanes::load(row.c + at, mask);
        F ai = Lanes::load(gates, mask), af = Lanes::load(gates + H, mask), ao = Lanes::load(gates + 3 * H, mask);
        if (p) {
            ai = Lanes::fma(Lanes::load(p + at, mask), c, ai);
            af = Lanes::fma(Lanes::load(p + H + at, mask), c, af);
        }
        const F i = sigmoid<Lanes>(ai), f = sigmoid<Lanes>(af), g = tanh<Lanes>(Lanes::load(gates + 2 * H, mask));
        const F next = Lanes::fma(f, c, i * g);
        if (p) ao = Lanes::fma(Lanes::load(p + 2 * H + at, mask), next, ao);
        const F o = sigmoid<Lanes>(ao);
        Lanes::store(gates, i, mask);
        Lanes::store(gates + H, f, mask);
        Lanes::store(gates + 2 * H, g, mask);
        Lanes::store(gates + 3 * H, o, mask);
        Lanes::store(row.c_new + at, next, mask);
        if (!row.gain_c) Lanes::store(row.m + at, o * tanh<Lanes>(next), mask);
    });
    if (!row.gain_c) return;
    *row.rstd_c = standardize(H, row.c_new, row.chat);
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const F s = Lanes::fma(Lanes::load(row.gain_c + at, mask), Lanes::load(row.chat + at, mask),
                               Lanes::load(row.bias_c + at, mask));
        Lanes::store(row.m + at, Lanes::load(row.gates + 3 * H + at, mask) * tanh<Lanes>(s), mask);
    });
}

// do and, through tanh, the gradient of what it was taken of, into dnorm_c.
void lstm_output_back(const LstmRowGrad& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F o = Lanes::load(gates + 3 * H, mask), dm = Lanes::load(row.dm + at, mask);
        F s;
        if (row.gain_c) {
            s = Lanes::fma(Lanes::load(row.gain_c + at, mask), Lanes::load(row.chat + at, mask),
                           Lanes::load(row.bias_c + at, mask));
        } else {
            const F i = Lanes::load(gates, mask), f = Lanes::load(gates + H, mask);
            s = Lanes::fma(f, Lanes::load(row.c + at, mask), i * Lanes::load(gates + 2 * H, mask));
        }
        const F t = tanh<Lanes>(s);
        Lanes::store(row.d + 3 * H + at, dm * t * sigmoid_slope(o), mask);
        Lanes::store(row.dnorm_c + at, dm * o * tanh_slope(t), mask);
    });
}

void lstm_back(const LstmRowGrad& row) {
    const int64_t H = row.hidden;
    const float *p = row.peepholes, *through = row.dnorm_c;
    lstm_output_back(row);
    if (row.gain_c) {
        normalize_row_back(H, row.chat, *row.rstd_c, row.gain_c, row.dnorm_c, row.spare);
        through = row.spare;
    }
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F i = Lanes::load(gates, mask), f = Lanes::load(gates + H, mask), g = Lanes::load(gates + 2 * H, mask);
        const F c = Lanes::load(row.c + at, mask);
        F dc = Lanes::load(row.dc + at, mask) + Lanes::load(through + at, mask);
        if (p) dc = Lanes::fma(Lanes::load(row.d + 3 * H + at, mask), Lanes::load(p + 2 * H + at, mask), dc);
        const F di = dc * g * sigmoid_slope(i), df = dc * c * sigmoid_slope(f), dg = dc * i * tanh_slope(g);
        F before = dc * f;
        if (p) {
            before = Lanes::fma(di, Lanes::load(p + at, mask), before);
            before = Lanes::fma(df, Lanes::load(p + H + at, mask), before);
        }
        Lanes::store(row.d + at, di, mask);
        Lanes::store(row.d + H + at, df, mask);
        Lanes::store(row.d + 2 * H + at, dg, mask);
        Lanes::store(row.dc + at, before, mask);
    });
}

void gru_after(const GruRow& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F r = sigmoid<Lanes>(Lanes::load(gates, mask)), z = sigmoid<Lanes>(Lanes::load(gates + H, mask));
        const F u = Lanes::load(gates + 3 * H, mask);
        const F n = tanh<Lanes>(Lanes::fma(r, u, Lanes::load(gates + 2 * H, mask)));
        Lanes::store(gates, r, mask);
        Lanes::store(gates + H, z, mask);
        Lanes::store(gates + 2 * H, n, mask);
        Lanes::store(row.y + at, Lanes::fma(z, Lanes::load(row.h + at, mask) - n, n), mask);
    });
}

void gru_after_back(const GruRowGrad& row) {
    const int64_t H = row.hidden;
    const F one = Lanes::splat(1.0f);
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F r = Lanes::load(gates, mask), z = Lanes::load(gates + H, mask), n = Lanes::load(gates + 2 * H, mask);
        const F u = Lanes::load(gates + 3 * H, mask), dh = Lanes::load(row.dh + at, mask);
        const F dn = dh * (one - z) * tanh_slope(n);
        Lanes::store(row.d + at, dn * u * sigmoid_slope(r), mask);
        Lanes::store(row.d + H + at, dh * (Lanes::load(row.h + at, mask) - n) * sigmoid_slope(z), mask);
        Lanes::store(row.d + 2 * H + at, dn, mask);
        Lanes::store(row.d + 3 * H + at, dn * r, mask);
        Lanes::store(row.kept + at, Lanes::fma(z, dh, Lanes::load(row.kept + at, mask)), mask);
    });
}

void gru_before(const GruRow& row, const float* h_seen, float* rh) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F r = sigmoid<Lanes>(Lanes::load(gates, mask));
        Lanes::store(gates, r, mask);
        Lanes::store(gates + H, sigmoid<Lanes>(Lanes::load(gates + H, mask)), mask);
        Lanes::store(rh + at, r * Lanes::load(h_seen + at, mask), mask);
    });
}

void gru_before_rest(const GruRow& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F z = Lanes::load(gates + H, mask), n = tanh<Lanes>(Lanes::load(gates + 2 * H, mask));
        Lanes::store(gates + 2 * H, n, mask);
        Lanes::store(row.y + at, Lanes::fma(z, Lanes::load(row.h + at, mask) - n, n), mask);
    });
}

void gru_before_back(const GruRowGrad& row) {
    const int64_t H = row.hidden;
    const F one = Lanes::splat(1.0f);
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F z = Lanes::load(gates + H, mask), n = Lanes::load(gates + 2 * H, mask);
        const F dh = Lanes::load(row.dh + at, mask), dn = dh * (one - z) * tanh_slope(n);
        Lanes::store(row.d + H + at, dh * (Lanes::load(row.h + at, mask) - n) * sigmoid_slope(z), mask);
        Lanes::store(row.d + 2 * H + at, dn, mask);
        Lanes::store(row.d + 3 * H + at, dn, mask);
        Lanes::store(row.kept + at, Lanes::fma(z, dh, Lanes::load(row.kept + at, mask)), mask);
    });
}

void gru_before_rest_back(const GruRowGrad& row, const float* h_seen, float* drh) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const F r = Lanes::load(row.gates + at, mask), d = Lanes::load(drh + at, mask);
        Lanes::store(row.d + at, d * Lanes::load(h_seen + at, mask) * sigmoid_slope(r), mask);
        Lanes::store(drh + at, d * r, mask);
    });
}

}  // namespace
