// Operations of a forecast: the equations of segue/forecaster.py, in the same letters.
#include <algorithm>
#include <cmath>
#include <vector>

#include "program.h"

namespace segue {

using std::int64_t;

namespace {

// One series of one sequence through the steps of a call.
struct Past {
    int64_t lookback, known, steps;  // known: of how many of the last values there are flags
    bool from_mean;
    double relative, least;                // r and m of the equation
    std::vector<double> values, gap, age;  // [L + T]: what stood in the ring, then one per step; [T]; [T]
    std::vector<float> seen;               // [known + T]

    // `x` is every `stride`-th; ring, flags, waited (the gap) and lived (the age) are as they were.
    void read(const double* x, int64_t stride, const double* ring, const float* flags, double waited, double lived) {
        values.assign(ring, ring + lookback);
        seen.assign(flags, flags + known);
        gap.clear();
        age.clear();
        if (std::isinf(waited)) {
            // The first value ever fills the ring. It may stand there before it comes: until then z is 0 anyway.
            int64_t first = 0;
            while (first < steps && std::isnan(x[first * stride])) ++first;
            if (first < steps) std::fill(values.begin(), values.end(), x[first * stride]);
        }
        for (int64_t t = 0; t < steps; ++t) {
            const bool is_there = !std::isnan(x[t * stride]);
            waited = is_there ? 0.0 : waited + 1.0;
            values.push_back(is_there ? x[t * stride] : values.back());
            seen.push_back(is_there ? 1.0f : 0.0f);
            gap.push_back(waited);
            lived += is_there || lived > 0.0 ? 1.0 : 0.0;
            age.push_back(lived);
        }
    }

    const double* ring(int64_t t) const { return values.data() + t + 1; }
    const float* flags(int64_t t) const { return seen.data() + t + 1; }

    double level(int64_t t) const {
        if (!from_mean) return values[lookback + t];
        const double *begin = ring(t), *end = begin + lookback, length = static_cast<double>(lookback);
        double sum = 0.0;
        for (const double* v = begin; v != end; ++v) sum += *v - *begin;
        return *begin + sum / std::min(std::max(age[t], 1.0), length);
    }

    double spread(int64_t t) const {
        const double *begin = ring(t), *end = begin + lookback, length = static_cast<double>(lookback);
        double sum = 0.0, size = 0.0, deviation = 0.0;
        for (const double* v = begin; v != end; ++v) sum += *v, size += std::fabs(*v);
        for (const double* v = begin; v != end; ++v) deviation += std::fabs(*v - sum / length);
        const double mean = size / length;
        return deviation / length + young(t) * std::max(relative * mean, least) + 1e-3 * mean + 1e-6;
    }

    // v of the equation
    double young(int64_t t) const {
        const double length = static_cast<double>(lookback);
        return 1.0 - std::min(age[t], length) / length;
    }
};

// What segments are read with: u, one number after the other.
struct Segment {
    Program::Reading how;
    int64_t features;

    int64_t inputs() const { return how.segment + (how.anew ? 1 : 2) + features + (how.gaps ? how.segment + 1 : 0); }

    // That of the step t, whose state is carried.
    float* last(const Past& past, int64_t t, const float* feature, float* u) const {
        const int64_t k = how.segment;
        const double a = past.level(t), s = past.spread(t);
        u = values(past, t, 0, a, s, u);
        *u++ = -static_cast<float>((past.ring(t)[past.lookback - k - 1] - a) / s);
        u = beside(past, t, feature, u);
        if (!how.gaps) return u;
        u = std::copy_n(past.flags(t) + past.known - k, k, u);
        return waited(past, t, u);
    }

    // Those of the look-back at the step t, the oldest first.
    float* all(const Past& past, int64_t t, const float* feature, float* u) const {
        const int64_t k = how.segment;
        const double a = past.level(t), s = past.spread(t);
        for (int64_t back = how.anew; back-- > 0;) {
            u = values(past, t, back, a, s, u);
            if (how.gaps) u = std::copy_n(past.flags(t) + past.known - (back + 1) * k, k, u);
            u = beside(past, t, feature, u);
            if (how.gaps) u = waited(past, t, u);
        }
        return u;
    }

