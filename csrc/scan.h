// Time: how a law is taken through all steps of all sequences, and back. A law is a class per direction; elman.cpp is
// the simplest:
//
//   Law(p, call, rows)             with scratch for up to `rows` rows
//   void begin(sequence, mine)     before the first step of a group of sequences
//   void step(now)                 one step of the rows that are still running
//   void finish(sequence, mine)    after the last one
//
// Rows of a batch are independent, so they are dealt out to threads once for the whole sequence: a thread takes its
// rows through all of time and waits for nobody. Only where the weights do not fit the cache next to a core, or rows
// are too few, a team of threads shares the same rows, and deals out the columns of each product and the rows of the
// rest. A law is one object for its team: what `mine` does not cover belongs to another thread until the team waits.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "blocked.h"
#include "threads.h"

namespace segue::blocked {

using std::int64_t;

constexpr int64_t kGateValues = 1 << 17;  // gate values between the input part and the recurrent part: half an L2
constexpr int64_t kNearWeights = 450000;  // recurrent weights that fit the cache next to a core, measured

struct Sequence {
    int64_t index, first, length;  // its steps are rows [first, first + length) of x and y

    int64_t row(int64_t t, bool reverse) const { return first + (reverse ? length - 1 - t : t); }
};

// Longest first, so that the sequences still running at a step are the first ones; to the thread with least steps.
std::vector<std::vector<Sequence>> share_out(const Sequences& over, int shares);

// A block of rows of scratch, and the pointers to them.
class Rows {
   public:
    Rows(int64_t rows, int64_t width) : memory_(new float[rows * width]), width_(width), at_(rows) {
        for (int64_t k = 0; k < rows; ++k) at_[k] = memory_.get() + k * width;
    }
    float* operator[](int64_t k) const { return at_[k]; }
    float* const* data() const { return at_.data(); }
    void clear(int64_t k) const { std::fill(at_[k], at_[k] + width_, 0.0f); }
    // Row k from `source`, or zeros.
    void set(int64_t k, const float* source) const {
        if (source)
            std::copy(source, source + width_, at_[k]);
        else
            clear(k);
    }

   private:
    std::unique_ptr<float[]> memory_;
    int64_t width_;
    std::vector<float*> at_;
};

// One step of `rows` sequences, as one thread of a team sees it.
struct Now {
    const Primitives& p;
    const Team& team;
    int64_t rows;
    Range mine;
    const Sequence* sequence;
    const int64_t* n;       // [rows], which row of x and y the step is
    const int64_t* before;  // [rows], that of the step before; -1 at the first
    float** gates;          // on the way there: [rows][columns], bias and input part summed
    const float** h;        // [rows][R], the state before the step
    float** to;             // [rows], scratch for pointers of this thread
    const float** from;     // [rows], likewise

    // y[k] += W x[k], for all rows and the columns that are mine
    void multiply_add(const float* const* x, const Weights& w, float* const* y) const {
        const Range panels = team.part((w.outputs + p.panel - 1) / p.panel);
        blocked::multiply_add(p, rows, x, w, panels.from, panels.to, y);
    }
    // The same, of rows base + n[k] * width, into rows of `y`.
    void multiply_add(const float* base, int64_t width, const Weights& w, float* const* y) const {
        for (int64_t k = 0; k < rows; ++k) from[k] = base + n[k] * width;
        multiply_add(from, w, y);
    }
};

// Asks for rows of memory that a later step will touch: sequences lie far apart, more streams than a processor follows
// by itself.
inline void prefetch(const float* row, int64_t width) {
#if defined(__GNUC__)
    for (int64_t at = 0; at < width; at += 16) __builtin_prefetch(row + at);
#endif
}

// Row k of an optional array [N, width].
template <class T>
T* row_of(T* base, int64_t k, int64_t width) {
    return base ? base + k * width : nullptr;
}

inline void blend(const Now& now, const Zoneout& zone, int64_t k, int64_t units, const float* old, float* y) {
    if (zone.keep || zone.rate != 0.0f) now.p.mix(units, row_of(zone.keep, now.n[k], units), zone.rate, old, y);
}

// The recurrent product of a step, with recurrent dropout and layer norm.
class RecurrentProduct {
   public:
    // columns: all those with a norm, in so many groups
    RecurrentProduct(const Recurrence& over, int64_t columns, int groups, int64_t rows);

    // What the product is to see: mask * h, or h itself.
    const float* const* seen(const Now& now) const;
    // gates[k] + gate_at += W x[k], normed; `at` is where its columns begin among those with a norm.
    void add(const Now& now, const float* const* x, const Weights& w, int group, int64_t at, int64_t gate_at) const;

   private:
    const Recurrence& over_;
    int64_t columns_, groups_;
    Rows masked_, product_;
};

// What all laws do on the way back: kept[k] is the gradient of the state before a step, summed from all that uses it.
class StateGrad {
   public:
    // columns: of d, and those with a norm, in so many groups
    StateGrad(const RecurrenceGrad& over, int64_t d_columns, int64_t columns, int groups, int64_t rows);

