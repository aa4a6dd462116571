#include "scan.h"

namespace segue::blocked {
namespace {

class GruScan {
   public:
    GruScan(const Primitives& p, const Gru& call, const std::vector<Sequence>& share, int64_t rows)
        : input(p, call.over, is_whole(call), 4 * call.over.hidden, share, rows),
          call_(call),
          product_(call.over, 3 * call.over.hidden, 2, rows),
          rh_(rows, call.reset_after ? 0 : call.over.hidden) {}

    const InputPart input;
    int64_t columns() const { return 4 * call_.over.hidden; }
    int64_t input_columns() const { return 3 * call_.over.hidden; }
    void begin(const Sequence*, Range) {}
    void finish(const Sequence*, Range) {}

    void step(const Now& now) {
        const Recurrence& over = call_.over;
        const float* const* seen = product_.seen(now);
        if (over.mask) now.team.wait();
        if (is_whole(call_)) {
            GruRow rows[kRows];
            for (int64_t k = 0; k < now.rows; ++k) rows[k] = row(now, k, over.gates ? now.gates[k] : nullptr);
            now.step(over.w_x, over.w_h, seen,
                     [&](const Step& step) { now.p.advance_gru(step, rows, call_.b_hn); });
            if (is_zoned(over.zone_h)) now.team.wait();
        } else {
            call_.reset_after ? reset_after(now, seen) : reset_before(now, seen);
        }
        for (int64_t k = now.mine.from; k < now.mine.to; ++k)
            blend(now, over.zone_h, k, over.hidden, now.h[k], over.y + now.n[k] * over.hidden);
    }

   private:
    static bool is_whole(const Gru& call) { return call.reset_after && !call.over.norm_h.gain; }

    GruRow row(const Now& now, int64_t k, float* gates) const {
        const int64_t H = call_.over.hidden;
        return {H, gates, now.h[k], call_.over.y + now.n[k] * H};
    }

    // With a norm.
    void reset_after(const Now& now, const float* const* seen) {
        const int64_t H = call_.over.hidden;
        product_.multiply(now, seen, call_.over.w_h, 0, 0);
        product_.normalize(now, 0, 0, 2 * H, 0);
        product_.normalize(now, 1, 2 * H, H, 3 * H, call_.b_hn);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) now.p.gru_after(row(now, k, now.gates[k]));
    }

    void reset_before(const Now& now, const float* const* seen) {
        const int64_t H = call_.over.hidden;
        product_.multiply(now, seen, call_.over.w_h, 0, 0);
        product_.normalize(now, 0, 0, 2 * H, 0);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k)
            now.p.gru_before(row(now, k, now.gates[k]), seen[k], rh_[k]);
        now.team.wait();
        product_.multiply(now, rh_.data(), call_.w_n, 2 * H, 2 * H);
        product_.normalize(now, 1, 2 * H, H, 2 * H);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) now.p.gru_before_rest(row(now, k, now.gates[k]));
    }

    const Gru& call_;
    RecurrentProduct product_;
    Rows rh_;
};

class GruBack {
   public:
    GruBack(const Primitives&, const GruGrad& call, const std::vector<Sequence>&, int64_t rows)
        : call_(call),
          state_(call.over, 4 * call.over.hidden, 3 * call.over.hidden, 2, rows),
          drh_(rows, call.reset_after ? 0 : call.over.hidden),
          masked_(rows, call.over.mask ? call.over.hidden : 0) {}

    void begin(const Sequence* sequence, Range mine) { state_.begin(sequence, mine); }
    void finish(const Sequence* sequence, Range mine) { state_.finish(sequence, mine); }

    void prefetch(int64_t n) const {
        state_.prefetch(n);
    }

    void step(const Now& now) {
        const int64_t H = call_.over.hidden;
        state_.start(now);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k)
            (call_.reset_after ? now.p.gru_after_back : now.p.gru_before_back)(row(now, k));
        state_.norm(now, 1, 2 * H, 3 * H, H);
        if (!call_.reset_after) reset_before_back(now);
        state_.norm(now, 0, 0, 0, 2 * H);
        state_.sum(now);
        now.team.wait();
        call_.reset_after ? state_.add(now, call_.over.w_h_t, 0, 0, call_.w_n_t, 2 * H, 3 * H)
                          : state_.add(now, call_.over.w_h_t, 0, 0);
        state_.end(now);
    }

   private:
    GruRowGrad row(const Now& now, int64_t k) const {
        return {call_.over.hidden, state_.gates(now, k), now.h[k], state_.dh()[k], state_.d(now, k), state_.kept()[k]};
    }

    // The way back through W_hn (r * h).
    void reset_before_back(const Now& now) {
        const int64_t H = call_.over.hidden;
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) drh_.clear(k);
        now.team.wait();
        for (int64_t k = 0; k < now.rows; ++k) now.from[k] = state_.product(now, k, 2 * H, 3 * H);
        now.multiply_add(now.from, call_.w_n_t, drh_.data());
        now.team.wait();
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
            const float* seen = now.h[k];
            if (call_.over.mask) {
                now.p.multiply(H, call_.over.mask + now.sequence[k].index * H, seen, masked_[k]);
                seen = masked_[k];
            }
            now.p.gru_before_rest_back(row(now, k), seen, drh_[k]);
            now.p.add(H, state_.seen(k), drh_[k], state_.seen(k));
        }
    }

    const GruGrad& call_;
    StateGrad state_;
    Rows drh_, masked_;
};

}  // namespace

void scan_gru(const Primitives& p, const Gru& call) {
    scan<GruScan>(p, call);
}

void scan_gru_back(const Primitives& p, const GruGrad& call) {
    scan_back<GruBack>(p, call);
}

}  // namespace segue::blocked
