// The pointwise laws, forward and back, and the step that a law makes with its products; part of kernels-inl.h.
// docs/derivations has the gradients.

namespace {

using segue::ElmanRow;
using segue::GruRow;
using segue::GruRowGrad;
using segue::LstmRow;
using segue::LstmRowGrad;
using segue::Step;

// A law on one vector of units. `sums` are those of its gates, `apart` from each other; the vector is [at, at + lanes)
// of a row, and `mask` says which of its lanes there are.
//
//   gates     that the weights have; sums, with what is kept apart of them
//   x_at, h_at    which of the sums a gate of the input part and of the recurrent part is added to
//   start     where a sum starts
struct ElmanUnits {
    using Row = ElmanRow;
    static constexpr int gates = 1, sums = 1;
    static constexpr int x_at(int gate) { return gate; }
    static constexpr int h_at(int gate) { return gate; }
    Activation f;

    F start(const float* row, int, int64_t at, Lanes::Mask mask) const { return Lanes::load(row + at, mask); }
    void operator()(const ElmanRow& row, int64_t at, Lanes::Mask mask, const float* sums, int64_t) const {
        const F y = activated(f, Lanes::load(sums, mask));
        if (row.gates) Lanes::store(row.gates + at, y, mask);
        Lanes::store(row.y + at, y, mask);
    }
};

struct LstmUnits {
    using Row = LstmRow;
    static constexpr int gates = 4, sums = 4;
    static constexpr int x_at(int gate) { return gate; }
    static constexpr int h_at(int gate) { return gate; }
    int64_t hidden;

    F start(const float* row, int sum, int64_t at, Lanes::Mask mask) const {
        return Lanes::load(row + sum * hidden + at, mask);
    }
    void operator()(const LstmRow& row, int64_t at, Lanes::Mask mask, const float* sums, int64_t apart) const {
        const int64_t H = row.hidden;
        const float* p = row.peepholes;
        const F c = Lanes::load(row.c + at, mask);
        F ai = Lanes::load(sums, mask), af = Lanes::load(sums + apart, mask), ao = Lanes::load(sums + 3 * apart, mask);
        if (p) {
            ai = Lanes::fma(Lanes::load(p + at, mask), c, ai);
            af = Lanes::fma(Lanes::load(p + H + at, mask), c, af);
        }
        const F i = sigmoid<Lanes>(ai), f = sigmoid<Lanes>(af), g = tanh<Lanes>(Lanes::load(sums + 2 * apart, mask));
        const F next = Lanes::fma(f, c, i * g);
        if (p) ao = Lanes::fma(Lanes::load(p + 2 * H + at, mask), next, ao);
        const F o = sigmoid<Lanes>(ao);
        if (row.gates) {
            float* kept = row.gates + at;
            Lanes::store(kept, i, mask);
            Lanes::store(kept + H, f, mask);
            Lanes::store(kept + 2 * H, g, mask);
            Lanes::store(kept + 3 * H, o, mask);
        }
        Lanes::store(row.c_new + at, next, mask);
        if (!row.gain_c) Lanes::store(row.m + at, o * tanh<Lanes>(next), mask);
    }
};

// The form that resets after.
struct GruUnits {
    using Row = GruRow;
    static constexpr int gates = 3, sums = 4;
    static constexpr int x_at(int gate) { return gate; }
    static constexpr int h_at(int gate) { return gate < 2 ? gate : 3; }
    int64_t hidden;
    const float* b_hn;

    F start(const float* row, int sum, int64_t at, Lanes::Mask mask) const {
        return Lanes::load((sum < 3 ? row + sum * hidden : b_hn) + at, mask);
    }
    void operator()(const GruRow& row, int64_t at, Lanes::Mask mask, const float* sums, int64_t apart) const {
        const int64_t H = row.hidden;
        const F r = sigmoid<Lanes>(Lanes::load(sums, mask)), z = sigmoid<Lanes>(Lanes::load(sums + apart, mask));
        const F u = Lanes::load(sums + 3 * apart, mask);
        const F n = tanh<Lanes>(Lanes::fma(r, u, Lanes::load(sums + 2 * apart, mask)));
        if (row.gates) {
            float* kept = row.gates + at;
            Lanes::store(kept, r, mask);
            Lanes::store(kept + H, z, mask);
            Lanes::store(kept + 2 * H, n, mask);
            Lanes::store(kept + 3 * H, u, mask);
        }
        Lanes::store(row.y + at, Lanes::fma(z, Lanes::load(row.h + at, mask) - n, n), mask);
    }
};

// The sums of some units of all rows, in a scratch that stays in the nearest cache, and at once the law of these.
template <class Law>
class Advance {
   public:
    Advance(const Law& law, const Step& step, const typename Law::Row* rows)
        : law_(law), step_(step), rows_(rows), units_(step.w_h.outputs / Law::gates) {}