    void begin(const Sequence* sequence, Range mine) const;
    void finish(const Sequence* sequence, Range mine) const;
    // dh of the step, without what zoneout hands on to the state before.
    void start(const Now& now) const;
    // The product's gradient for my rows, from that of the gates at d + d_at, through the norm.
    void norm(const Now& now, int group, int64_t at, int64_t d_at, int64_t size) const;
    // What the product has seen gets W^T of it.
    void add(const Now& now, const Weights& w_t, int64_t at, int64_t d_at) const;
    void end(const Now& now) const;

    void prefetch(int64_t n) const {
        blocked::prefetch(over_.gates + n * d_columns_, d_columns_);
        blocked::prefetch(over_.d + n * d_columns_, d_columns_);
        blocked::prefetch(over_.y + n * over_.width, over_.width);
        if (over_.dy) blocked::prefetch(over_.dy + n * over_.width, over_.width);
    }

    float* d(const Now& now, int64_t k) const { return over_.d + now.n[k] * d_columns_; }
    const float* gates(const Now& now, int64_t k) const { return over_.gates + now.n[k] * d_columns_; }
    // The gradient of what the product has seen.
    float* seen(int64_t k) const { return over_.mask ? masked_[k] : kept_[k]; }

    const Rows& dh() const { return dh_; }
    const Rows& kept() const { return kept_; }
    // Where the gradient of a group's product is.
    const float* product(const Now& now, int64_t k, int64_t at, int64_t d_at) const {
        return over_.norm.gain ? over_.dproduct + now.n[k] * columns_ + at : d(now, k) + d_at;
    }

   private:
    const RecurrenceGrad& over_;
    int64_t d_columns_, columns_, groups_;
    Rows dh_, kept_, masked_;
};

// The pointers of one thread.
struct Pointers {
    std::vector<int64_t> n, before;
    std::vector<float*> gates, to;
    std::vector<const float*> h, from;

    explicit Pointers(int64_t rows) : n(rows), before(rows), gates(rows), to(rows), h(rows), from(rows) {}
    Now now(const Primitives& p, const Team& team, int64_t rows, const Sequence* sequence) {
        return {p,        team,         rows,         team.part(rows), sequence, n.data(), before.data(),
                gates.data(), h.data(), to.data(), from.data()};
    }
};

// The gates of some steps between the input part and the recurrent part, where they are not kept.
struct GateBlock {
    int64_t steps;  // over all rows
    std::unique_ptr<float[]> values;

