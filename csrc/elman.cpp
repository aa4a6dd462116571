#include "scan.h"

namespace segue::blocked {
namespace {

class ElmanScan {
   public:
    ElmanScan(const Primitives& p, const Elman& call, const std::vector<Sequence>& share, int64_t rows)
        : input(p, call.over, is_whole(call), call.over.hidden, share, rows),
          call_(call),
          product_(call.over, call.over.hidden, 1, rows) {}

    const InputPart input;
    int64_t columns() const { return call_.over.hidden; }
    int64_t input_columns() const { return call_.over.hidden; }
    void begin(const Sequence*, Range) {}
    void finish(const Sequence*, Range) {}

    void step(const Now& now) {
        const Recurrence& over = call_.over;
        const int64_t H = over.hidden;
        const float* const* seen = product_.seen(now);
        if (over.mask) now.team.wait();
        if (is_whole(call_)) {
            ElmanRow rows[kRows];
            for (int64_t k = 0; k < now.rows; ++k) rows[k] = {over.gates ? now.gates[k] : nullptr, y(now, k)};
            now.step(over.w_x, over.w_h, seen,
                     [&](const Step& step) { now.p.advance_elman(step, rows, call_.activation); });
            if (is_zoned(over.zone_h)) now.team.wait();
        } else {
            product_.multiply(now, seen, over.w_h, 0, 0);
            product_.normalize(now, 0, 0, H, 0);
            for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
                now.p.activate(call_.activation, H, now.gates[k], now.gates[k]);
                std::copy(now.gates[k], now.gates[k] + H, y(now, k));
            }
        }
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) blend(now, over.zone_h, k, H, now.h[k], y(now, k));
    }

   private:
    static bool is_whole(const Elman& call) { return !call.over.norm_h.gain; }
    float* y(const Now& now, int64_t k) const { return call_.over.y + now.n[k] * call_.over.hidden; }

    const Elman& call_;
    RecurrentProduct product_;
};

class ElmanBack {
   public:
    ElmanBack(const Primitives&, const ElmanGrad& call, const std::vector<Sequence>&, int64_t rows)
        : call_(call), state_(call.over, call.over.hidden, call.over.hidden, 1, rows) {}

    void begin(const Sequence* sequence, Range mine) { state_.begin(sequence, mine); }
    void finish(const Sequence* sequence, Range mine) { state_.finish(sequence, mine); }

    void prefetch(int64_t n) const {
        state_.prefetch(n);
    }

    void step(const Now& now) {
        const int64_t H = call_.over.hidden;
        state_.start(now);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k)
            now.p.activate_back(call_.activation, H, state_.gates(now, k), state_.dh()[k], state_.d(now, k));
        state_.norm(now, 0, 0, 0, H);
        state_.sum(now);
        now.team.wait();
        state_.add(now, call_.over.w_h_t, 0, 0);
        state_.end(now);
    }

   private:
    const ElmanGrad& call_;
    StateGrad state_;
};

}  // namespace

void scan_elman(const Primitives& p, const Elman& call) {
    scan<ElmanScan>(p, call);
}

void scan_elman_back(const Primitives& p, const ElmanGrad& call) {
    scan_back<ElmanBack>(p, call);
}

}  // namespace segue::blocked
