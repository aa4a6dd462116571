#include "scan.h"

namespace segue::blocked {
namespace {

class LstmScan {
   public:
    LstmScan(const Primitives& p, const Lstm& call, const std::vector<Sequence>& share, int64_t rows)
        : input(p, call.over, is_whole(call), 4 * call.over.hidden, share, rows),
          call_(call),
          product_(call.over, 4 * call.over.hidden, 1, rows),
          c_new_(rows, zoned_in_place() ? call.over.hidden : 0),
          m_(rows, call.w_r.packed && !call.m ? call.over.hidden : 0),
          chat_(rows, call.gain_c && !call.chat ? call.over.hidden + 1 : 0) {}

    const InputPart input;
    int64_t columns() const { return 4 * call_.over.hidden; }
    int64_t input_columns() const { return 4 * call_.over.hidden; }

    // Where memory is not kept it is advanced in place, in c_last.
    void begin(const Sequence* sequence, Range mine) {
        if (call_.c) return;
        for (int64_t k = mine.from; k < mine.to; ++k) copy(c0(sequence[k]), c_last(sequence[k]));
    }

    void finish(const Sequence* sequence, Range mine) {
        if (!call_.c) return;
        for (int64_t k = mine.from; k < mine.to; ++k) {
            const Sequence& all = sequence[k];
            const int64_t H = call_.over.hidden, last = all.row(all.length - 1, call_.over.over.reverse);
            copy(all.length ? call_.c + last * H : c0(all), c_last(all));
        }
    }

    void step(const Now& now) {
        const Recurrence& over = call_.over;
        const float* const* seen = product_.seen(now);
        if (over.mask) now.team.wait();
        if (is_whole(call_)) {
            LstmRow rows[kRows];
            for (int64_t k = 0; k < now.rows; ++k) rows[k] = row(now, k, over.gates ? now.gates[k] : nullptr);
            now.step(over.w_x, over.w_h, seen, [&](const Step& step) { now.p.advance_lstm(step, rows); });
            if (call_.w_r.packed || is_zoned(over.zone_h) || is_zoned(call_.zone_c)) now.team.wait();
        } else {
            product_.multiply(now, seen, over.w_h, 0, 0);
            product_.normalize(now, 0, 0, 4 * over.hidden, 0);
            for (int64_t k = now.mine.from; k < now.mine.to; ++k) now.p.lstm(row(now, k, now.gates[k]));
        }
        if (call_.w_r.packed) project(now);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) zone(now, k);
    }

   private:
    static bool is_whole(const Lstm& call) { return !call.over.norm_h.gain && !call.gain_c; }
    bool zoned_in_place() const { return !call_.c && is_zoned(call_.zone_c); }

    const float* c0(const Sequence& sequence) const { return call_.c0 + sequence.index * call_.over.hidden; }
    float* c_last(const Sequence& sequence) const { return call_.c_last + sequence.index * call_.over.hidden; }
    void copy(const float* from, float* to) const {
        if (from != to) std::copy(from, from + call_.over.hidden, to);
    }

    // The memory before the step, and where the law leaves that after it.
    const float* c(const Now& now, int64_t k) const {
        if (!call_.c) return c_last(now.sequence[k]);
        return now.before[k] < 0 ? c0(now.sequence[k]) : call_.c + now.before[k] * call_.over.hidden;
    }
    float* c_new(const Now& now, int64_t k) const {
        if (call_.c) return call_.c + now.n[k] * call_.over.hidden;
        return zoned_in_place() ? c_new_[k] : c_last(now.sequence[k]);
    }
    float* y(const Now& now, int64_t k) const { return call_.over.y + now.n[k] * call_.over.width; }
    float* m(const Now& now, int64_t k) const {
        if (!call_.w_r.packed) return y(now, k);
        return call_.m ? call_.m + now.n[k] * call_.over.hidden : m_[k];
    }

    LstmRow row(const Now& now, int64_t k, float* gates) const {
        const int64_t H = call_.over.hidden;
        float *chat = nullptr, *rstd = nullptr;
        if (call_.gain_c) {
            chat = call_.chat ? call_.chat + now.n[k] * H : chat_[k];
            rstd = call_.chat ? call_.rstd_c + now.n[k] : chat_[k] + H;
        }
        return {H,          gates, c(now, k), c_new(now, k), m(now, k), call_.peepholes, call_.gain_c,
                call_.bias_c, chat,  rstd};
    }

