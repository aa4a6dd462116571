// Diagonal recurrences: each unit by itself, so sequences and units are shared out alike. What a thread takes are
// sequences that follow each other, and some of the units; their steps, one after the other in memory, are rows of one
// product and at once those of time.
#include "scan.h"

namespace segue::blocked {
namespace {

constexpr int64_t kAhead = 4;   // steps, on the way back, after which what is asked for is needed
constexpr int64_t kSteps = 24;  // of a product; what is kept of more would wait for the memory to take it, measured

// Pieces of the work: a group of sequences, and a part of all panels of units.
class Plan {
   public:
    Plan(const Sequences& over, int64_t panels, int threads) {
        const int64_t wanted = threads == 1 ? 1 : 4 * threads;  // so that a faster one can take more
        const int64_t enough = std::max<int64_t>(1, (over.steps + wanted - 1) / wanted);
        sequences_.reserve(over.count);
        ends_.reserve(wanted + 1);
        for (int64_t s = 0, first = 0, steps = 0; s < over.count; first += over.lengths[s++]) {
            sequences_.push_back({s, first, over.lengths[s], -1, over.lengths[s]});
            steps += std::max<int64_t>(1, over.lengths[s]);
            if (steps < enough && s + 1 < over.count) continue;
            ends_.push_back(s + 1);
            steps = 0;
        }
        const int64_t groups = std::max<int64_t>(1, ends_.size());
        panels_ = panels, parts_ = std::max<int64_t>(1, std::min(panels, wanted / groups));
    }

    int64_t pieces() const { return static_cast<int64_t>(ends_.size()) * parts_; }
    const Sequence* begin(int64_t piece) const {
        const int64_t group = piece / parts_;
        return sequences_.data() + (group ? ends_[group - 1] : 0);
    }
    const Sequence* end(int64_t piece) const { return sequences_.data() + ends_[piece / parts_]; }
    Range panels(int64_t piece) const {
        return part_of(panels_, static_cast<int>(piece % parts_), static_cast<int>(parts_));
    }