    void run() {
        if (step_.w_h.half) return run_half();
        run_panels();
    }

   private:
    // With the rows that the product sees rounded.
    void run_half() {
        const int64_t inputs = step_.w_h.inputs;
#ifdef __AMX_BF16__
        const HalfRows seen(step_.rows, step_.seen, inputs, step_.scratch);
        const HalfRows x(*step_.x ? step_.rows : 0, step_.x, step_.w_x.inputs, seen.end(step_.rows));
        const TileRegisters registers;
        for (int64_t panel = step_.from; panel < step_.to; ++panel) {
            const int64_t blocks = blocks_of(panel);
            const int vectors = Law::gates == 1 ? static_cast<int>(blocks) : V;
            some(panel, 1, blocks, [&](const float* const* in, const Weights& w, const Block& block) {
                const HalfRows& rows = in == step_.x ? x : seen;
                multiply_tiles(rows, step_.rows, w, panel, vectors, memory_, blocks * S * kLanes, block.at);
            });
        }
#else
        const float* rounded[segue::blocked::kRows];
        for (int64_t r = 0; r < step_.rows; ++r) {
            rounded[r] = step_.scratch + r * inputs;
            round(inputs, step_.seen[r], step_.scratch + r * inputs);
        }
        step_.seen = rounded;
        run_panels();
#endif
    }

    void run_panels() {
        int64_t panel = step_.from;
        if (step_.rows == 1) panel = few<1>(panel);
        if (step_.rows == 2) panel = few<2>(panel);
        for (; panel < step_.to; ++panel) {
            const int64_t blocks = blocks_of(panel);
            const int vectors = Law::gates == 1 ? static_cast<int>(blocks) : V;
            some(panel, 1, blocks, [&](const float* const* in, const Weights& w, Block block) {
                const int64_t depth = step_.rows > rows_of(V) ? kDepth : w.inputs;
                for (int64_t i = 0; i < w.inputs; i += depth, block.w += depth * block.step) {
                    block.from = i, block.to = w.inputs - i < depth ? w.inputs : i + depth;
                    each_tile(step_.rows, rows_of(vectors), [&](int64_t r, int64_t size) {
                        tile_of(size, vectors)(in + r, block, sums_ + r);
                    });
                }
            });
        }
    }

    static constexpr int V = vectors_of(Law::gates), S = Law::sums;
    static constexpr int64_t kUnits = Law::gates == 1 ? Lanes::vectors : 1;  // vectors of units in a panel
    static constexpr int kMostSums = S * kUnits * (panels_of(1, V) > 4 ? panels_of(1, V) : 4);  // of a row

    // Vectors of units in a panel.
    int64_t blocks_of(int64_t panel) const {
        const int64_t left = (units_ - panel * kUnits * kLanes + kLanes - 1) / kLanes;
        return left < kUnits ? left : kUnits;
    }

    template <int R>
    int64_t few(int64_t panel) {
        constexpr int P = panels_of(R, V);
        const int64_t full = Law::gates > 1 ? step_.to : units_ / (kUnits * kLanes);
        for (; panel + P <= step_.to && panel + P <= full; panel += P)
            some(panel, P, P * kUnits, [&](const float* const* in, const Weights&, const Block& block) {
                tile<R, V, P>(in, block, sums_);
            });
        return panel;
    }

