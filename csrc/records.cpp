// Operations of records: what the encoders of segue/fields and the pool of segue/model.py say, in the same letters.
#include <algorithm>
#include <cmath>

#include "program.h"

namespace segue {

using std::int64_t;

// A row per sequence, at each of its steps.
int Program::spread(int x) {
    const int y = slot("spread", Type::f32, 'N', slots_[x].axes);
    const int64_t width = slots_[x].width;
    operations_.push_back([=](const Run& run) {
        float* to = run.f32(y);
        for (int64_t s = 0; s < run.count('B'); ++s)
            for (int64_t t = 0; t < run.i64(kLengths)[s]; ++t, to += width)
                std::copy_n(run.f32(x) + s * width, width, to);
    });
    return y;
}

// The time since the step before; 0 at the first of all, where the clock is NaN.
int Program::elapsed(int times, int clock) {
    const int before = states_[clock].before, after = changed(clock), y = slot("elapsed", Type::f64, 'N', {});
    operations_.push_back([=](const Run& run) {
        const double* now = run.f64(times);
        double* passed = run.f64(y);
        for (int64_t s = 0; s < run.count('B'); ++s) {
            double last = run.f64(before)[s];
            for (int64_t t = 0; t < run.i64(kLengths)[s]; ++t, last = *now++)
                *passed++ = std::isnan(last) ? 0.0 : *now - last;
            run.f64(after)[s] = last;
        }
    });
    return y;
}

// log(1 + elapsed / unit), a column for each row of x; without a clock (elapsed below 0) zeros.
int Program::waited(int x, int elapsed, double unit) {
    const int y = like(x, "waited", 1);
    operations_.push_back([=](const Run& run) {
        if (elapsed < 0) {
            std::fill_n(run.f32(y), run.size(y), 0.0f);
            return;
        }
        std::transform(run.f64(elapsed), run.f64(elapsed) + run.size(elapsed), run.f32(y),
                       [=](double passed) { return static_cast<float>(std::log1p(passed / unit)); });
    });
    return y;
}

// Row codes[.., column] of a table.
int Program::embed(int codes, int64_t column, const Matrix& table) {
    const int y = like(codes, "embedded", table.inputs);
    const int64_t columns = last_axis(codes), width = table.inputs;
    const float* rows = kept(table.w, table.outputs * width);
    operations_.push_back([=](const Run& run) {
        float* to = run.f32(y);
        for (int64_t n = column; n < run.size(codes); n += columns, to += width)
            std::copy_n(rows + run.i64(codes)[n] * width, width, to);
    });
    return y;
}

// Values with 0 where there is none; then of the columns with gaps whether they are there, and log(1 + since / unit),
// the time since they were last. `last_seen` is the state; without one (below 0) each row stands alone.
int Program::observed(int x, int times, const std::vector<int64_t>& gaps, double unit, int last_seen) {
    const int64_t C = last_axis(x), G = static_cast<int64_t>(gaps.size()), F = C + 2 * G;
    const int y = like(x, "observed", F);
    const int before = last_seen < 0 ? -1 : states_[last_seen].before, after = last_seen < 0 ? -1 : changed(last_seen);
    const auto row = [=](const float* values, float* to, double now, double* last) {
        for (int64_t c = 0; c < C; ++c) to[c] = std::isnan(values[c]) ? 0.0f : values[c];
        for (int64_t g = 0; g < G; ++g) {
            const bool is_there = !std::isnan(values[gaps[g]]);
            if (is_there && last) last[g] = now;
            const double since = last && !std::isnan(last[g]) ? now - last[g] : 0.0;
            to[C + g] = is_there ? 1.0f : 0.0f;
            to[C + G + g] = static_cast<float>(std::log1p(since / unit));
        }
    };
    operations_.push_back([=](const Run& run) {
        const float* values = run.f32(x);
        float* to = run.f32(y);
        if (after < 0) {
            for (int64_t n = 0; n < run.size(x); n += C, to += F) row(values + n, to, 0.0, nullptr);
            return;
        }
        const double* now = run.f64(times);
        std::copy_n(run.f64(before), run.size(before), run.f64(after));
        for (int64_t s = 0; s < run.count('B'); ++s)
            for (int64_t t = 0; t < run.i64(kLengths)[s]; ++t, values += C, to += F)
                row(values, to, *now++, run.f64(after) + s * G);
    });
    return y;
}

// The mean of x over a sequence so far, at each of `ends` (rising; zeros below 0), from a sum in one fixed order.
int Program::mean(int x, int ends, int total, int count) {
    const int64_t H = last_axis(x);
    const int y = slot("mean", Type::f32, slots_[ends].rows, {H});
    const int sum = states_[total].before, sum_after = changed(total);
    const int steps = states_[count].before, steps_after = changed(count);
    operations_.push_back([=](const Run& run) {
        const float* values = run.f32(x);
        const int64_t *end = run.i64(ends), *last = end + run.size(ends);
        float* to = run.f32(y);
        std::copy_n(run.f64(sum), run.size(sum), run.f64(sum_after));
        const auto give_below_0 = [&] {
            for (; end != last && *end < 0; ++end, to += H) std::fill_n(to, H, 0.0f);
        };
        give_below_0();
        for (int64_t s = 0, n = 0; s < run.count('B'); ++s) {
            double* now = run.f64(sum_after) + s * H;
            int64_t taken = run.i64(steps)[s];
            for (int64_t t = 0; t < run.i64(kLengths)[s]; ++t, ++n, values += H) {
                ++taken;
                for (int64_t h = 0; h < H; ++h) now[h] += values[h];
                if (end == last || *end != n) continue;
                for (int64_t h = 0; h < H; ++h) to[h] = static_cast<float>(now[h] / static_cast<double>(taken));
                ++end, to += H;
                give_below_0();
            }
            run.i64(steps_after)[s] = taken;
        }
    });
    return y;
}

}  // namespace segue