    GateBlock(const Recurrence& over, int64_t columns, const std::vector<Sequence>& share);
};

// Writes the bias and the input part of steps [t0, t1) into the gates; `at(k, t)` says where they are.
template <class At>
void input_part(const Primitives& p, const Team& team, const Recurrence& over, int64_t columns,
                const Sequence* sequence, int64_t rows, int64_t t0, int64_t t1, At at) {
    const float* x[kRows];
    float* y[kRows];
    int64_t used = 0, all = 0;
    for (int64_t k = 0; k < rows; ++k) all += std::max<int64_t>(0, std::min(t1, sequence[k].length) - t0);
    const Range mine = team.part(all);
    const int64_t panels = (columns + p.panel - 1) / p.panel;
    const auto flush = [&] {
        if (over.x) multiply_add(p, used, x, over.w_x, 0, panels, y);
        used = 0;
    };
    int64_t count = 0;
    for (int64_t k = 0; k < rows; ++k) {
        for (int64_t t = t0; t < std::min(t1, sequence[k].length); ++t, ++count) {
            if (count < mine.from || count >= mine.to) continue;
            const int64_t n = sequence[k].row(t, over.over.reverse);
            const float* start = over.x ? over.b : over.p + n * columns;
            y[used] = at(k, t);
            std::copy(start, start + columns, y[used]);
            if (over.x) x[used] = over.x + n * over.w_x.inputs;
            if (++used == kRows) flush();
        }
    }
    flush();
}

// At most kRows sequences, longest first, through all their steps.
template <class Law>
void scan_group(const Primitives& p, const Team& team, Law& law, const Recurrence& over, const Sequence* sequence,
                int64_t rows, const GateBlock& block, Pointers& own) {
    const int64_t R = over.width, longest = sequence[0].length, columns = law.columns();
    const int64_t steps = std::max<int64_t>(1, block.steps / rows);
    const Range all = team.part(rows);
    law.begin(sequence, all);
    for (int64_t k = 0; k < rows; ++k) own.h[k] = over.h0 + sequence[k].index * R, own.n[k] = -1;
    int64_t running = rows;
    for (int64_t t0 = 0; t0 < longest; t0 += steps) {
        const int64_t t1 = std::min(t0 + steps, longest);
        const auto gates = [&](int64_t k, int64_t t) {
            return over.gates ? over.gates + sequence[k].row(t, over.over.reverse) * columns
                              : block.values.get() + (k * (t1 - t0) + t - t0) * columns;
        };
        while (sequence[running - 1].length <= t0) --running;
        team.wait();
        input_part(p, team, over, law.input_columns(), sequence, running, t0, t1, gates);
        for (int64_t t = t0; t < t1; ++t) {
            while (sequence[running - 1].length <= t) --running;
            for (int64_t k = 0; k < running; ++k) {
                own.before[k] = own.n[k];
                own.n[k] = sequence[k].row(t, over.over.reverse);
                own.gates[k] = gates(k, t);
            }
            team.wait();  // as sequences end, their neighbours move to other threads
            law.step(own.now(p, team, running, sequence));
            for (int64_t k = 0; k < running; ++k) own.h[k] = over.y + own.n[k] * R;
        }
    }
    team.wait();
    for (int64_t k = all.from; k < all.to; ++k)
        if (own.h[k] != over.h_last + sequence[k].index * R)
            std::copy(own.h[k], own.h[k] + R, over.h_last + sequence[k].index * R);
    law.finish(sequence, all);
    team.wait();
}

template <class Law>
void scan_group_back(const Primitives& p, const Team& team, Law& law, const RecurrenceGrad& over,
                     const Sequence* sequence, int64_t rows, Pointers& own) {
    const int64_t R = over.width;
    const bool reverse = over.over.reverse;
    const Range all = team.part(rows);
    law.begin(sequence, all);
    int64_t running = 0;
    for (int64_t t = sequence[0].length - 1; t >= 0; --t) {
        while (running < rows && sequence[running].length > t) ++running;
        for (int64_t k = 0; k < running; ++k) {
            own.n[k] = sequence[k].row(t, reverse);
            own.before[k] = t ? sequence[k].row(t - 1, reverse) : -1;
            own.h[k] = t ? over.y + own.before[k] * R : over.h0 + sequence[k].index * R;
        }
        const Range mine = team.part(running);
        for (int64_t k = mine.from; t > 0 && k < mine.to; ++k) law.prefetch(own.before[k]);
        team.wait();
        law.step(own.now(p, team, running, sequence));
    }
    team.wait();
    law.finish(sequence, all);
    team.wait();
}

// Whether a team shares all rows: the weights are too large for one core's cache, or there are fewer rows than threads.
bool together(const Sequences& over, const Weights& w_h, int threads);

// Deals the sequences out and calls group(team, sequences, rows, law) until all are done.
template <class Law, class Call, class Group>
void each_group(const Primitives& p, const Call& call, const Sequences& over, const Weights& w_h, double work,
                Group group) {
    if (over.count == 0) return;
    const int wanted = useful_threads(over.threads, over.threads, work);
    const bool shared = together(over, w_h, wanted);
    const int threads = shared ? wanted : static_cast<int>(std::min<int64_t>(wanted, over.count));
    const auto shares = share_out(over, shared ? 1 : threads);
    std::vector<std::unique_ptr<Law>> laws;  // made before threads start, so that these cannot run out of memory
    for (const auto& share : shares)
        laws.push_back(std::make_unique<Law>(p, call, share, std::min<int64_t>(kRows, share.size())));
    const auto run = [&](int k, const Team& team) {
        const int64_t count = shares[k].size();
        Pointers own(std::min(kRows, count));
        for (int64_t s = 0; s < count; s += kRows)
            group(team, *laws[k], shares[k].data() + s, std::min(kRows, count - s), own);
    };
    if (shared)
        run_team(threads, [&](const Team& team) { run(0, team); });
    else
        run_shares(threads, [&](int k) { run(k, Team{}); });
}

template <class Law, class Call>
void scan(const Primitives& p, const Call& call) {
    const Recurrence& over = call.over;
    const double work = static_cast<double>(over.over.steps) * static_cast<double>(over.hidden) *
                        static_cast<double>(over.width + (over.x ? over.w_x.inputs : 0));
    each_group<Law>(p, call, over.over, over.w_h, work,
                    [&](const Team& team, Law& law, const Sequence* sequence, int64_t rows, Pointers& own) {
                        scan_group(p, team, law, over, sequence, rows, law.block, own);
                    });
}

template <class Law, class Call>
void scan_back(const Primitives& p, const Call& call) {
    const RecurrenceGrad& over = call.over;
    const double work = static_cast<double>(over.over.steps) * static_cast<double>(over.hidden * over.width);
    each_group<Law>(p, call, over.over, over.w_h_t, work,
                    [&](const Team& team, Law& law, const Sequence* sequence, int64_t rows, Pointers& own) {
                        scan_group_back(p, team, law, over, sequence, rows, own);
                    });
}

}  // namespace segue::blocked