    // So many panels, that is, blocks of a vector of units.
    template <class Multiply>
    SEGUE_INLINE void some(int64_t panel, int panels, int64_t blocks, Multiply multiply) {
        const int64_t unit = panel * kUnits * kLanes, width = blocks * S * kLanes;
        for (int64_t r = 0; r < step_.rows; ++r) {
            sums_[r] = memory_ + r * width;
            each(blocks, unit, [&](int64_t block, int64_t at, Lanes::Mask mask) {
                for (int s = 0; s < S; ++s)
                    Lanes::store(sums_[r] + (block * S + s) * kLanes, law_.start(step_.start[r], s, at, mask));
            });
        }
        Lanes::Mask masks[kMostSums];
        int64_t at[kMostSums];
        for (int k = 0; k < panels * V; ++k) masks[k] = Lanes::first(kLanes);
        if (*step_.x) {
            for (int k = 0; k < panels * V; ++k) at[k] = (k / Law::gates * S + Law::x_at(k % Law::gates)) * kLanes;
            multiply(step_.x, step_.w_x, block(step_.w_x, panel, at, masks));
        }
        for (int k = 0; k < panels * V; ++k) at[k] = (k / Law::gates * S + Law::h_at(k % Law::gates)) * kLanes;
        multiply(step_.seen, step_.w_h, block(step_.w_h, panel, at, masks));
        for (int64_t r = 0; r < step_.rows; ++r)
            each(blocks, unit, [&](int64_t block, int64_t at, Lanes::Mask mask) {
                law_(rows_[r], at, mask, sums_[r] + block * S * kLanes, kLanes);
            });
    }

    static Block block(const Weights& w, int64_t panel, const int64_t* at, const Lanes::Mask* masks) {
        const int64_t step = V * kLanes, next = w.inputs * step;
        return {0, w.inputs, w.packed + panel * next, step, next, at, masks};
    }

    // Calls body(block, unit, mask) for so many blocks.
    template <class Body>
    void each(int64_t blocks, int64_t unit, Body body) const {
        for (int64_t block = 0; block < blocks; ++block, unit += kLanes) {
            const int64_t left = units_ - unit;
            body(block, unit, Lanes::first(left < kLanes ? left : kLanes));
        }
    }

    const Law law_;
    Step step_;
    const typename Law::Row* rows_;
    const int64_t units_;
    alignas(64) float memory_[segue::blocked::kRows * 4 * kLanes];
    float* sums_[segue::blocked::kRows];
};

void advance_elman(const Step& step, const ElmanRow* rows, Activation f) {
    Advance<ElmanUnits>({f}, step, rows).run();
}

void advance_lstm(const Step& step, const LstmRow* rows) {
    Advance<LstmUnits>({step.w_h.outputs / 4}, step, rows).run();
}

void advance_gru(const Step& step, const GruRow* rows, const float* b_hn) {
    Advance<GruUnits>({step.w_h.outputs / 3, b_hn}, step, rows).run();
}

void advance_linear(int64_t size, const float* a, const float* h, const float* b, float* y) {
    each_vector(size, [&](int64_t at, Lanes::Mask m) {
        Lanes::store(y + at, Lanes::fma(Lanes::load(a + at, m), Lanes::load(h + at, m), Lanes::load(b + at, m)), m);
    });
}

void lstm(const LstmRow& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) { LstmUnits{H}(row, at, mask, row.gates + at, H); });
    if (!row.gain_c) return;
    const float* c_new = row.c_new;
    const Moments<1> moments(H, &c_new);
    *row.rstd_c = moments.rstd[0];
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const F chat = moments.standard(0, Lanes::load(c_new + at, mask));
        const F s = Lanes::fma(Lanes::load(row.gain_c + at, mask), chat, Lanes::load(row.bias_c + at, mask));
        Lanes::store(row.chat + at, chat, mask);
        Lanes::store(row.m + at, Lanes::load(row.gates + 3 * H + at, mask) * tanh<Lanes>(s), mask);
    });
}

// do and, through tanh, the gradient of what it was taken of, into dnorm_c.
void lstm_output_back(const LstmRowGrad& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F o = Lanes::load(gates + 3 * H, mask), dm = Lanes::load(row.dm + at, mask);
        F s;
        if (row.gain_c) {
            s = Lanes::fma(Lanes::load(row.gain_c + at, mask), Lanes::load(row.chat + at, mask),
                           Lanes::load(row.bias_c + at, mask));
        } else {
            const F i = Lanes::load(gates, mask), f = Lanes::load(gates + H, mask);
            s = Lanes::fma(f, Lanes::load(row.c + at, mask), i * Lanes::load(gates + 2 * H, mask));
        }
        const F t = tanh<Lanes>(s);
        Lanes::store(row.d + 3 * H + at, dm * t * sigmoid_slope(o), mask);
        Lanes::store(row.dnorm_c + at, dm * o * tanh_slope(t), mask);
    });
}