   private:
    std::vector<Sequence> sequences_;
    std::vector<int64_t> ends_;
    int64_t panels_, parts_;
};

Range units_of(const Primitives& p, Range panels, int64_t hidden) {
    return {panels.from * p.lanes, std::min(panels.to * p.lanes, hidden)};
}

// These units of a row whose parts, of `hidden` units each, stand one after the other.
void copy_units(Range units, int64_t parts, int64_t hidden, const float* from, float* to) {
    if (from == to) return;
    for (int64_t k = 0; k < parts; ++k, from += hidden, to += hidden)
        std::copy(from + units.from, from + units.to, to + units.from);
}

void prefetch_units(Range units, int64_t parts, int64_t hidden, const float* row) {
    for (int64_t k = 0; k < parts; ++k) prefetch(row + k * hidden + units.from, units.to - units.from);
}

void scan_piece(const Primitives& p, const DiagonalScan& call, const Sequence* begin, const Sequence* end,
                Range panels) {
    const DiagonalParts parts = parts_of(call.law);
    const int64_t I = call.w_x.inputs, G = call.w_x.outputs, R = parts.states * call.hidden;
    const float *x[kSteps], *start[kSteps], *nothing = nullptr;
    DiagonalRow rows[kSteps];
    int64_t used = 0;
    const auto flush = [&] {
        if (!used) return;
        const Step step{used, start, &nothing, x, {}, call.w_x, panels.from, panels.to, nullptr};
        p.advance_diagonal(call.law, step, rows, call.rates);
        used = 0;
    };
    for (const Sequence* sequence = begin; sequence < end; ++sequence) {
        const float* h = call.h0 + sequence->index * R;
        for (int64_t t = 0; t < sequence->length; ++t) {
            const int64_t n = sequence->row(t, call.over.reverse);
            x[used] = call.p ? nullptr : call.x + n * I;
            start[used] = call.p ? call.p + n * G : call.b;
            rows[used] = {row_of(call.gates, n, G), h, call.y + n * R};
            h = call.y + n * R;
            if (++used == kSteps) flush();
        }
    }
    flush();
    const Range units = units_of(p, panels, call.hidden);
    for (const Sequence* sequence = begin; sequence < end; ++sequence) {
        const float* h = call.h0 + sequence->index * R;
        if (sequence->length) h = call.y + sequence->row(sequence->length - 1, call.over.reverse) * R;
        copy_units(units, parts.states, call.hidden, h, call.h_last + sequence->index * R);
    }
}

// The way back through some units of a sequence, from its last step to its first. `sums` has room for two rows of all
// that is summed.
void scan_back_sequence(const Primitives& p, const DiagonalGrad& call, const Sequence& sequence, Range units,
                        float* sums) {
    constexpr int64_t kBlock = 128;  // sums of sums, so that rounding does not grow with the steps
    const DiagonalParts parts = parts_of(call.law);
    const int64_t H = call.hidden, G = parts.gates * H, W = parts.rates * H, R = parts.states * H;
    float *part = sums, *all = sums + G + W, *dh = call.dh0 + sequence.index * R;
    std::fill(sums, sums + 2 * (G + W), 0.0f);
    if (call.dh_last)
        copy_units(units, parts.states, H, call.dh_last + sequence.index * R, dh);
    else
        for (int64_t k = 0; k < parts.states; ++k) std::fill(dh + k * H + units.from, dh + k * H + units.to, 0.0f);
    for (int64_t t = sequence.length; t-- > 0;) {
        const int64_t n = sequence.row(t, call.over.reverse);
        const float* h = t ? call.y + sequence.row(t - 1, call.over.reverse) * R : call.h0 + sequence.index * R;
        if (t >= kAhead) {
            const int64_t m = sequence.row(t - kAhead, call.over.reverse);
            prefetch_units(units, parts.gates, H, call.gates + m * G);
            prefetch_units(units, parts.states, H, call.y + m * R);
            if (call.dy) prefetch_units(units, parts.states, H, call.dy + m * R);
        }
        const DiagonalRowGrad row{H,  call.gates + n * G, call.rates, h,       row_of(call.dy, n, R),
                                  dh, call.d + n * G,     part,       part + G};
        p.diagonal_back(call.law, row, units.from, units.to);
        if (t % kBlock) continue;
        p.add(G + W, all, part, all);
        std::fill(part, part + G + W, 0.0f);
    }
    copy_units(units, parts.gates, H, all, call.d_sum + sequence.index * G);
    copy_units(units, parts.rates, H, all + G, row_of(call.drates, sequence.index, W));
}

}  // namespace

void scan_diagonal(const Primitives& p, const DiagonalScan& call) {
    constexpr int64_t kLaw = 32;  // what a unit's law takes beside its product, in multiply-adds
    const double work =
        static_cast<double>(call.over.steps) * static_cast<double>(call.w_x.outputs * (call.w_x.inputs + kLaw));
    const int threads = useful_threads(call.over.threads, call.over.threads, work);
    const Plan plan(call.over, panels(p, call.w_x), threads);
    run_shares(threads, plan.pieces(), [&](int64_t piece) {
        scan_piece(p, call, plan.begin(piece), plan.end(piece), plan.panels(piece));
    });
}

void scan_diagonal_back(const Primitives& p, const DiagonalGrad& call) {
    const DiagonalParts parts = parts_of(call.law);
    const int64_t H = call.hidden, sums = 2 * (parts.gates + parts.rates) * H;
    const double work = static_cast<double>(call.over.steps * H) * 32;  // exponentials, and numbers read and written
    const int threads = useful_threads(call.over.threads, call.over.threads, work);
    const Plan plan(call.over, panels(p, parts.gates * H, parts.gates), threads);
    const std::unique_ptr<float[]> memory(new float[plan.pieces() * sums]);
    run_shares(threads, plan.pieces(), [&](int64_t piece) {
        const Range units = units_of(p, plan.panels(piece), H);
        for (const Sequence* sequence = plan.begin(piece); sequence < plan.end(piece); ++sequence)
            scan_back_sequence(p, call, *sequence, units, memory.get() + piece * sums);
    });
}

}  // namespace segue::blocked
