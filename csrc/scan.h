// Time: how a law is taken through all steps of all sequences, and back. A law is a class per direction; elman.cpp is
// the simplest:
//
//   Law(p, call, rows)             with scratch for up to `rows` rows
//   void begin(sequence, mine)     before the first step of sequences
//   void step(now)                 one step of the rows that are still running
//   void finish(sequence, mine)    after the last one
//
// The sums of the gates begin with the bias, then come the inputs, then the state. Where its products have no norm, a
// law adds both parts in one go and is applied to the sums before they leave the nearest cache. Otherwise, and where
// rows are so few that reading the input weights at each of many steps would cost more than it saves, the input part of
// many steps is made first.
//
// Rows of a batch are independent, so they are dealt out to threads once for the whole sequence: a thread takes its
// rows through all of time and waits for nobody. Where a sequence ends, its row goes on with another one of the thread,
// so resets and unequal lengths leave rows as few and as full as equal lengths do. Only where the weights do not fit
// the cache next to a core, or rows are too few, a team of threads shares the same rows, and deals out the columns of
// each product and the rows of the rest. A law is one object for its team: what `mine` does not cover belongs to
// another thread until the team waits.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "blocked.h"
#include "threads.h"

namespace segue::blocked {

using std::int64_t;

constexpr int64_t kGateValues = 1 << 17;  // gate values between the input part and the recurrent part: half an L2
constexpr int64_t kFewRows = 4;           // below, weights are used faster than a cache gives them
constexpr int64_t kNearWeights = 450000;  // recurrent weights that fit the cache next to a core, measured
constexpr int64_t kSharedThere = 40000;   // those that are worth a team on fewer rows than threads, measured
constexpr int64_t kSharedBack = 110000;   // likewise on the way back, where a team waits twice a step
constexpr int64_t kNearHalfRows = 32;     // in half precision, two tiles of rows
constexpr int64_t kNearRows = 24;         // rows enough for such weights: what they read and write stays near, measured
constexpr int64_t kSmallWeights = 70000;  // recurrent weights of which the nearest cache holds a good part, and
constexpr int64_t kShareRows = 8;         // the rows that are enough to use these, measured; others want three of it

struct Sequence {
    int64_t index, first, length;  // its steps are rows [first, first + length) of x and y
    int64_t next;                  // the one of its share that is taken after it, in its row; or -1
    int64_t steps;                 // of the first one of a row: of all that this takes

