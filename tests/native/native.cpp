#include "native.h"

#include "memory.h"

using definition::Law;
using segue::Weights;

namespace {

Weights packed(Memory& memory, int64_t outputs, int64_t inputs, const float* w, int64_t row, int64_t column,
               Floats& to, int threads, int64_t gates, bool half) {
    float* at = memory.aligned(to, segue::packed_size(outputs, inputs, gates, half), "packed");
    segue::pack(outputs, inputs, w, row, column, at, threads, gates, half);
    return {inputs, outputs, at, gates, half};
}

// Packs rows [from, to) of W [.., inputs], or the transpose of those rows.
class Packer {
   public:
    Packer(Memory& memory, int threads, bool half) : memory_(memory), threads_(threads), half_(half) {}
    Weights rows(const Floats& w, int64_t from, int64_t to, int64_t inputs, int64_t gates = 1) {
        return packed(memory_, to - from, inputs, w.data() + from * inputs, inputs, 1, next(), threads_, gates, half_);
    }
    Weights transposed(const Floats& w, int64_t from, int64_t to, int64_t inputs) {
        return packed(memory_, inputs, to - from, w.data() + from * inputs, 1, inputs, next(), threads_, 1, half_);
    }

   private:
    Floats& next() {
        kept_.push_back(std::make_unique<Floats>());
        return *kept_.back();
    }
    Memory& memory_;
    int threads_;
    bool half_;
    std::vector<std::unique_ptr<Floats>> kept_;  // where the memory copies what was packed
};

// The rows of W_h that are one product on the way back: of a GRU, those of r and z.
int64_t recurrent_rows(const Problem& q) {
    return q.law == Law::gru ? 2 * q.hidden : q.columns();
}

// Rows advanced in place begin as the state; otherwise they are outputs like others.
float* state(Memory& memory, const Run& run, const Floats& initial, Floats& last, const char* name) {
    if (run.in_place) return memory.advanced(last, initial, name);
    return memory.output(last, static_cast<int64_t>(initial.size()), name);
}

segue::Recurrence recurrence(const Problem& q, const Run& run, Memory& memory, Packer& packer, Result& k) {
    const int64_t N = q.steps(), R = q.width, G = q.columns();
    segue::Recurrence over{};
    over.over = {q.count(), N, memory.input(q.lengths, "lengths"), q.reverse, run.threads};
    over.hidden = q.hidden, over.width = R;
    over.x = memory.input(q.x, "x");
    over.w_x = packer.rows(q.w_x, 0, G, q.inputs, G / q.hidden);
    over.b = memory.input(q.b, "b");
    const int64_t product = q.law == Law::gru && q.reset_after ? G : recurrent_rows(q);
    over.w_h = packer.rows(q.w_h, 0, product, R, product / q.hidden);
    over.mask = memory.optional(q.mask, "mask");
    over.norm_x.gain = memory.optional(q.gain_x, "gain_x");
    over.norm_h.gain = memory.optional(q.gain_h, "gain_h");
    if (!q.gain_h.empty() && run.keep & kXhat) {
        over.norm_x.xhat = memory.output(k.xhat_x, N * G, "xhat_x");
        over.norm_x.rstd = memory.output(k.rstd_x, N * q.groups(), "rstd_x");
        over.norm_h.xhat = memory.output(k.xhat_h, N * G, "xhat_h");
        over.norm_h.rstd = memory.output(k.rstd_h, N * q.groups(), "rstd_h");
    }
    over.zone_h = {memory.optional(q.keep_h, "keep_h"), q.rate_h};
    if (run.keep & kGates) over.gates = memory.output(k.gates, N * q.kept_columns(), "gates");
    over.y = memory.output(k.y, N * R, "y");
    over.h_last = state(memory, run, q.h0, k.h_last, "h_last");
    over.h0 = run.in_place ? over.h_last : memory.input(q.h0, "h0");
    return over;
}

segue::Lstm lstm(const Problem& q, const Run& run, Memory& memory, Packer& packer, Result& k) {
    const int64_t N = q.steps(), H = q.hidden;
    segue::Lstm call{};
    call.over = recurrence(q, run, memory, packer, k);
    call.peepholes = memory.optional(q.peepholes, "peepholes");
    if (!q.w_r.empty()) call.w_r = packer.rows(q.w_r, 0, q.width, H);
    call.gain_c = memory.optional(q.gain_c, "gain_c");
    call.bias_c = memory.optional(q.bias_c, "bias_c");
    call.zone_c = {memory.optional(q.keep_c, "keep_c"), q.rate_c};
    call.c_last = state(memory, run, q.c0, k.c_last, "c_last");
    call.c0 = run.in_place ? call.c_last : memory.input(q.c0, "c0");
    if (run.keep & kMemory) call.c = memory.output(k.c, N * H, "c");
    if (!q.gain_c.empty() && run.keep & kChat) call.chat = memory.output(k.chat, N * H, "chat");
    if (!q.gain_c.empty() && run.keep & kChat) call.rstd_c = memory.output(k.rstd_c, N, "rstd_c");
    if (!q.w_r.empty() && run.keep & kM) call.m = memory.output(k.m, N * H, "m");
    return call;
}

// The way back only reads what the scan left, but its types are those of the scan.
float* left(Memory& memory, const Floats& values, const char* name) {
    return const_cast<float*>(memory.optional(values, name));
}

segue::RecurrenceGrad recurrence_back(const Problem& q, const Result& k, const Run& run, Memory& memory,
                                      Packer& packer, Gradients& g) {
    const int64_t N = q.steps(), R = q.width;
    segue::RecurrenceGrad over{};
    over.over = {q.count(), N, memory.input(q.lengths, "lengths"), q.reverse, run.threads};
    over.hidden = q.hidden, over.width = R;
    over.w_h_t = packer.transposed(q.w_h, 0, recurrent_rows(q), R);
    over.h0 = memory.input(q.h0, "h0");
    over.y = memory.input(k.y, "y");
    over.mask = memory.optional(q.mask, "mask");
    const bool has_norm = !q.gain_h.empty();
    const auto changed = [&](Floats& to, const Floats& from, const char* name) {  // an output, which may be an input
        return run.in_place ? memory.advanced(to, from, name) : memory.output(to, from.size(), name);
    };
    over.d = changed(g.d, k.gates, "d");
    if (has_norm) over.du_x = changed(g.du_x, k.xhat_x, "du_x"), over.du_h = changed(g.du_h, k.xhat_h, "du_h");
    over.norm_x = {memory.optional(q.gain_x, "gain_x"), run.in_place ? over.du_x : left(memory, k.xhat_x, "xhat_x"),
                   left(memory, k.rstd_x, "rstd_x")};
    over.norm_h = {memory.optional(q.gain_h, "gain_h"), run.in_place ? over.du_h : left(memory, k.xhat_h, "xhat_h"),
                   left(memory, k.rstd_h, "rstd_h")};
    over.zone_h = {memory.optional(q.keep_h, "keep_h"), q.rate_h};
    over.gates = run.in_place ? over.d : memory.input(k.gates, "gates");
    over.dy = memory.optional(q.dy, "dy");
    over.dh_last = memory.optional(q.dh_last, "dh_last");
    over.d_sum = memory.output(g.d_sum, q.count() * q.kept_columns(), "d_sum");
    if (has_norm) over.dgain_x = memory.output(g.dgain_x, q.count() * q.columns(), "dgain_x");
    if (has_norm) over.dgain_h = memory.output(g.dgain_h, q.count() * q.columns(), "dgain_h");
    over.dh0 = memory.output(g.dh0, q.count() * R, "dh0");
    return over;
}

segue::LstmGrad lstm_back(const Problem& q, const Result& k, const Run& run, Memory& memory, Packer& packer,
                          Gradients& g) {
    const int64_t N = q.steps(), H = q.hidden, R = q.width;
    segue::LstmGrad call{};
    call.over = recurrence_back(q, k, run, memory, packer, g);
    call.peepholes = memory.optional(q.peepholes, "peepholes");
    if (!q.w_r.empty()) call.w_r_t = packer.transposed(q.w_r, 0, R, H);
    call.gain_c = memory.optional(q.gain_c, "gain_c");
    call.bias_c = memory.optional(q.bias_c, "bias_c");
    call.zone_c = {memory.optional(q.keep_c, "keep_c"), q.rate_c};
    call.c0 = memory.input(q.c0, "c0");
    call.c = memory.input(k.c, "c");
    call.chat = memory.optional(k.chat, "chat");
    call.rstd_c = memory.optional(k.rstd_c, "rstd_c");
    call.dc_last = memory.optional(q.dc_last, "dc_last");
    call.dc0 = memory.output(g.dc0, q.count() * H, "dc0");
    if (!q.w_r.empty()) call.dm_out = memory.output(g.dm_out, N * R, "dm_out");
    if (!q.gain_c.empty()) call.dgain_c = memory.output(g.dgain_c, q.count() * H, "dgain_c");
    if (!q.gain_c.empty()) call.dbias_c = memory.output(g.dbias_c, q.count() * H, "dbias_c");
    return call;
}

}  // namespace