    void project(const Now& now) {
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) std::fill_n(y(now, k), call_.over.width, 0.0f);
        now.team.wait();
        for (int64_t k = 0; k < now.rows; ++k) now.from[k] = m(now, k), now.to[k] = y(now, k);
        now.multiply_add(now.from, call_.w_r, now.to);
        now.team.wait();
    }

    void zone(const Now& now, int64_t k) const {
        blend(now, call_.over.zone_h, k, call_.over.width, now.h[k], y(now, k));
        blend(now, call_.zone_c, k, call_.over.hidden, c(now, k), c_new(now, k));
        if (zoned_in_place()) copy(c_new(now, k), c_last(now.sequence[k]));
    }

    const Lstm& call_;
    RecurrentProduct product_;
    Rows c_new_, m_, chat_;
};

class LstmBack {
   public:
    LstmBack(const Primitives&, const LstmGrad& call, const std::vector<Sequence>&, int64_t rows)
        : call_(call),
          state_(call.over, 4 * call.over.hidden, 4 * call.over.hidden, 1, rows,
                 call.gain_c ? 2 * call.over.hidden : 0),
          dc_(rows, call.over.hidden),
          dc_kept_(rows, call.over.hidden),
          dm_(rows, call.over.hidden),
          dnorm_c_(rows, call.over.hidden),
          spare_(rows, call.over.hidden) {}

    void begin(const Sequence* sequence, Range mine) {
        state_.begin(sequence, mine);
        for (int64_t k = mine.from; k < mine.to; ++k)
            dc_.set(k, row_of(call_.dc_last, sequence[k].index, call_.over.hidden));
    }

    void finish(const Sequence* sequence, Range mine) {
        const int64_t H = call_.over.hidden;
        state_.finish(sequence, mine);
        for (int64_t k = mine.from; k < mine.to; ++k) {
            std::copy(dc_[k], dc_[k] + H, call_.dc0 + sequence[k].index * H);
            if (!call_.gain_c) continue;
            const float* sums = state_.more_sums(k);
            std::copy(sums, sums + H, call_.dgain_c + sequence[k].index * H);
            std::copy(sums + H, sums + 2 * H, call_.dbias_c + sequence[k].index * H);
        }
    }

    void prefetch(int64_t n) const {
        state_.prefetch(n);
        blocked::prefetch(call_.c + n * call_.over.hidden, call_.over.hidden);
    }

    void step(const Now& now) {
        state_.start(now);
        if (call_.w_r_t.packed) project_back(now);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) law(now, k);
        state_.norm(now, 0, 0, 0, 4 * call_.over.hidden);
        state_.sum(now);
        now.team.wait();
        state_.add(now, call_.over.w_h_t, 0, 0);
        state_.end(now);
    }

   private:
    void project_back(const Now& now) {
        const int64_t R = call_.over.width;
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) {
            std::copy(state_.dh()[k], state_.dh()[k] + R, call_.dm_out + now.n[k] * R);
            dm_.clear(k);
        }
        now.team.wait();
        now.multiply_add(call_.dm_out, R, call_.w_r_t, dm_.data());
        now.team.wait();
    }

    void law(const Now& now, int64_t k) {
        const int64_t H = call_.over.hidden, n = now.n[k];
        const float* c = now.before[k] < 0 ? call_.c0 + now.sequence[k].index * H : call_.c + now.before[k] * H;
        const float* dm = call_.w_r_t.packed ? dm_[k] : state_.dh()[k];
        const bool zoned = is_zoned(call_.zone_c);
        if (zoned) now.p.mix_back(H, row_of(call_.zone_c.keep, n, H), call_.zone_c.rate, dc_[k], dc_kept_[k]);
        now.p.lstm_back({H, state_.gates(now, k), c, dm, dc_[k], state_.d(now, k), call_.peepholes, call_.gain_c,
                         call_.bias_c, row_of(call_.chat, n, H), row_of(call_.rstd_c, n, 1),
                         dnorm_c_[k], spare_[k], state_.more(k), state_.more(k) + H});
        if (zoned) now.p.add(H, dc_[k], dc_kept_[k], dc_[k]);
    }

    const LstmGrad& call_;
    StateGrad state_;
    Rows dc_, dc_kept_, dm_, dnorm_c_, spare_;
};

}  // namespace

void scan_lstm(const Primitives& p, const Lstm& call) {
    scan<LstmScan>(p, call);
}

void scan_lstm_back(const Primitives& p, const LstmGrad& call) {
    scan_back<LstmBack>(p, call);
}

}  // namespace segue::blocked
