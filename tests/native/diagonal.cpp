// Diagonal laws: a definition in plain loops, the kernels against it, and what must hold to the bit.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cases.h"
#include "checks.h"
#include "compare.h"
#include "memory.h"

namespace {

using definition::Array;
using definition::in_time;
using definition::put;
using definition::row;
using definition::sigmoid;
using segue::Diagonal;
using segue::DiagonalParts;

constexpr const char* kNames[] = {"min-gru", "min-lstm", "rg-lru", "s5"};

template <class Real>
struct Asked {
    Diagonal law;
    int64_t inputs, hidden;
    std::vector<int64_t> lengths;
    bool reverse;
    Array<Real> x, w, b, rates, h0, dy, dh_last;  // the gradients may be empty: zeros

    DiagonalParts parts() const { return segue::parts_of(law); }
    int64_t columns() const { return parts().gates * hidden; }   // G
    int64_t width() const { return parts().states * hidden; }    // R
    int64_t known() const { return parts().rates * hidden; }     // W
    int64_t count() const { return static_cast<int64_t>(lengths.size()); }
    int64_t steps() const {
        int64_t sum = 0;
        for (int64_t length : lengths) sum += length;
        return sum;
    }
};

template <class Real>
struct Scanned {
    Array<Real> gates, y, h_last;
};

template <class Real>
struct Returned {
    Array<Real> d, d_sum, drates, dh0;
};

// How many gates, the first ones, have a sigmoid; they are kept behind it, the others as their sums.
int64_t sigmoids(Diagonal law) {
    return law == Diagonal::min_gru ? 1 : law == Diagonal::s5 ? 0 : 2;
}

// One unit of one step: its sums p, rates w and states h, whose parts are apart.
template <class Real>
void step(Diagonal law, const Real* p, const Real* w, Real* h) {
    switch (law) {
        case Diagonal::min_gru: {
            const Real z = sigmoid(p[0]);
            h[0] = (1 - z) * h[0] + z * p[1];
            return;
        }
        case Diagonal::min_lstm: {
            const Real i = sigmoid(p[0]), f = sigmoid(p[1]);
            h[0] = (f * h[0] + i * p[2]) / (f + i);
            return;
        }
        case Diagonal::rg_lru: {
            const Real log_a = -w[0] * sigmoid(p[0]);
            h[0] = std::exp(log_a) * h[0] + std::sqrt(-std::expm1(2 * log_a)) * sigmoid(p[1]) * p[2];
            return;
        }
        default: {
            const Real re = h[0], im = h[1];
            h[0] = w[0] * re - w[1] * im + p[0];
            h[1] = w[0] * im + w[1] * re + p[1];
        }
    }
}

// dh, the gradient of the states after the step, becomes that of those before it, h; g are the gates as they are kept.
template <class Real>
void back(Diagonal law, const Real* g, const Real* w, const Real* h, Real* dh, Real* d, Real* dw) {
    switch (law) {
        case Diagonal::min_gru: {
            const Real z = g[0];
            d[0] = dh[0] * (g[1] - h[0]) * z * (1 - z), d[1] = dh[0] * z;
            dh[0] *= 1 - z;
            return;
        }
        case Diagonal::min_lstm: {
            const Real i = g[0], f = g[1], old = f / (f + i), fresh = i / (f + i);
            const Real along = dh[0] * (g[2] - h[0]) * old * fresh;
            d[0] = along * (1 - i), d[1] = -along * (1 - f), d[2] = dh[0] * fresh;
            dh[0] *= old;
            return;
        }
        case Diagonal::rg_lru: {
            const Real r = g[0], i = g[1], v = g[2], log_a = -w[0] * r, a = std::exp(log_a);
            const Real scale = std::sqrt(-std::expm1(2 * log_a));
            const Real dlog_a = dh[0] * (h[0] * a - i * v * a * a / scale);
            d[0] = -dlog_a * w[0] * r * (1 - r);
            d[1] = dh[0] * scale * v * i * (1 - i), d[2] = dh[0] * scale * i;
            dw[0] -= dlog_a * r;
            dh[0] *= a;
            return;
        }
        default: {
            const Real re = dh[0], im = dh[1];
            d[0] = re, d[1] = im;
            dw[0] += re * h[0] + im * h[1], dw[1] += im * h[0] - re * h[1];
            dh[0] = w[0] * re + w[1] * im, dh[1] = w[0] * im - w[1] * re;
        }
    }
}

// Unit j of a row whose parts, of `hidden` units each, stand one after the other.
template <class Real>
void part(const Array<Real>& a, int64_t at, int64_t hidden, int64_t parts, Real* to) {
    for (int64_t k = 0; k < parts; ++k) to[k] = a[at + k * hidden];
}

template <class Real>
void put_part(Array<Real>& a, int64_t at, int64_t hidden, int64_t parts, const Real* from) {
    for (int64_t k = 0; k < parts; ++k) a[at + k * hidden] = from[k];
}

template <class Real>
Scanned<Real> forward(const Asked<Real>& q) {
    const int64_t H = q.hidden, G = q.columns(), R = q.width();
    Scanned<Real> k{Array<Real>(q.steps() * G), Array<Real>(q.steps() * R), q.h0};
    for (const definition::Step& t : in_time(q.lengths, q.reverse)) {
        for (int64_t g = 0; g < G; ++g) {
            Real sum = q.b[g];
            for (int64_t i = 0; i < q.inputs; ++i) sum += q.w[g * q.inputs + i] * q.x[t.row * q.inputs + i];
            k.gates[t.row * G + g] = sum;
        }
        for (int64_t j = 0; j < H; ++j) {
            Real p[3], w[2], h[2];
            part(k.gates, t.row * G + j, H, q.parts().gates, p);
            part(q.rates, j, H, q.parts().rates, w);
            part(k.h_last, t.sequence * R + j, H, q.parts().states, h);
            step(q.law, p, w, h);
            for (int64_t c = 0; c < sigmoids(q.law); ++c) k.gates[t.row * G + c * H + j] = sigmoid(p[c]);
            put_part(k.h_last, t.sequence * R + j, H, q.parts().states, h);
        }
        put(k.y, t.row, row(k.h_last, t.sequence, R));
    }
    return k;
}

template <class Real>
Returned<Real> backward(const Asked<Real>& q, const Scanned<Real>& k) {
    const int64_t H = q.hidden, G = q.columns(), R = q.width(), W = q.known(), B = q.count();
    Returned<Real> g{Array<Real>(q.steps() * G), Array<Real>(B * G), Array<Real>(B * W), q.dh_last};
    g.dh0.resize(B * R);
    const std::vector<definition::Step> steps = in_time(q.lengths, q.reverse);
    for (auto t = steps.rbegin(); t != steps.rend(); ++t) {
        const Array<Real> before = t->before < 0 ? row(q.h0, t->sequence, R) : row(k.y, t->before, R);
        for (int64_t j = 0; j < H; ++j) {
            Real gates[3], w[2], h[2], dh[2], d[3], dw[2];
            part(k.gates, t->row * G + j, H, q.parts().gates, gates);
            part(q.rates, j, H, q.parts().rates, w);
            part(before, j, H, q.parts().states, h);
            part(g.dh0, t->sequence * R + j, H, q.parts().states, dh);
            part(g.drates, t->sequence * W + j, H, q.parts().rates, dw);
            for (int64_t s = 0; s < q.parts().states && !q.dy.empty(); ++s) dh[s] += q.dy[t->row * R + s * H + j];
            back(q.law, gates, w, h, dh, d, dw);
            put_part(g.d, t->row * G + j, H, q.parts().gates, d);
            put_part(g.dh0, t->sequence * R + j, H, q.parts().states, dh);
            put_part(g.drates, t->sequence * W + j, H, q.parts().rates, dw);
            for (int64_t c = 0; c < q.parts().gates; ++c) g.d_sum[t->sequence * G + c * H + j] += d[c];
        }
    }
    return g;
}

// The kernels -------------------------------------------------------------------------------------------------------

using Plain = Asked<float>;

// The sums of the gates are made by the call, or given to it: then they may be where the gates are kept.
enum class Sums { made, given, in_place };

// Of one chain each, as the kernels make them.
Floats sums_of(const Plain& q) {
    Floats p;
    for (int64_t n = 0; n < q.steps(); ++n)
        for (int64_t g = 0; g < q.columns(); ++g) {
            float sum = q.b[g];
            for (int64_t i = 0; i < q.inputs; ++i) sum = std::fma(q.x[n * q.inputs + i], q.w[g * q.inputs + i], sum);
            p.push_back(sum);
        }
    return p;
}

Scanned<float> scan(const Plain& q, int threads, bool keeps = true, bool in_place = false, Sums sums = Sums::made) {
    const int64_t G = q.columns(), gates = q.parts().gates;
    Memory memory;
    Scanned<float> k;
    Floats packed;
    float* weights = memory.aligned(packed, segue::packed_size(G, q.inputs, gates), "packed");
    segue::pack(G, q.inputs, q.w.data(), q.inputs, 1, weights, threads, gates);
    segue::DiagonalScan call{};
    call.law = q.law, call.hidden = q.hidden;
    call.over = {q.count(), q.steps(), memory.input(q.lengths, "lengths"), q.reverse, threads};
    call.rates = memory.optional(q.rates, "rates");
    const Floats given = sums == Sums::made ? Floats() : sums_of(q);
    if (sums == Sums::made)
        call.x = memory.input(q.x, "x"), call.w_x = {q.inputs, G, weights, gates}, call.b = memory.input(q.b, "b");
    else
        call.w_x = {0, G, nullptr, gates};
    if (sums == Sums::given) call.p = memory.input(given, "p");
    if (sums == Sums::in_place)
        call.p = call.gates = memory.advanced(k.gates, given, "gates");
    else if (keeps)
        call.gates = memory.output(k.gates, q.steps() * G, "gates");
    call.y = memory.output(k.y, q.steps() * q.width(), "y");
    call.h_last = in_place ? memory.advanced(k.h_last, q.h0, "h_last")
                           : memory.output(k.h_last, q.count() * q.width(), "h_last");
    call.h0 = in_place ? call.h_last : memory.input(q.h0, "h0");
    segue::scan_diagonal(call);
    memory.finish();
    return k;
}

Returned<float> scan_back(const Plain& q, const Scanned<float>& k, int threads, bool in_place = false) {
    Memory memory;
    Returned<float> g;
    segue::DiagonalGrad call{};
    call.law = q.law, call.hidden = q.hidden;
    call.over = {q.count(), q.steps(), memory.input(q.lengths, "lengths"), q.reverse, threads};
    call.rates = memory.optional(q.rates, "rates");
    call.h0 = memory.input(q.h0, "h0"), call.y = memory.input(k.y, "y");
    call.d = in_place ? memory.advanced(g.d, k.gates, "d") : memory.output(g.d, q.steps() * q.columns(), "d");
    call.gates = in_place ? call.d : memory.input(k.gates, "gates");
    call.dy = memory.optional(q.dy, "dy"), call.dh_last = memory.optional(q.dh_last, "dh_last");
    call.d_sum = memory.output(g.d_sum, q.count() * q.columns(), "d_sum");
    call.drates = memory.output(g.drates, q.count() * q.known(), "drates");
    call.dh0 = memory.output(g.dh0, q.count() * q.width(), "dh0");
    segue::scan_diagonal_back(call);
    memory.finish();
    return g;
}

// Cases ---------------------------------------------------------------------------------------------------------------

Plain draw(Diagonal law, int64_t inputs, int64_t hidden, const std::vector<int64_t>& lengths, bool reverse) {
    Draw draw(7 + hidden);
    Plain q{law, inputs, hidden, lengths, reverse, {}, {}, {}, {}, {}, {}, {}};
    const float in = 2 / std::sqrt(static_cast<float>(inputs));
    q.x = draw.many(q.steps() * inputs, -2, 2), q.w = draw.many(q.columns() * inputs, -in, in);
    q.b = draw.many(q.columns(), -0.5f, 0.5f);
    // Of s5 the size of a stays below 1.
    q.rates = law == Diagonal::s5 ? draw.many(q.known(), -0.7f, 0.7f) : draw.many(q.known(), 0.001f, 2);
    q.h0 = draw.many(q.count() * q.width(), -1, 1);
    q.dy = draw.many(q.steps() * q.width(), -1, 1);
    if (hidden % 2) q.dh_last = draw.many(q.count() * q.width(), -1, 1);
    return q;
}

Asked<double> widen(const Plain& q) {
    const auto wide = [](const Floats& a) { return Array<double>(a.begin(), a.end()); };
    return {q.law,     q.inputs,      q.hidden,    q.lengths,  q.reverse,       wide(q.x), wide(q.w),
            wide(q.b), wide(q.rates), wide(q.h0), wide(q.dy), wide(q.dh_last)};
}

void check_definition(Diagonal law) {
    Asked<double> q = widen(draw(law, 2, 3, {2, 0, 3}, false));
    const auto loss = [&] {
        const Scanned<double> k = forward(q);
        double sum = 0;
        for (std::size_t j = 0; j < k.y.size(); ++j) sum += k.y[j] * q.dy[j];
        for (std::size_t j = 0; j < k.h_last.size(); ++j) sum += k.h_last[j] * q.dh_last[j];
        return sum;
    };
    const Returned<double> g = backward(q, forward(q));
    const auto hold = [&](Array<double>& values, const Array<double>& sums, const char* name) {
        for (std::size_t j = 0; j < values.size(); ++j) {
            double want = 0;  // sums are given for each sequence
            for (std::size_t s = j; s < sums.size(); s += values.size()) want += sums[s];
            const double value = values[j], h = 1e-5;
            values[j] = value + h;
            const double above = loss();
            values[j] = value - h;
            const double slope = (above - loss()) / (2 * h);
            values[j] = value;
            require(std::abs(slope - want) < 1e-7, std::string(name) + ": not the slope of the loss");
        }
    };
    hold(q.b, g.d_sum, "b");
    hold(q.rates, g.drates, "rates");
    hold(q.h0, g.dh0, "h0");
}

void check_agreement_of(Harness& harness, const Plain& q, int threads) {
    const auto hold = [&](const char* name, const Floats& got, const Array<double>& want, const Floats& plain) {
        compare(harness, name, kFloat, got, want, plain);
        harness.digest(got.data(), got.size() * sizeof(float));
    };
    const Asked<double> wide = widen(q);
    const Scanned<float> k = scan(q, threads), plain = forward(q);
    const Scanned<double> want = forward(wide);
    hold("gates", k.gates, want.gates, plain.gates);
    hold("y", k.y, want.y, plain.y);
    hold("h_last", k.h_last, want.h_last, plain.h_last);
    const Returned<float> g = scan_back(q, k, threads), slow = backward(q, plain);
    const Returned<double> back = backward(wide, want);
    hold("d", g.d, back.d, slow.d);
    hold("d_sum", g.d_sum, back.d_sum, slow.d_sum);
    hold("drates", g.drates, back.drates, slow.drates);
    hold("dh0", g.dh0, back.dh0, slow.dh0);
}

bool same(const Floats& a, const Floats& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

void require_same(const Scanned<float>& a, const Scanned<float>& b) {
    require(same(a.y, b.y) && same(a.h_last, b.h_last), "expected the same bits of y and h_last");
    require(a.gates.empty() || same(a.gates, b.gates), "expected the same bits of gates");
}

void require_same(const Returned<float>& a, const Returned<float>& b) {
    require(same(a.d, b.d) && same(a.dh0, b.dh0), "expected the same bits of d and dh0");
    require(same(a.d_sum, b.d_sum) && same(a.drates, b.drates), "expected the same bits of the sums");
}

void check_threads(const Plain& q) {
    const Scanned<float> k = scan(q, 1);
    const Returned<float> g = scan_back(q, k, 1);
    for (int threads : {2, 3, 5}) {
        require_same(scan(q, threads), k);
        require_same(scan_back(q, k, threads), g);
    }
    require_same(scan(q, 2, false), k);
    require_same(scan(q, 1, false, true), k);
    require_same(scan(q, 2, true, false, Sums::given), k);
    require_same(scan(q, 3, true, false, Sums::in_place), k);
    require_same(scan(q, 1, false, true, Sums::given), k);
    require_same(scan_back(q, k, 2, true), g);
}

// Pieces of sequences, each from a state of its own.
Plain take(const Plain& q, const std::vector<Piece>& pieces, const Floats& h0) {
    Plain of = q;
    of.lengths.clear();
    for (const Piece& piece : pieces) of.lengths.push_back(piece.length);
    of.x = steps_of(q.x, q.inputs, pieces), of.dy = steps_of(q.dy, q.width(), pieces);
    of.h0 = sequences_of(h0, q.width(), pieces), of.dh_last = sequences_of(q.dh_last, q.width(), pieces);
    return of;
}

void check_alone(const Plain& q) {
    const Scanned<float> k = scan(q, 1);
    const Returned<float> g = scan_back(q, k, 1);
    for (const Piece& piece : pieces_of(q.lengths)) {
        const Plain of = take(q, {piece}, q.h0);
        const Scanned<float> alone = scan(of, 1);
        require_same(alone, {steps_of(k.gates, q.columns(), {piece}), steps_of(k.y, q.width(), {piece}),
                             sequences_of(k.h_last, q.width(), {piece})});
        require_same(scan_back(of, alone, 1),
                     {steps_of(g.d, q.columns(), {piece}), sequences_of(g.d_sum, q.columns(), {piece}),
                      sequences_of(g.drates, q.known(), {piece}), sequences_of(g.dh0, q.width(), {piece})});
    }
}

void check_chunks(const Plain& q, int64_t size) {
    const Scanned<float> k = scan(q, 1);
    Floats h = q.h0;
    const int64_t longest = *std::max_element(q.lengths.begin(), q.lengths.end());
    for (int64_t from = 0; from < longest; from += size) {
        std::vector<Piece> pieces = pieces_of(q.lengths);
        for (Piece& piece : pieces) {
            const int64_t begin = std::min(from, piece.length), end = std::min(from + size, piece.length);
            piece.first += q.reverse ? piece.length - end : begin, piece.length = end - begin;
        }
        const Scanned<float> chunk = scan(take(q, pieces, h), 1);
        require(same(chunk.y, steps_of(k.y, q.width(), pieces)), "expected the same bits of y in chunks");
        h = chunk.h_last;
    }
    require(same(h, k.h_last), "expected the same state after chunks");
}

void check_nan(const Plain& q) {
    const Scanned<float> k = scan(q, 1);
    Plain sick = q;
    std::vector<Piece> others = pieces_of(q.lengths);
    const auto first = std::find_if(others.begin(), others.end(), [](const Piece& piece) { return piece.length > 0; });
    const Piece hit = *first;
    others.erase(first);
    sick.x[hit.first * q.inputs] = std::numeric_limits<float>::quiet_NaN();
    const Scanned<float> other = scan(sick, 2);
    require(std::isnan(other.y[hit.first * q.width()]), "expected NaN at a step whose input is NaN");
    require(same(steps_of(other.y, q.width(), others), steps_of(k.y, q.width(), others)), "expected NaN in one sequence");
}

// Sums far from 0: nothing over- or underflows to NaN.
void check_far(Diagonal law) {
    Plain q = draw(law, 3, 20, {4, 9}, false);
    for (float size : {30.0f, 120.0f, 3e4f}) {
        Plain far = q;
        for (float& value : far.x) value *= size;
        const Scanned<float> k = scan(far, 1);
        const Returned<float> g = scan_back(far, k, 1);
        for (const Floats* values : {&k.y, &g.d, &g.drates, &g.dh0})
            for (float value : *values) require(std::isfinite(value), "expected numbers that are finite");
    }
}

}  // namespace

void check_diagonal(Harness& harness) {
    std::vector<int64_t> many;
    for (int64_t s = 0; s < 150; ++s) many.push_back(s * s % 11);
    const std::vector<int64_t> few = {7, 0, 300, 1, 23}, one = {40}, ones(100, 1);
    for (int code = 0; code < 4; ++code) {
        const auto law = static_cast<Diagonal>(code);
        const auto check = [&](const std::string& name, const std::function<void()>& body) {
            harness.check(std::string("diagonal ") + kNames[code] + " " + name, body);
        };
        check("definition", [&] { check_definition(law); });
        check("far from 0", [&] { check_far(law); });
        int threads = 0;
        for (int64_t hidden : {1, 17, 64, 131})
            for (const auto& lengths : {few, many, one, ones, std::vector<int64_t>{}})
                for (bool reverse : {false, true}) {
                    const Plain q = draw(law, hidden % 40 + 1, hidden, lengths, reverse);
                    threads = threads % 3 + 1;
                    const std::string size = "hidden " + std::to_string(hidden) + " N=" + std::to_string(q.steps()) +
                                             (reverse ? " reverse" : "");
                    check(size, [&] { check_agreement_of(harness, q, threads); });
                    if (harness.quick() && hidden != 17) continue;
                    check("any threads " + size, [&] { check_threads(q); });
                    if (lengths.empty()) continue;
                    check("alone " + size, [&] { check_alone(q); });
                    for (int64_t chunk : {1, 5, 130})
                        check("chunks " + size, [&] { check_chunks(q, chunk); });
                    check("NaN stays " + size, [&] { check_nan(q); });
                }
        const Plain large = draw(law, 200, 300, {90, 11, 60}, false);
        check("any threads, large", [&] { check_threads(large); });
    }
}