    int64_t row(int64_t t, bool reverse) const { return first + (reverse ? length - 1 - t : t); }
};

// Longest first, to the share with least steps.
std::vector<std::vector<Sequence>> share_out(const Sequences& over, int64_t shares);

// Makes rows of a share, longest first: where a sequence ends, the row goes on with another one, so that tiles stay
// full. The first sequences of the rows come first in the share, the row with most steps first, so that the rows still
// running at a step are the first ones; those without steps come last in their row. Returns how many rows there are.
int64_t chain(std::vector<Sequence>& share, int64_t most);

// A block of rows of scratch, and the pointers to them; nothing where rows have no width, as those of an option that is
// not taken: a single step is short enough to feel each allocation.
class Rows {
   public:
    Rows(int64_t rows, int64_t width) : memory_(width ? new float[rows * width] : nullptr), width_(width) {
        if (width) at_.resize(rows);
        for (size_t k = 0; k < at_.size(); ++k) at_[k] = memory_.get() + k * width;
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
    const int64_t* done;    // [rows], on the way back: which step of its sequence this is, counted from 1
    const int64_t* n;       // [rows], which row of x and y the step is
    const int64_t* before;  // [rows], that of the step before; -1 at the first
    float** gates;          // on the way there: [rows][columns], where they are made; null in a whole step, unless kept
    float** input;          // on the way there: [rows][G], the input part where it was made before; or null
    const float** start;    // on the way there: [rows][columns], where the sums of the gates start
    const float** x;        // [rows][I], the inputs still to be added; or null
    const float** h;        // [rows][R], the state before the step
    float** to;             // [rows], scratch for pointers of this thread
    const float** from;     // [rows], likewise

    // Calls part(from, to) for panels of weights of this width until none are left.
    template <class Part>
    void share_panels(const Weights& w, Part part) const {
        const int64_t all = panels(p, w);
        const Range mine = team.part(all);
        // Rows are rounded anew in each part, and few rows are done sooner than a part is asked for.
        if (w.half || team.size == 1 || rows < kFewRows) return part(mine.from, mine.to);
        team.share(all, [&](int64_t panel) { part(panel, panel + 1); });
    }
    // y[k] += W x[k], for all rows and some columns
    void multiply_add(const float* const* x, const Weights& w, float* const* y) const {
        share_panels(w, [&](int64_t from, int64_t to) { blocked::multiply_add(p, rows, x, w, from, to, y); });
    }
    // The same, of rows base + n[k] * width, into rows of `y`.
    void multiply_add(const float* base, int64_t width, const Weights& w, float* const* y) const {
        for (int64_t k = 0; k < rows; ++k) from[k] = base + n[k] * width;
        multiply_add(from, w, y);
    }
    // Calls advance(step) for parts of the step of a law without a norm.
    template <class Advance>
    void step(const Weights& w_x, const Weights& w_h, const float* const* seen, Advance advance) const {
        float* scratch = w_h.half ? half_scratch(rows, w_h.inputs, w_x.inputs) : nullptr;
        share_panels(w_h, [&](int64_t from, int64_t to) {
            advance(Step{rows, start, x, seen, w_x, w_h, from, to, scratch});
        });
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

inline bool is_zoned(const Zoneout& zone) {
    return zone.keep || zone.rate != 0.0f;
}

inline void blend(const Now& now, const Zoneout& zone, int64_t k, int64_t units, const float* old, float* y) {
    if (is_zoned(zone)) now.p.mix(units, row_of(zone.keep, now.n[k], units), zone.rate, old, y);
}

// The recurrent product of a step, with recurrent dropout, and the layer norms of both products.
class RecurrentProduct {
   public:
    // columns: all those with a norm, G, in so many groups
    RecurrentProduct(const Recurrence& over, int64_t columns, int groups, int64_t rows);

    // What the product is to see: mask * h; or h itself.
    const float* const* seen(const Now& now) const;
    // W x[k] where the norm wants it, at `at`; or, without a norm, added to gates[k] + gate_at.
    void multiply(const Now& now, const float* const* x, const Weights& w, int64_t at, int64_t gate_at) const;
    // A group of `size` columns at `at`: gates[k] + at gets the bias and the normed input part, and gates[k] + gate_at
    // the normed recurrent part, on top or, where there is one, on a start of its own. Nothing without norms.
    void normalize(const Now& now, int group, int64_t at, int64_t size, int64_t gate_at,
                   const float* start = nullptr) const;

   private:
    float* product(const Now& now, int64_t k) const {
        return over_.norm_h.xhat ? over_.norm_h.xhat + now.n[k] * columns_ : product_[k];
    }
    float* rstd(const Now& now, int64_t k, const Norm& norm, int group) const {
        return norm.rstd ? norm.rstd + now.n[k] * groups_ + group : product_[k] + columns_;
    }

    const Recurrence& over_;
    int64_t columns_, groups_;
    Rows seen_, product_;
};

// What all laws do on the way back: kept[k] is the gradient of the state before a step, summed from all that uses it.
class StateGrad {
   public:
    // columns: of d, and those with a norm, in so many groups; more: sums that the law adds up by itself
    StateGrad(const RecurrenceGrad& over, int64_t d_columns, int64_t columns, int groups, int64_t rows,
              int64_t more = 0);

    void begin(const Sequence* sequence, Range mine) const;
    void finish(const Sequence* sequence, Range mine) const;
    // dh of the step, without what zoneout hands on to the state before.
    void start(const Now& now) const;
    // The gradients of both products for my rows, through their norms: of a group of `size` columns, from that of the
    // gates, which is at d + at for the input part and at d + d_at for the recurrent one.
    void norm(const Now& now, int group, int64_t at, int64_t d_at, int64_t size) const;
    // Adds up d of my rows, after all norms.
    void sum(const Now& now) const;
    // What the product has seen gets W^T of it.
    void add(const Now& now, const Weights& w_t, int64_t at, int64_t d_at) const;
    // And W2^T of another group; both have the same columns, which must stay with one thread.
    void add(const Now& now, const Weights& w_t, int64_t at, int64_t d_at, const Weights& w2_t, int64_t at2,
             int64_t d_at2) const;
    void end(const Now& now) const;

    void prefetch(int64_t n) const {
        blocked::prefetch(over_.gates + n * d_columns_, d_columns_);
        blocked::prefetch(over_.d + n * d_columns_, d_columns_);
        blocked::prefetch(over_.y + n * over_.width, over_.width);
        if (over_.dy) blocked::prefetch(over_.dy + n * over_.width, over_.width);
    }

    float* d(const Now& now, int64_t k) const { return over_.d + now.n[k] * d_columns_; }
    const float* gates(const Now& now, int64_t k) const { return over_.gates + now.n[k] * d_columns_; }
    // The law's own sums: where a step adds to them, and, when a sequence is finished, where they are.
    float* more(int64_t k) const { return part_[k] + sums() - more_; }
    const float* more_sums(int64_t k) const { return sum_[k] + sums() - more_; }
    // The gradient of what the product has seen.
    float* seen(int64_t k) const { return over_.mask ? masked_[k] : kept_[k]; }

    const Rows& dh() const { return dh_; }
    const Rows& kept() const { return kept_; }
    // Where the gradient of a group's product is.
    const float* product(const Now& now, int64_t k, int64_t at, int64_t d_at) const {
        return over_.norm_h.gain ? over_.du_h + now.n[k] * columns_ + at : d(now, k) + d_at;
    }

   private:
    int64_t sums() const { return d_columns_ + (over_.norm_h.gain ? 2 * columns_ : 0) + more_; }

    const RecurrenceGrad& over_;
    int64_t d_columns_, columns_, groups_, more_;
    Rows dh_, kept_, masked_;
    Rows part_, sum_;  // of d, dgain_x, dgain_h and more: of the last steps, and of those before
};

// Where one thread is in each row, and its pointers; see Now. They are made without an allocation, which a single step
// would feel.
struct Pointers {
    Sequence sequence[kRows];
    int64_t done[kRows], n[kRows], before[kRows];  // done: steps of that sequence
    float *gates[kRows], *input[kRows], *to[kRows];
    const float *start[kRows], *x[kRows], *h[kRows], *from[kRows];

    Now now(const Primitives& p, const Team& team, int64_t rows) {
        return {p, team, rows, team.part(rows), sequence, done, n, before, gates, input, start, x, h, to, from};
    }
};

// How the input part comes into the gates, for a law whose sums are made in one go (is_whole) or are not.
struct InputPart {
    bool is_added;      // whole, and added at each step
    int64_t steps = 0;  // else: how many steps, over all rows, are made at a time
    std::unique_ptr<float[]> values;  // and where: in the gates if kept, with a norm in xhat if that is kept; or here
    Rows gates;         // of a step, with a norm, where they are not kept

    // columns: of the gates as they are kept
    InputPart(const Primitives& p, const Recurrence& over, bool is_whole, int64_t columns,
              const std::vector<Sequence>& share, int64_t rows);
};

// Writes the input part of steps [t0, t1) of the rows, without a norm on top of the bias, to where at(k, t, n) says.
template <class At>
void input_part(const Primitives& p, const Team& team, const Recurrence& over, int64_t columns, const Sequence* share,
                const Pointers& own, int64_t rows, int64_t t0, int64_t t1, At at) {
    const float* x[kRows];
    float* y[kRows];
    int64_t used = 0, all = 0;
    for (int64_t k = 0; k < rows; ++k) all += std::min(t1, share[k].steps) - t0;
    const Range mine = team.part(all);
    const auto flush = [&] {
        multiply_add(p, used, x, over.w_x, 0, panels(p, over.w_x), y);
        used = 0;
    };
    int64_t count = 0;
    for (int64_t k = 0; k < rows; ++k) {
        const Sequence* sequence = own.sequence + k;
        int64_t done = own.done[k];
        for (int64_t t = t0; t < std::min(t1, share[k].steps); ++t, ++count, ++done) {
            if (done == sequence->length) sequence = share + sequence->next, done = 0;
            if (count < mine.from || count >= mine.to) continue;
            const int64_t n = sequence->row(done, over.over.reverse);
            y[used] = at(k, t, n);
            if (over.norm_x.gain)
                std::fill(y[used], y[used] + columns, 0.0f);
            else
                std::copy(over.b, over.b + columns, y[used]);
            x[used] = over.x + n * over.w_x.inputs;
            if (++used == kRows) flush();
        }
    }
    flush();
}

// The steps of the sequence after this one in its row; null where there are none.
inline const Sequence* following(const Sequence* share, const Sequence& sequence) {
    const Sequence* next = sequence.next < 0 ? nullptr : share + sequence.next;
    return next && next->length ? next : nullptr;
}

// Takes the sequences of a share one after the other in their rows. Before each, begin(k, is_mine) is called, of all
// rows; after each, finish(k), of those that are mine.
template <class Begin, class Finish>
class Turns {
   public:
    Turns(const Sequence* share, Pointers& own, Begin begin, Finish finish)
        : share_(share), own_(own), begin_(begin), finish_(finish) {}

    void first(int64_t rows, Range mine) const {
        for (int64_t k = 0; k < rows; ++k) enter(k, share_[k], mine);
    }
    // Before a step: where a sequence is over, the next one. Whether there was any.
    bool next(int64_t running, Range mine) const {
        bool is_over = false;
        for (int64_t k = 0; k < running; ++k) {
            if (own_.done[k] != own_.sequence[k].length) continue;
            leave(k, mine);
            is_over = true;
        }
        return is_over;
    }
    // After all steps; sequences without steps are last.
    void last(Range mine) const {
        for (int64_t k = mine.from; k < mine.to; ++k) {
            while (own_.sequence[k].next >= 0) leave(k, mine);
            finish_(k);
        }
    }

   private:
    void enter(int64_t k, const Sequence& sequence, Range mine) const {
        own_.sequence[k] = sequence, own_.done[k] = 0;
        begin_(k, k >= mine.from && k < mine.to);
    }
    void leave(int64_t k, Range mine) const {
        if (k >= mine.from && k < mine.to) finish_(k);
        enter(k, share_[own_.sequence[k].next], mine);
    }

    const Sequence* share_;
    Pointers& own_;
    Begin begin_;
    Finish finish_;
};

// All steps of the rows of a share.
template <class Law>
void scan_share(const Primitives& p, const Team& team, Law& law, const Recurrence& over, const Sequence* share,
                int64_t rows, Pointers& own) {
    const InputPart& input = law.input;
    const bool is_made = !input.is_added, has_norm = over.norm_x.gain, reverse = over.over.reverse;
    const int64_t R = over.width, longest = share[0].steps, columns = law.columns(), G = law.input_columns();
    const int64_t steps = is_made ? std::max<int64_t>(1, input.steps / rows) : longest;
    const auto begin = [&](int64_t k, bool is_mine) {
        own.h[k] = over.h0 + own.sequence[k].index * R, own.n[k] = -1;
        if (is_mine) law.begin(own.sequence, {k, k + 1});
    };
    const auto finish = [&](int64_t k) {
        float* last = over.h_last + own.sequence[k].index * R;
        if (own.h[k] != last) std::copy(own.h[k], own.h[k] + R, last);
        law.finish(own.sequence, {k, k + 1});
    };
    const Turns turns(share, own, begin, finish);
    turns.first(rows, team.part(rows));
    int64_t running = rows;
    for (int64_t t0 = 0; t0 < longest; t0 += steps) {
        const int64_t t1 = std::min(t0 + steps, longest);
        const auto made = [&](int64_t k, int64_t t, int64_t n) -> float* {
            if (has_norm && over.norm_x.xhat) return over.norm_x.xhat + n * G;
            if (!has_norm && over.gates) return over.gates + n * columns;
            return input.values.get() + (k * (t1 - t0) + t - t0) * columns;
        };
        while (share[running - 1].steps <= t0) --running;
        team.wait();
        if (is_made) input_part(p, team, over, G, share, own, running, t0, t1, made);
        for (int64_t t = t0; t < t1; ++t) {
            while (share[running - 1].steps <= t) --running;
            team.wait();  // for all of the states before; as rows end, their neighbours move to other threads
            if (turns.next(running, team.part(running))) team.wait();
            for (int64_t k = 0; k < running; ++k) {
                const Sequence& sequence = own.sequence[k];
                const int64_t n = sequence.row(own.done[k]++, reverse);
                if (own.done[k] == sequence.length)
                    if (const Sequence* next = following(share, sequence))
                        prefetch(over.x + next->row(0, reverse) * over.w_x.inputs, over.w_x.inputs);
                own.before[k] = own.n[k];
                own.n[k] = n;
                own.x[k] = input.is_added ? over.x + n * over.w_x.inputs : nullptr;
                own.input[k] = is_made ? made(k, t, n) : nullptr;
                own.start[k] = is_made ? own.input[k] : over.b;
                own.gates[k] = over.gates ? over.gates + n * columns : has_norm ? input.gates[k] : own.input[k];
            }
            law.step(own.now(p, team, running));
            for (int64_t k = 0; k < running; ++k) own.h[k] = over.y + own.n[k] * R;
        }
    }
    team.wait();
    turns.last(team.part(rows));
    team.wait();
}

template <class Law>
void scan_share_back(const Primitives& p, const Team& team, Law& law, const RecurrenceGrad& over,
                     const Sequence* share, int64_t rows, Pointers& own) {
    const int64_t R = over.width;
    const bool reverse = over.over.reverse;
    const auto begin = [&](int64_t k, bool is_mine) {
        if (is_mine) law.begin(own.sequence, {k, k + 1});
    };
    const auto finish = [&](int64_t k) { law.finish(own.sequence, {k, k + 1}); };
    const Turns turns(share, own, begin, finish);
    turns.first(rows, team.part(rows));
    int64_t running = rows;
    for (int64_t step = 0; step < share[0].steps; ++step) {
        while (share[running - 1].steps <= step) --running;
        const Range mine = team.part(running);
        team.wait();
        turns.next(running, mine);
        for (int64_t k = 0; k < running; ++k) {
            const Sequence& sequence = own.sequence[k];
            const int64_t t = sequence.length - ++own.done[k];
            own.n[k] = sequence.row(t, reverse);
            own.before[k] = t ? sequence.row(t - 1, reverse) : -1;
            own.h[k] = t ? over.y + own.before[k] * R : over.h0 + sequence.index * R;
        }
        for (int64_t k = mine.from; k < mine.to; ++k) {
            if (own.before[k] >= 0)
                law.prefetch(own.before[k]);
            else if (const Sequence* next = following(share, own.sequence[k]))
                law.prefetch(next->row(next->length - 1, reverse));
        }
        law.step(own.now(p, team, running));
    }
    team.wait();
    turns.last(team.part(rows));
    team.wait();
}

// Whether a team shares all rows: the weights are too large for one core's cache, or there are fewer rows than threads.
// In that case the weights must be `worth` it, since the team waits at every step.
bool together(const Sequences& over, const Weights& w_h, int threads, int64_t worth);

// In how many shares threads that wait for nobody take their rows.
int64_t shares_of(const Sequences& over, const Weights& w_h, int threads);

// Deals the sequences out and calls take(team, law, share, rows, own) for each share.
template <class Law, class Call, class Take>
void each_share(const Primitives& p, const Call& call, const Sequences& over, const Weights& w_h, double work,
                int64_t worth, Take take) {
    if (over.count == 0) return;
    const int wanted = useful_threads(over.threads, over.threads, work);
    const bool shared = together(over, w_h, wanted, worth);
    auto shares = share_out(over, shared ? 1 : shares_of(over, w_h, wanted));
    const int64_t near = w_h.half ? kNearHalfRows : kNearRows;
    // Single steps leave nothing behind that would have to stay near.
    const bool is_far = w_h.inputs * w_h.outputs > kNearWeights || shares.front().front().length <= 1;
    const int64_t most = is_far ? kRows : near;
    std::vector<int64_t> rows;
    std::vector<std::unique_ptr<Law>> laws;  // made before threads start, so that these cannot run out of memory
    for (auto& share : shares) {
        rows.push_back(chain(share, most));
        laws.push_back(std::make_unique<Law>(p, call, share, rows.back()));
    }
    const auto run = [&](int64_t k, const Team& team) {
        Pointers own;
        take(team, *laws[k], shares[k].data(), rows[k], own);
    };
    if (shared)
        run_team(wanted, [&](const Team& team) { run(0, team); });
    else
        run_shares(wanted, shares.size(), [&](int64_t k) { run(k, Team{}); });
}

template <class Law, class Call>
void scan(const Primitives& p, const Call& call) {
    const Recurrence& over = call.over;
    const double work = static_cast<double>(over.over.steps) * static_cast<double>(over.hidden) *
                        static_cast<double>(over.width + over.w_x.inputs);
    each_share<Law>(p, call, over.over, over.w_h, work, kSharedThere,
                    [&](const Team& team, Law& law, const Sequence* share, int64_t rows, Pointers& own) {
                        scan_share(p, team, law, over, share, rows, own);
                    });
}

template <class Law, class Call>
void scan_back(const Primitives& p, const Call& call) {
    const RecurrenceGrad& over = call.over;
    const double work = static_cast<double>(over.over.steps) * static_cast<double>(over.hidden * over.width);
    each_share<Law>(p, call, over.over, over.w_h_t, work, kSharedBack,
                    [&](const Team& team, Law& law, const Sequence* share, int64_t rows, Pointers& own) {
                        scan_share_back(p, team, law, over, share, rows, own);
                    });
}

}  // namespace segue::blocked
