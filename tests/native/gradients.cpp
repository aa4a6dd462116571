#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cases.h"
#include "checks.h"

namespace {

using Wide = definition::Problem<double>;
using WideResult = definition::Result<double>;
using WideGradients = definition::Gradients<double>;
using Values = definition::Array<double>;
using definition::put;
using definition::row;

double dot(const Values& a, const Values& b) {
    double sum = 0;
    for (std::size_t k = 0; k < b.size(); ++k) sum += a[k] * b[k];
    return sum;
}

// The number whose gradients the way back gives: dy, dh_last and dc_last weigh what the scan gives.
double weighed(const Wide& q) {
    const WideResult k = definition::forward(q);
    return dot(k.y, q.dy) + dot(k.h_last, q.dh_last) + dot(k.c_last, q.dc_last);
}

// out[o, i] += a[o] * b[i], for rows o of out starting at `from`
void add_outer(Values& out, int64_t from, const Values& a, const Values& b) {
    for (std::size_t o = 0; o < a.size(); ++o)
        for (std::size_t i = 0; i < b.size(); ++i) out[(from + o) * b.size() + i] += a[o] * b[i];
}

Values part(const Values& a, int64_t from, int64_t to) {
    return Values(a.begin() + from, a.begin() + to);
}

// The part of `a` from `from` on.
void add(Values& out, const Values& a, int64_t from) {
    for (std::size_t j = 0; j < out.size(); ++j) out[j] += a[from + j];
}

void add_products(Values& out, int64_t at, const Values& a, const Values& b) {
    for (std::size_t j = 0; j < a.size(); ++j) out[at + j] += a[j] * b[j];
}

// What one step adds to the gradients of an LSTM's own weights.
void add_lstm_weights(const Wide& q, const WideResult& k, const WideGradients& g, const definition::Step& t,
                      Wide& sums) {
    const int64_t H = q.hidden, n = t.row;
    const Values gates = row(k.gates, n, 4 * H), d = row(g.d, n, 4 * H);
    const Values c = definition::state_before(q.c0, k.c, t, H);
    Values c_new(H, 0);
    add_products(c_new, 0, part(gates, H, 2 * H), c);
    add_products(c_new, 0, part(gates, 0, H), part(gates, 2 * H, 3 * H));
    if (!q.peepholes.empty()) {
        add_products(sums.peepholes, 0, part(d, 0, H), c);
        add_products(sums.peepholes, H, part(d, H, 2 * H), c);
        add_products(sums.peepholes, 2 * H, part(d, 3 * H, 4 * H), c_new);
    }
    if (!q.w_r.empty()) add_outer(sums.w_r, 0, row(g.dm_out, n, q.width), row(k.m, n, H));
}

// What one step adds to the gradient of the recurrent weights.
void add_recurrent_weights(const Wide& q, const WideResult& k, const WideGradients& g, const definition::Step& t,
                           Wide& sums) {
    const int64_t H = q.hidden, G = q.columns(), n = t.row, first = q.law == definition::Law::gru ? 2 * H : G;
    const Values d = row(g.d, n, q.kept_columns());
    Values part_d = part(d, 0, first);  // of the recurrent part: of a GRU, dr, dz, du
    if (first < G) part_d.insert(part_d.end(), d.begin() + 3 * H, d.end());
    const Values product_d = q.gain_h.empty() ? part_d : row(g.du_h, n, G);
    const Values seen = masked(q, t.sequence, definition::state_before(q.h0, k.y, t, q.width));
    add_outer(sums.w_h, 0, part(product_d, 0, first), seen);
    if (first == G) return;
    Values reset(H, 0);
    add_products(reset, 0, part(row(k.gates, n, 4 * H), 0, H), seen);
    add_outer(sums.w_h, first, part(product_d, first, G), q.reset_after ? seen : reset);
}

// Zeros of the shapes of every array that has a gradient.
Wide zeros_like(Wide q) {
    for (Values* a : {&q.x, &q.w_x, &q.b, &q.w_h, &q.b_hn, &q.gain_x, &q.gain_h, &q.peepholes, &q.w_r, &q.gain_c,
                      &q.bias_c})
        a->assign(a->size(), 0);
    return q;
}

// The gradients of all that goes in, made of what the way back gives: the products and the sums over
// sequences that kernels.h leaves to its caller.
Wide gradients_of_inputs(const Wide& q, const WideResult& k, const WideGradients& g) {
    const int64_t G = q.columns();
    Wide sums = zeros_like(q);
    sums.h0 = g.dh0, sums.c0 = g.dc0;
    for (int64_t s = 0; s < q.count(); ++s) {
        const Values d = row(g.d_sum, s, q.kept_columns());
        add(sums.b, d, 0);
        if (!q.b_hn.empty()) add(sums.b_hn, d, G);
        if (!q.gain_x.empty()) add(sums.gain_x, row(g.dgain_x, s, G), 0), add(sums.gain_h, row(g.dgain_h, s, G), 0);
        if (!q.gain_c.empty()) add(sums.gain_c, row(g.dgain_c, s, q.hidden), 0);
        if (!q.gain_c.empty()) add(sums.bias_c, row(g.dbias_c, s, q.hidden), 0);
    }
    for (const definition::Step& t : definition::in_time(q.lengths, q.reverse)) {
        const Values d = part(row(g.d, t.row, q.kept_columns()), 0, G);
        const Values product_d = q.gain_x.empty() ? d : row(g.du_x, t.row, G);
        Values dx(q.inputs, 0);
        definition::add_transposed(q, q.w_x, 0, G, product_d, dx);
        put(sums.x, t.row, dx);
        add_outer(sums.w_x, 0, product_d, row(q.x, t.row, q.inputs));
        add_recurrent_weights(q, k, g, t, sums);
        if (q.law == definition::Law::lstm) add_lstm_weights(q, k, g, t, sums);
    }
    return sums;
}

struct Input {
    const char* name;
    Values Wide::*values;
};

const Input kInputs[] = {
    {"x", &Wide::x},           {"w_x", &Wide::w_x},       {"b", &Wide::b},           {"w_h", &Wide::w_h},
    {"b_hn", &Wide::b_hn},     {"h0", &Wide::h0},         {"c0", &Wide::c0},         {"gain_x", &Wide::gain_x},
    {"gain_h", &Wide::gain_h}, {"w_r", &Wide::w_r},       {"gain_c", &Wide::gain_c}, {"bias_c", &Wide::bias_c},
    {"peepholes", &Wide::peepholes},
};

// Central differences: the step is small, because a norm of columns that are all alike (the product of a state of
// zeros) bends on a scale of 1 / 316; what is left, mostly cancellation, is below 2e-6 of the largest gradient.
void compare_with_differences(Harness& harness, Wide q, std::uint64_t seed) {
    const WideResult k = definition::forward(q);
    const Wide want = gradients_of_inputs(q, k, definition::backward(q, k));
    Draw draw(seed);
    for (const Input& input : kInputs) {
        Values& values = q.*input.values;
        const Values& gradient = want.*input.values;
        double scale = 0;
        for (double value : gradient) scale = std::max(scale, std::abs(value));
        const int64_t size = static_cast<int64_t>(values.size());
        for (int64_t pick = 0; pick < std::min<int64_t>(size, 6); ++pick) {
            const int64_t at = draw.below(size);
            const double before = values[at], step = 1e-7;
            values[at] = before + step;
            const double above = weighed(q);
            values[at] = before - step;
            const double below = weighed(q);
            values[at] = before;
            const double difference = (above - below) / (2 * step), tolerance = 1e-7 + 2e-6 * scale;
            const double wrong = std::abs(difference - gradient[at]);
            harness.used(wrong / tolerance);
            if (wrong <= tolerance) continue;  // a NaN does not
            char text[100];
            std::snprintf(text, sizeof text, "%s[%lld]: expected %.9g, got %.9g", input.name,
                          static_cast<long long>(at), difference, gradient[at]);
            throw Failure(text);
        }
    }
}

}  // namespace

void check_gradients(Harness& harness) {
    const std::vector<Sizes> sizes = {{3, 5, 3, {4, 0, 1, 6}}, {2, 8, 11, {3, 2}}};
    for (const Kind& kind : kinds())
        for (unsigned options : option_sets(kind, harness.quick() ? 6 : 40)) {
            if (options & kHalf) continue;  // rounding has no slope
            for (const Sizes& size : sizes) {
                const Case of{kind, options, size};
                harness.check(of.name(), [&] { compare_with_differences(harness, widen(draw(of, 5)), 6); });
            }
        }
}
