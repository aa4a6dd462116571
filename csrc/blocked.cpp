#include "blocked.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace segue::blocked {
namespace {

using std::int64_t;
using Buffer = std::unique_ptr<float[]>;

constexpr int64_t kRows = 96;             // rows worked on together; a multiple of the tallest tile
constexpr int64_t kGateValues = 1 << 17;  // gate values kept between the input part and the recurrent part: half an L2
constexpr double kThreadWork = 4e6;       // multiply-adds that pay for one more thread, measured

int useful_threads(int wanted, int64_t items, double work) {
    const double paid = work / kThreadWork;
    const int64_t most = std::min<int64_t>(wanted, items);
    return static_cast<int>(std::max<int64_t>(1, paid < static_cast<double>(most) ? static_cast<int64_t>(paid) : most));
}

// Runs share(0) ... share(count - 1), the last one here. Where the system grants no thread, its share runs here too.
void run_shares(int count, const std::function<void(int)>& share) {
    std::vector<std::thread> threads;
    threads.reserve(count);
    int next = 0;
    try {
        for (; next < count - 1; ++next) threads.emplace_back(share, next);
    } catch (const std::system_error&) {}
    for (; next < count; ++next) share(next);
    for (std::thread& thread : threads) thread.join();
}

struct Sequence {
    int64_t index, first, length;  // its steps are rows [first, first + length) of x and y
};

// Longest first, so that the sequences still running at a step are the first ones; to the thread with least steps.
std::vector<std::vector<Sequence>> share_out(const Sequences& over, int threads) {
    std::vector<Sequence> sequences(over.count);
    for (int64_t s = 0, first = 0; s < over.count; first += over.lengths[s++])
        sequences[s] = {s, first, over.lengths[s]};
    std::stable_sort(sequences.begin(), sequences.end(),
                     [](const Sequence& a, const Sequence& b) { return a.length > b.length; });
    std::vector<std::vector<Sequence>> shares(threads);
    std::vector<int64_t> steps(threads);
    for (const Sequence& sequence : sequences) {
        const auto least = std::min_element(steps.begin(), steps.end()) - steps.begin();
        shares[least].push_back(sequence);
        steps[least] += sequence.length;
    }
    return shares;
}

// One step of the sequences that are still running: row k belongs to sequence[k].
struct Now {
    int64_t rows;
    const Sequence* sequence;
    float* const* gates;    // [rows][G], bias and input part summed
    const float* const* h;  // [rows][R], the state before the step
    float* const* y;        // [rows][R], the state after it, to be written
    float* const* spare;    // [rows][spare], scratch
};

// What a law must say for the scan to run it.
struct Law {
    const Sequences& over;
    int64_t width;        // R
    int64_t columns;      // G
    const float* w_xh_t;  // [I, G]
    const float* b;       // [G]
    int64_t spare;        // columns of scratch per row
    std::function<void(const Now&)> step;
};

// The scratch of one thread, made before threads start so that they cannot run out of memory.
struct Scratch {
    int64_t steps;  // how many steps, over all rows, have room between the input part and the recurrent part
    Buffer gates, spare;
    std::vector<const float*> x, h;
    std::vector<float*> gate_rows, now, y, spare_rows;

    Scratch(const Law& law, const std::vector<Sequence>& share) {
        const int64_t rows = std::min<int64_t>(kRows, share.size());
        int64_t all = 0;
        for (const Sequence& sequence : share) all += sequence.length;
        steps = std::max(rows, std::min(all, kGateValues / std::max<int64_t>(1, law.columns)));
        gates.reset(new float[steps * law.columns]);
        spare.reset(new float[rows * law.spare]);
        x.resize(steps), gate_rows.resize(steps);
        h.resize(rows), now.resize(rows), y.resize(rows), spare_rows.resize(rows);
        for (int64_t k = 0; k < rows; ++k) spare_rows[k] = spare.get() + k * law.spare;
    }
};

// The input part of steps [t0, t1) of all sequences: gate row of (sequence k, step t) is k * (t1 - t0) + t - t0.
void input_part(const Primitives& p, const Law& law, const Sequence* sequence, int64_t rows, int64_t t0, int64_t t1,
                Scratch& own) {
    int64_t used = 0;
    for (int64_t k = 0; k < rows; ++k) {
        for (int64_t t = t0; t < std::min(t1, sequence[k].length); ++t, ++used) {
            own.x[used] = law.over.x + (sequence[k].first + t) * law.over.inputs;
            own.gate_rows[used] = own.gates.get() + (k * (t1 - t0) + t - t0) * law.columns;
            std::copy(law.b, law.b + law.columns, own.gate_rows[used]);
        }
    }
    for (int64_t r = 0; r < used; r += kRows)
        p.multiply_add(std::min(kRows, used - r), own.x.data() + r, law.over.inputs, law.w_xh_t, law.columns,
                       law.columns, own.gate_rows.data() + r);
}

// At most kRows sequences, longest first, through all their steps.
void scan_group(const Primitives& p, const Law& law, const Sequence* sequence, int64_t rows, Scratch& own) {
    const int64_t R = law.width, longest = sequence[0].length, block = own.steps / rows;
    for (int64_t k = 0; k < rows; ++k) own.h[k] = law.over.h0 + sequence[k].index * R;
    int64_t running = rows;
    for (int64_t t0 = 0; t0 < longest; t0 += block) {
        const int64_t t1 = std::min(t0 + block, longest);
        input_part(p, law, sequence, running, t0, t1, own);
        for (int64_t t = t0; t < t1; ++t) {
            while (sequence[running - 1].length <= t) --running;
            for (int64_t k = 0; k < running; ++k) {
                own.now[k] = own.gates.get() + (k * (t1 - t0) + t - t0) * law.columns;
                own.y[k] = law.over.y + (sequence[k].first + t) * R;
            }
            law.step({running, sequence, own.now.data(), own.h.data(), own.y.data(), own.spare_rows.data()});
            std::copy(own.y.begin(), own.y.begin() + running, own.h.begin());
        }
    }
    for (int64_t k = 0; k < rows; ++k) std::copy(own.h[k], own.h[k] + R, law.over.h_last + sequence[k].index * R);
}

void scan(const Primitives& p, const Law& law) {
    const Sequences& over = law.over;
    if (over.count == 0) return;
    const double work = static_cast<double>(over.steps) * static_cast<double>((over.inputs + law.width) * law.columns);
    const int threads = useful_threads(over.threads, over.count, work);
    const auto shares = share_out(over, threads);
    std::vector<Scratch> scratch;
    for (const auto& share : shares) scratch.emplace_back(law, share);
    run_shares(threads, [&](int k) {
        const int64_t count = shares[k].size();
        for (int64_t s = 0; s < count; s += kRows)
            scan_group(p, law, shares[k].data() + s, std::min(kRows, count - s), scratch[k]);
    });
}

}  // namespace