   private:
    // z of the segment so many before the last, 0 where the value is missing.
    float* values(const Past& past, int64_t t, int64_t back, double a, double s, float* u) const {
        const int64_t k = how.segment;
        const double* v = past.ring(t) + past.lookback - (back + 1) * k;
        for (int64_t j = 0; j < k; ++j) u[j] = static_cast<float>((v[j] - a) / s);
        if (!how.gaps) return u + k;
        const float* flag = past.flags(t) + past.known - (back + 1) * k;
        for (int64_t j = 0; j < k; ++j) u[j] *= flag[j];
        return u + k;
    }
    float* beside(const Past& past, int64_t t, const float* feature, float* u) const {
        *u++ = static_cast<float>(past.young(t));
        return std::copy_n(feature, features, u);
    }
    static float* waited(const Past& past, int64_t t, float* u) {
        *u++ = static_cast<float>(std::log1p(std::isinf(past.gap[t]) ? 0.0 : past.gap[t]));
        return u;
    }
};

}  // namespace

// Everything of a forecast that does not depend on weights. Carried, chain (p, c, phase) takes every k-th step of series
// c of sequence p; the steps of one chain lie one after another. Read anew, every wanted step of every series is a
// sequence of n.
Program::Segmented Program::segments(int values, int features, int wanted, const Reading& how,
                                     const ForecastStates& states, const Usual& usual) {
    const int64_t C = last_axis(values), F = last_axis(features), k = how.segment, n = how.anew;
    const int ring = states_[states.ring].before, seen = states_[states.seen].before;
    const int gap = states_[states.gap].before, age = states_[states.age].before;
    const int taken = states_[states.taken].before;
    const int ring_after = changed(states.ring), seen_after = changed(states.seen);
    const int gap_after = changed(states.gap), age_after = changed(states.age);
    const int taken_after = changed(states.taken);
    repeated_ = std::max(repeated_, C * std::max<int64_t>(n, 1));
    const Segment segment{how, F};
    const int64_t L = last_axis(ring), flags = last_axis(seen), I = segment.inputs();
    const Segmented made{
        n ? slot("segments", Type::f32, 'M', {C, n, I}) : slot("segments", Type::f32, 'N', {C, I}),
        n ? slot("chains", Type::i64, 'M', {C}) : slot("chains", Type::i64, 'B', {C * k}),
        slot("places", Type::i64, 'M', {C}),
        slot("scaled", Type::f32, 'M', {C, L}),
        slot("level", Type::f64, 'M', {C}),
        slot("spread", Type::f64, 'M', {C})};
    operations_.push_back([=](const Run& run) {
        float* u = run.f32(made.inputs);
        int64_t* chain = run.i64(made.lengths);
        const int64_t *at = run.i64(wanted), M = run.size(wanted);
        int64_t m = 0, row = 0;
        Past past{L, flags, 0, how.from_mean, 0.0, 0.0, {}, {}, {}, {}};
        std::vector<int64_t> place;
        for (int64_t p = 0, first = 0; p < run.count('B'); first += past.steps, ++p) {
            past.steps = run.i64(kLengths)[p];
            const int64_t start = m, begun = run.i64(taken)[p];
            while (m < M && at[m] < first + past.steps) ++m;
            place.resize(past.steps);
            for (int64_t c = 0; c < C; ++c) {
                const int64_t pc = p * C + c;
                past.relative = usual.relative[c], past.least = usual.least[c];
                past.read(run.f64(values) + first * C + c, C, run.f64(ring) + pc * L, run.f32(seen) + pc * flags,
                          run.f64(gap)[pc], run.f64(age)[pc]);
                for (int64_t phase = 0; phase < k && !n; ++phase) {
                    const int64_t before = row;
                    for (int64_t t = (phase - begun % k + k) % k; t < past.steps; t += k) {
                        u = segment.last(past, t, run.f32(features) + (first + t) * F, u);
                        place[t] = row++;
                    }
                    *chain++ = row - before;
                }
                for (int64_t w = start; w < m; ++w) {
                    const int64_t t = at[w] - first, wc = w * C + c;
                    const double a = past.level(t), s = past.spread(t);
                    if (n) {
                        segment.all(past, t, run.f32(features) + (first + t) * F, u + wc * n * I);
                        chain[wc] = n;
                    }
                    run.i64(made.place)[wc] = n ? (wc + 1) * n - 1 : place[t];
                    run.f64(made.level)[wc] = std::isinf(past.gap[t]) ? std::nan("") : a;
                    run.f64(made.spread)[wc] = s;
                    std::transform(past.ring(t), past.ring(t) + L, run.f32(made.scaled) + wc * L,
                                   [=](double v) { return static_cast<float>((v - a) / s); });
                }
                std::copy_n(past.ring(past.steps - 1), L, run.f64(ring_after) + pc * L);
                std::copy_n(past.flags(past.steps - 1), flags, run.f32(seen_after) + pc * flags);
                run.f64(gap_after)[pc] = past.steps ? past.gap.back() : run.f64(gap)[pc];
                run.f64(age_after)[pc] = past.steps ? past.age.back() : run.f64(age)[pc];
            }
            run.i64(taken_after)[p] = begun + past.steps;
        }
    });
    return made;
}

// (a + b + ...) / how many they are, of slots of one shape.
int Program::mean_of(const std::vector<int>& parts) {
    // Copies: a new slot moves the others.
    const Slot first = slots_[parts.front()];
    const int y = slot("mean", Type::f32, first.rows, first.axes);
    operations_.push_back([=](const Run& run) {
        float* to = run.f32(y);
        const float count = static_cast<float>(parts.size());
        for (int64_t place = 0; place < run.size(y); ++place) {
            float sum = run.f32(parts.front())[place];
            for (std::size_t part = 1; part < parts.size(); ++part) sum += run.f32(parts[part])[place];
            to[place] = sum / count;
        }
    });
    return y;
}

// tanh(a + b) for a of every series [M, C, U] and b of every step ahead [M, S, U]: [M, C, S, U].
int Program::tanh_of_sums(int per_series, int per_step) {
    const int64_t C = slots_[per_series].axes[0], S = slots_[per_step].axes[0], U = last_axis(per_series);
    const int y = slot("tanh", Type::f32, 'M', {C, S, U});
    operations_.push_back([=](const Run& run) {
        float* to = run.f32(y);
        for (int64_t m = 0; m < run.count('M'); ++m)
            for (int64_t c = 0; c < C; ++c)
                for (int64_t s = 0; s < S; ++s) {
                    const float *a = run.f32(per_series) + (m * C + c) * U, *b = run.f32(per_step) + (m * S + s) * U;
                    to = std::transform(a, a + U, b, to, [](float p, float q) { return std::tanh(p + q); });
                }
    });
    return y;
}

namespace {

void sort(double* begin, double* end) {
    std::sort(begin, end, [](double p, double q) { return p < q || (std::isnan(q) && !std::isnan(p)); });
}

}  // namespace

// a + s * change, its quantiles in order; then, where there is a shift [S * Q], s times it is added, and none passes the
// one in the middle: [M, C, S * Q] -> float64 [M, C, S, Q].
int Program::rescale(const Segmented& past, int change, int64_t horizon, const std::vector<double>& shift,
                     int64_t middle) {
    const int64_t C = slots_[change].axes[0], Q = slots_[change].width / (C * horizon);
    const int y = slot("forecast", Type::f64, 'M', {C, horizon, Q});
    operations_.push_back([=](const Run& run) {
        const float* from = run.f32(change);
        double* to = run.f64(y);
        for (int64_t mc = 0; mc < run.size(past.level); ++mc) {
            const double a = run.f64(past.level)[mc], s = run.f64(past.spread)[mc];
            const double* by = shift.data();
            for (int64_t h = 0; h < horizon; ++h, to += Q) {
                for (int64_t q = 0; q < Q; ++q) to[q] = a + s * static_cast<double>(*from++);
                sort(to, to + Q);
                if (shift.empty()) continue;
                for (int64_t q = 0; q < Q; ++q) to[q] += s * *by++;
                for (int64_t q = 0; q < middle; ++q) to[q] = std::min(to[q], to[middle]);
                for (int64_t q = middle + 1; q < Q; ++q) to[q] = std::max(to[q], to[middle]);
                sort(to, to + Q);
            }
        }
    });
    return y;
}

}  // namespace segue