Result scan(const Problem& q, const Run& run) {
    const int64_t H = q.hidden;
    Memory memory;
    Packer packer(memory, run.threads, q.half);
    Result k;
    if (q.law == Law::elman)
        segue::scan_elman({recurrence(q, run, memory, packer, k), q.activation});
    else if (q.law == Law::lstm)
        segue::scan_lstm(lstm(q, run, memory, packer, k));
    else
        segue::scan_gru({recurrence(q, run, memory, packer, k),
                         q.reset_after ? Weights{} : packer.rows(q.w_h, 2 * H, 3 * H, H),
                         memory.optional(q.b_hn, "b_hn"), q.reset_after});
    memory.finish();
    if (q.law == Law::gru && !q.reset_after && !k.gates.empty())  // u is not said to be there: do not look at it
        for (int64_t n = 0; n < q.steps(); ++n)
            for (int64_t j = 3 * H; j < 4 * H; ++j) k.gates[n * 4 * H + j] = 0;
    return k;
}

Gradients scan_back(const Problem& q, const Result& k, const Run& run) {
    const int64_t H = q.hidden;
    Memory memory;
    Packer packer(memory, run.threads, q.half);
    Gradients g;
    if (q.law == Law::elman)
        segue::scan_elman_back({recurrence_back(q, k, run, memory, packer, g), q.activation});
    else if (q.law == Law::lstm)
        segue::scan_lstm_back(lstm_back(q, k, run, memory, packer, g));
    else
        segue::scan_gru_back({recurrence_back(q, k, run, memory, packer, g),
                              packer.transposed(q.w_h, 2 * H, 3 * H, H), q.reset_after});
    memory.finish();
    return g;
}

Floats pack(int64_t outputs, int64_t inputs, const Floats& w, int64_t row, int64_t column, int threads, int64_t gates,
            bool half) {
    Memory memory;
    Floats to;
    packed(memory, outputs, inputs, memory.input(w, "w"), row, column, to, threads, gates, half);
    memory.finish();
    return to;
}

Floats affine(int64_t rows, int64_t inputs, int64_t outputs, const Floats& x, const Floats& w, const Floats& b,
              int threads, bool half) {
    Memory memory;
    Packer packer(memory, threads, half);
    Floats y;
    segue::affine({rows, memory.input(x, "x"), inputs, packer.rows(w, 0, outputs, inputs), memory.optional(b, "b"),
                   memory.output(y, rows * outputs, "y"), outputs, threads});
    memory.finish();
    return y;
}