void affine(const Primitives& p, const Affine& call) {
    const double work = static_cast<double>(call.rows) * static_cast<double>(call.inputs * call.outputs);
    const int64_t blocks = (call.rows + kRows - 1) / kRows;
    const int threads = useful_threads(call.threads, blocks, work);
    run_shares(threads, [&](int k) {
        const float* x[kRows];
        float* y[kRows];
        const int64_t end = std::min(blocks * (k + 1) / threads * kRows, call.rows);
        for (int64_t n = blocks * k / threads * kRows; n < end; n += kRows) {
            const int64_t rows = std::min(kRows, call.rows - n);
            for (int64_t r = 0; r < rows; ++r) {
                x[r] = call.x + (n + r) * call.inputs;
                y[r] = call.y + (n + r) * call.outputs;
                if (call.b)
                    std::copy(call.b, call.b + call.outputs, y[r]);
                else
                    std::fill(y[r], y[r] + call.outputs, 0.0f);
            }
            p.multiply_add(rows, x, call.inputs, call.w_t, call.outputs, call.outputs, y);
        }
    });
}

void scan_elman(const Primitives& p, const Elman& call) {
    const int64_t H = call.over.hidden;
    scan(p, {call.over, H, H, call.w_xh_t, call.b, 0, [&](const Now& now) {
                 p.multiply_add(now.rows, now.h, H, call.w_hh_t, H, H, now.gates);
                 for (int64_t k = 0; k < now.rows; ++k) p.activate(call.activation, H, now.gates[k], now.y[k]);
             }});
}

void scan_lstm(const Primitives& p, const Lstm& call) {
    const int64_t H = call.over.hidden, G = 4 * H, R = call.w_hr_t ? call.projection : H;
    if (call.c_last != call.c0) std::copy(call.c0, call.c0 + call.over.count * H, call.c_last);
    scan(p, {call.over, R, G, call.w_xh_t, call.b, call.w_hr_t ? H : 0, [&](const Now& now) {
                 p.multiply_add(now.rows, now.h, R, call.w_hh_t, G, G, now.gates);
                 float* const* m = call.w_hr_t ? now.spare : now.y;
                 for (int64_t k = 0; k < now.rows; ++k)
                     p.lstm_cell(H, now.gates[k], call.c_last + now.sequence[k].index * H, m[k]);
                 if (!call.w_hr_t) return;
                 for (int64_t k = 0; k < now.rows; ++k) std::fill(now.y[k], now.y[k] + R, 0.0f);
                 p.multiply_add(now.rows, m, H, call.w_hr_t, R, R, now.y);
             }});
}

void scan_gru(const Primitives& p, const Gru& call) {
    const int64_t H = call.over.hidden, G = 3 * H;
    const float* w_hn_t = call.w_hh_t + 2 * H;
    scan(p, {call.over, H, G, call.w_xh_t, call.b_x, H, [&](const Now& now) {
                 p.multiply_add(now.rows, now.h, H, call.w_hh_t, G, 2 * H, now.gates);
                 for (int64_t k = 0; k < now.rows; ++k) {
                     p.activate(Activation::sigmoid, 2 * H, now.gates[k], now.gates[k]);
                     if (call.reset_after)
                         std::copy(call.b_hn, call.b_hn + H, now.spare[k]);
                     else
                         p.gru_reset_before(H, now.gates[k], call.b_hn, now.h[k], now.spare[k]);
                 }
                 if (call.reset_after) {
                     p.multiply_add(now.rows, now.h, H, w_hn_t, G, H, now.spare);
                     for (int64_t k = 0; k < now.rows; ++k)
                         p.gru_reset_after(H, now.gates[k], now.spare[k], now.h[k], now.y[k]);
                     return;
                 }
                 float* n[kRows];
                 for (int64_t k = 0; k < now.rows; ++k) n[k] = now.gates[k] + 2 * H;
                 p.multiply_add(now.rows, now.spare, H, w_hn_t, G, H, n);
                 for (int64_t k = 0; k < now.rows; ++k) p.gru_blend(H, now.gates[k], now.h[k], now.y[k]);
             }});
}

}  // namespace segue::blocked
