#include "scan.h"

namespace segue::blocked {
namespace {

class LstmScan {
   public:
    LstmScan(const Primitives&, const Lstm& call, const std::vector<Sequence>& share, int64_t rows)
        : block(call.over, 4 * call.over.hidden, share),
          call_(call),
          product_(call.over, 4 * call.over.hidden, 1, rows),
          c_(rows),
          c_new_(rows, zoned_in_place() ? call.over.hidden : 0),
          m_(rows, call.w_r.packed && !call.m ? call.over.hidden : 0),
          chat_(rows, call.gain_c && !call.chat ? call.over.hidden + 1 : 0) {}

    const GateBlock block;
    int64_t columns() const { return 4 * call_.over.hidden; }
    int64_t input_columns() const { return 4 * call_.over.hidden; }

    void begin(const Sequence* sequence, Range mine) {
        const int64_t H = call_.over.hidden;
        for (int64_t k = mine.from; k < mine.to; ++k) {
            const float* c0 = call_.c0 + sequence[k].index * H;
            float* last = call_.c_last + sequence[k].index * H;
            c_[k] = call_.c ? c0 : last;
            if (!call_.c && last != c0) std::copy(c0, c0 + H, last);
        }
    }

    void finish(const Sequence* sequence, Range mine) {
        const int64_t H = call_.over.hidden;
        for (int64_t k = mine.from; k < mine.to; ++k) {
            float* last = call_.c_last + sequence[k].index * H;
            if (c_[k] != last) std::copy(c_[k], c_[k] + H, last);
        }
    }

    void step(const Now& now) {
        const Recurrence& over = call_.over;
        const float* const* seen = product_.seen(now);
        now.team.wait();
        product_.add(now, seen, over.w_h, 0, 0, 0);
        now.team.wait();
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) law(now, k);
        if (call_.w_r.packed) project(now);
        for (int64_t k = now.mine.from; k < now.mine.to; ++k)
            blend(now, over.zone_h, k, over.width, now.h[k], y(now, k));
    }

   private:
    bool zoned_in_place() const { return !call_.c && (call_.zone_c.keep || call_.zone_c.rate != 0.0f); }
    float* y(const Now& now, int64_t k) const { return call_.over.y + now.n[k] * call_.over.width; }
    float* m(const Now& now, int64_t k) const {
        if (!call_.w_r.packed) return y(now, k);
        return call_.m ? call_.m + now.n[k] * call_.over.hidden : m_[k];
    }

    void law(const Now& now, int64_t k) {
        const int64_t H = call_.over.hidden, n = now.n[k];
        float* last = call_.c_last + now.sequence[k].index * H;
        float* c_new = call_.c ? call_.c + n * H : zoned_in_place() ? c_new_[k] : last;
        float *chat = nullptr, *rstd = nullptr;
        if (call_.gain_c) {
            chat = call_.chat ? call_.chat + n * H : chat_[k];
            rstd = call_.chat ? call_.rstd_c + n : chat_[k] + H;
        }
        now.p.lstm({H, now.gates[k], c_[k], c_new, m(now, k), call_.peepholes, call_.gain_c, call_.bias_c, chat, rstd});
        blend(now, call_.zone_c, k, H, c_[k], c_new);
        if (call_.c)
            c_[k] = c_new;
        else if (c_new != last)
            std::copy(c_new, c_new + H, last);
    }

    void project(const Now& now) {
        for (int64_t k = now.mine.from; k < now.mine.to; ++k) std::fill_n(y(now, k), call_.over.width, 0.0f);
        now.team.wait();
        for (int64_t k = 0; k < now.rows; ++k) now.from[k] = m(now, k), now.to[k] = y(now, k);
        now.multiply_add(now.from, call_.w_r, now.to);
        now.team.wait();
    }

    const Lstm& call_;
    RecurrentProduct product_;
    std::vector<const float*> c_;  // the memory before the step
    Rows c_new_, m_, chat_;
};

class LstmBack {
   public:
    LstmBack(const Primitives&, const LstmGrad& call, const std::vector<Sequence>&, int64_t rows)
        : call_(call),
          state_(call.over, 4 * call.over.hidden, 4 * call.over.hidden, 1, rows),
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
        for (int64_t k = mine.from; k < mine.to; ++k)
            std::copy(dc_[k], dc_[k] + H, call_.dc0 + sequence[k].index * H);
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
        now.team.wait();
        state_.add(now, call_.over.w_h_t, 0, 0);
        now.team.wait();
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
        const bool zoned = call_.zone_c.keep || call_.zone_c.rate != 0.0f;
        if (zoned) now.p.mix_back(H, row_of(call_.zone_c.keep, n, H), call_.zone_c.rate, dc_[k], dc_kept_[k]);
        now.p.lstm_back({H, state_.gates(now, k), c, dm, dc_[k], state_.d(now, k), call_.peepholes, call_.gain_c,
                         call_.bias_c, row_of(call_.chat, n, H), row_of(call_.rstd_c, n, 1),
                         call_.gain_c ? call_.dnorm_c + n * H : dnorm_c_[k], spare_[k]});
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