void lstm_back(const LstmRowGrad& row) {
    const int64_t H = row.hidden;
    const float *p = row.peepholes, *through = row.dnorm_c;
    lstm_output_back(row);
    if (row.gain_c) {
        const segue::NormRowGrad norm{row.chat, row.rstd_c, row.gain_c, row.dnorm_c, row.spare, row.dgain_c};
        normalize_back(H, &norm, 1);
        add(H, row.dbias_c, row.dnorm_c, row.dbias_c);
        through = row.spare;
    }
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F i = Lanes::load(gates, mask), f = Lanes::load(gates + H, mask), g = Lanes::load(gates + 2 * H, mask);
        const F c = Lanes::load(row.c + at, mask);
        F dc = Lanes::load(row.dc + at, mask) + Lanes::load(through + at, mask);
        if (p) dc = Lanes::fma(Lanes::load(row.d + 3 * H + at, mask), Lanes::load(p + 2 * H + at, mask), dc);
        const F di = dc * g * sigmoid_slope(i), df = dc * c * sigmoid_slope(f), dg = dc * i * tanh_slope(g);
        F before = dc * f;
        if (p) {
            before = Lanes::fma(di, Lanes::load(p + at, mask), before);
            before = Lanes::fma(df, Lanes::load(p + H + at, mask), before);
        }
        Lanes::store(row.d + at, di, mask);
        Lanes::store(row.d + H + at, df, mask);
        Lanes::store(row.d + 2 * H + at, dg, mask);
        Lanes::store(row.dc + at, before, mask);
    });
}

void gru_after(const GruRow& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) { GruUnits{H, nullptr}(row, at, mask, row.gates + at, H); });
}

void gru_after_back(const GruRowGrad& row) {
    const int64_t H = row.hidden;
    const F one = Lanes::splat(1.0f);
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F r = Lanes::load(gates, mask), z = Lanes::load(gates + H, mask), n = Lanes::load(gates + 2 * H, mask);
        const F u = Lanes::load(gates + 3 * H, mask), dh = Lanes::load(row.dh + at, mask);
        const F dn = dh * (one - z) * tanh_slope(n);
        Lanes::store(row.d + at, dn * u * sigmoid_slope(r), mask);
        Lanes::store(row.d + H + at, dh * (Lanes::load(row.h + at, mask) - n) * sigmoid_slope(z), mask);
        Lanes::store(row.d + 2 * H + at, dn, mask);
        Lanes::store(row.d + 3 * H + at, dn * r, mask);
        Lanes::store(row.kept + at, Lanes::fma(z, dh, Lanes::load(row.kept + at, mask)), mask);
    });
}

void gru_before(const GruRow& row, const float* h_seen, float* rh) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F r = sigmoid<Lanes>(Lanes::load(gates, mask));
        Lanes::store(gates, r, mask);
        Lanes::store(gates + H, sigmoid<Lanes>(Lanes::load(gates + H, mask)), mask);
        Lanes::store(rh + at, r * Lanes::load(h_seen + at, mask), mask);
    });
}

void gru_before_rest(const GruRow& row) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        float* gates = row.gates + at;
        const F z = Lanes::load(gates + H, mask), n = tanh<Lanes>(Lanes::load(gates + 2 * H, mask));
        Lanes::store(gates + 2 * H, n, mask);
        Lanes::store(row.y + at, Lanes::fma(z, Lanes::load(row.h + at, mask) - n, n), mask);
    });
}

void gru_before_back(const GruRowGrad& row) {
    const int64_t H = row.hidden;
    const F one = Lanes::splat(1.0f);
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const float* gates = row.gates + at;
        const F z = Lanes::load(gates + H, mask), n = Lanes::load(gates + 2 * H, mask);
        const F dh = Lanes::load(row.dh + at, mask), dn = dh * (one - z) * tanh_slope(n);
        Lanes::store(row.d + H + at, dh * (Lanes::load(row.h + at, mask) - n) * sigmoid_slope(z), mask);
        Lanes::store(row.d + 2 * H + at, dn, mask);
        Lanes::store(row.d + 3 * H + at, dn, mask);
        Lanes::store(row.kept + at, Lanes::fma(z, dh, Lanes::load(row.kept + at, mask)), mask);
    });
}

void gru_before_rest_back(const GruRowGrad& row, const float* h_seen, float* drh) {
    const int64_t H = row.hidden;
    each_vector(H, [&](int64_t at, Lanes::Mask mask) {
        const F r = Lanes::load(row.gates + at, mask), d = Lanes::load(drh + at, mask);
        Lanes::store(row.d + at, d * Lanes::load(h_seen + at, mask) * sigmoid_slope(r), mask);
        Lanes::store(drh + at, d * r, mask);
    });
}

}  // namespace
