#include "flush.h"
#include "program.h"

#include <algorithm>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace segue {

using std::int64_t;

namespace {

constexpr std::size_t kLargePage = std::size_t{1} << 21;
constexpr std::size_t kKept = std::size_t{1} << 22;  // a workspace of more bytes is not kept for the next call

std::size_t in_lines(std::size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

template <class T>
Aligned<T> aligned(std::size_t bytes) {
    return Aligned<T>(static_cast<T*>(::operator new(std::max<std::size_t>(bytes, 1), std::align_val_t(64))));
}

int letter(char rows) {
    return rows == 'N' ? 0 : rows == 'B' ? 1 : rows == 'M' ? 2 : 3;
}

}  // namespace

struct Recurrent {
    int x, lengths, h, h_last, y;
    int64_t hidden, width;
    Weights w_x, w_h;
    const float *b, *gain_x, *gain_h;
    float zoneout;

    Recurrence call(const Run& run) const {
        const Sequences over{run.size(lengths), run.size(y) / width, run.i64(lengths), false, run.threads};
        Recurrence now{};
        now.over = over;
        now.hidden = hidden, now.width = width;
        now.x = run.f32(x), now.w_x = w_x, now.b = b;
        now.w_h = w_h;
        now.h0 = run.f32(h), now.h_last = run.f32(h_last);
        now.norm_x.gain = gain_x, now.norm_h.gain = gain_h;
        now.zone_h.rate = zoneout;
        now.y = run.f32(y);
        return now;
    }
};

int64_t bytes_of(Type type) {
    return type == Type::f32 ? 4 : 8;
}

int64_t Run::count(char rows) const {
    return counts[letter(rows)];
}

Program::Program() {
    slot("lengths", Type::i64, 'B', {});
}

// Slots -----------------------------------------------------------------------------------------------------------

int Program::slot(const std::string& name, Type type, char rows, const std::vector<int64_t>& axes) {
    int64_t width = 1;
    for (const int64_t axis : axes) width *= axis;
    slots_.push_back({name, type, rows, axes, width});
    return static_cast<int>(slots_.size()) - 1;
}

int Program::like(int other, const std::string& name, int64_t last, Type type) {
    std::vector<int64_t> axes = slots_[other].axes;
    axes.back() = last;
    return slot(name, type, slots_[other].rows, axes);
}

int64_t Program::last_axis(int slot) const {
    return slots_[slot].axes.back();
}

int Program::input(const std::string& name, Type type, char rows, const std::vector<int64_t>& axes) {
    inputs_.push_back(slot(name, type, rows, axes));
    return inputs_.back();
}

int Program::state(const std::string& name, Type type, const std::vector<int64_t>& axes) {
    states_.push_back({slot(name, type, 'B', axes), -1});
    return static_cast<int>(states_.size()) - 1;
}

int Program::changed(int state) {
    const Slot before = slots_[slots_of(state).before];
    return slots_of(state).after = slot(before.name, before.type, before.rows, before.axes);
}

StateSlots& Program::slots_of(int state) {
    return state < 0 ? fresh_[-1 - state] : states_[state];
}

int Program::fresh(const std::string& name, char rows, const std::vector<int64_t>& axes, const float* first,
                   int64_t size) {
    const int before = slot(name, Type::f32, rows, axes);
    const float* from = kept(first, size);
    operations_.push_back([=](const Run& run) {
        float* to = run.f32(before);
        for (int64_t at = 0; at < run.size(before); at += size) std::copy_n(from, size, to + at);
    });
    fresh_.push_back({before, -1});
    return -static_cast<int>(fresh_.size());
}

void Program::output(int slot) {
    outputs_.push_back(slot);
}

// Weights ---------------------------------------------------------------------------------------------------------

// Weights that fill a good part of the near cache lie in large pages: of small ones, which stand at places drawn by
// chance, many would compete for the same part of that cache. What comes after them lies there, too, where it fits.
float* Program::memory_of_weights(std::size_t bytes) {
    bytes = in_lines(bytes);
    if (bytes > large_left_ && bytes < kLargePage / 2) {
        weights_.push_back(aligned<std::byte>(bytes));
        return reinterpret_cast<float*>(weights_.back().get());
    }
    if (bytes > large_left_) {
        large_left_ = (bytes + kLargePage - 1) / kLargePage * kLargePage;
        std::size_t space = large_left_ + kLargePage;
        weights_.push_back(aligned<std::byte>(space));
        large_ = weights_.back().get();
        std::align(kLargePage, large_left_, large_, space);
#ifdef MADV_HUGEPAGE
        madvise(large_, large_left_, MADV_HUGEPAGE);
#endif
    }
    void* found = large_;
    large_ = static_cast<std::byte*>(large_) + bytes, large_left_ -= bytes;
    return static_cast<float*>(found);
}

// The weights of one block of the matrix, which the others follow.
Weights Program::packed(const Matrix& matrix, int64_t gates, int64_t blocks) {
    products_ += matrix.outputs * matrix.inputs;
    const int64_t I = matrix.inputs, O = matrix.outputs / blocks, size = packed_size(O, I, gates);
    float* memory = memory_of_weights(blocks * size * sizeof(float));
    for (int64_t block = 0; block < blocks; ++block)
        pack(O, I, matrix.w + block * O * I, I, 1, memory + block * size, 1, gates);
    return {I, O, memory, gates};
}

const float* Program::kept(const float* values, int64_t size) {
    if (!values) return nullptr;
    float* memory = memory_of_weights(size * sizeof(float));
    std::copy(values, values + size, memory);
    return memory;
}

// w_h is of so many `gates`.
Recurrent Program::recurrent(int x, int lengths, const RecurrentWeights& weights, const Matrix& w_h, int64_t gates,
                             int h, int y) {
    const int64_t G = weights.w_x.outputs, units = w_h.outputs / gates;
    Recurrent made{};
    made.x = x, made.lengths = lengths;
    made.h = slots_of(h).before, made.h_last = changed(h), made.y = y;
    made.hidden = w_h.inputs, made.width = w_h.inputs;
    made.w_h = packed(w_h, gates);  // the larger one first
    made.w_x = packed(weights.w_x, G / units), made.b = kept(weights.b, G);
    made.gain_x = kept(weights.gain_x, G), made.gain_h = kept(weights.gain_h, G);
    made.zoneout = weights.zoneout_h;
    return made;
}

// Operations of layers --------------------------------------------------------------------------------------------

int Program::affine(int x, const Matrix& w, const float* b, int64_t blocks) {
    const int64_t wide = last_axis(x), parts = blocks == 1 ? 1 : wide / w.inputs;
    const int y = like(x, "affine", w.outputs);
    const Weights weights = packed(w, 1, blocks);
    const float* offset = kept(b, w.outputs);
    operations_.push_back([=](const Run& run) {
        const int64_t rows = run.size(x) / wide;
        segue::affine({rows, run.f32(x), wide, weights, offset, run.f32(y), w.outputs, run.threads, blocks,
                       parts});
    });
    return y;
}

int Program::elman(int x, int lengths, const RecurrentWeights& weights, Activation activation, int h) {
    const int64_t H = weights.w_h.outputs;
    const int y = like(x, "elman", H);
    const Recurrent over = recurrent(x, lengths, weights, weights.w_h, 1, h, y);
    operations_.push_back([=](const Run& run) { scan_elman({over.call(run), activation}); });
    return y;
}

int Program::lstm(int x, int lengths, const RecurrentWeights& weights, const LstmWeights& more, int h, int c) {
    const int64_t G = weights.w_h.outputs, H = G / 4;
    const int y = like(x, "lstm", weights.w_h.inputs), c_before = slots_of(c).before, c_after = changed(c);
    Recurrent over = recurrent(x, lengths, weights, weights.w_h, 4, h, y);
    over.hidden = H;
    Lstm law{};
    law.peepholes = kept(more.peepholes, 3 * H);
    if (more.w_r.w) law.w_r = packed(more.w_r, 1);
    law.gain_c = kept(more.gain_c, H), law.bias_c = kept(more.bias_c, H);
    law.zone_c.rate = more.zoneout_c;
    operations_.push_back([=](const Run& run) {
        Lstm now = law;
        now.over = over.call(run);
        now.c0 = run.f32(c_before), now.c_last = run.f32(c_after);
        scan_lstm(now);
    });
    return y;
}

int Program::gru(int x, int lengths, const RecurrentWeights& weights, const float* b_hn, int h) {
    const int64_t H = weights.w_h.inputs;
    const int y = like(x, "gru", H);
    const Matrix w_rz{2 * H, H, weights.w_h.w}, w_n{H, H, weights.w_h.w + 2 * H * H};
    Gru law{};
    law.b_hn = kept(b_hn, H), law.reset_after = b_hn != nullptr;
    if (!law.reset_after) law.w_n = packed(w_n, 1);
    const int64_t gates = law.reset_after ? 3 : 2;
    const Recurrent over = recurrent(x, lengths, weights, law.reset_after ? weights.w_h : w_rz, gates, h, y);
    operations_.push_back([=](const Run& run) {
        Gru now = law;
        now.over = over.call(run);
        scan_gru(now);
    });
    return y;
}

int Program::diagonal(int x, int lengths, Diagonal law, const Matrix& w_x, const float* b, const float* rates, int h) {
    const DiagonalParts parts = parts_of(law);
    const bool is_given = !w_x.outputs;
    const int64_t G = is_given ? last_axis(x) : w_x.outputs, H = G / parts.gates, R = parts.states * H;
    const int y = like(x, "diagonal", R), before = slots_of(h).before, after = changed(h);
    DiagonalScan scan{};
    scan.law = law, scan.hidden = H;
    scan.w_x = is_given ? Weights{0, G, nullptr, parts.gates} : packed(w_x, parts.gates);
    scan.b = kept(b, G), scan.rates = kept(rates, parts.rates * H);
    operations_.push_back([=](const Run& run) {
        DiagonalScan now = scan;
        now.over = {run.size(lengths), run.size(y) / R, run.i64(lengths), false, run.threads};
        (is_given ? now.p : now.x) = run.f32(x), now.y = run.f32(y);
        now.h0 = run.f32(before), now.h_last = run.f32(after);
        scan_diagonal(now);
    });
    return y;
}

int Program::add(int a, int b) {
    const int y = like(a, "sum", last_axis(a));
    operations_.push_back([=](const Run& run) {
        const float *left = run.f32(a), *right = run.f32(b);
        std::transform(left, left + run.size(a), right, run.f32(y), [](float p, float q) { return p + q; });
    });
    return y;
}

// One beside the other along the last axis; of no parts, [N, 0].
int Program::join(const std::vector<int>& parts) {
    int64_t all = 0;
    for (const int part : parts) all += last_axis(part);
    const int y = parts.empty() ? slot("joined", Type::f32, 'N', {0}) : like(parts.front(), "joined", all);
    std::vector<int64_t> widths;
    for (const int part : parts) widths.push_back(last_axis(part));
    operations_.push_back([=](const Run& run) {
        const int64_t rows = all ? run.size(y) / all : 0;
        float* to = run.f32(y);
        for (std::size_t k = 0; k < parts.size(); to += widths[k++]) {
            const float* from = run.f32(parts[k]);
            for (int64_t n = 0; n < rows; ++n, from += widths[k]) std::copy(from, from + widths[k], to + n * all);
        }
    });
    return y;
}

// The rows of x, along its last axis, at the places in `index`; zeros for a place below 0.
int Program::take(int x, int index) {
    std::vector<int64_t> axes = slots_[index].axes;
    const int64_t width = last_axis(x);
    axes.push_back(width);
    const int y = slot("taken", Type::f32, slots_[index].rows, axes);
    operations_.push_back([=](const Run& run) {
        const int64_t* from = run.i64(index);
        float* to = run.f32(y);
        for (int64_t m = 0; m < run.size(index); ++m, to += width) {
            if (from[m] < 0)
                std::fill_n(to, width, 0.0f);
            else
                std::copy_n(run.f32(x) + from[m] * width, width, to);
        }
    });
    return y;
}

// A call ----------------------------------------------------------------------------------------------------------

void Program::run(const std::array<int64_t, 4>& counts, std::vector<void*>& memory, int threads) const {
    const Flush flush;  // once for all operations
    const Run run{slots_, counts, memory, threads};
    std::size_t bytes = 0;
    for (std::size_t k = 0; k < slots_.size(); ++k)
        if (!memory[k]) bytes += in_lines(run.size(k) * bytes_of(slots_[k].type));
    alignas(64) std::byte few[1024];  // enough for a step of a few sequences, which would feel the lock of the others
    Workspace workspace = bytes > sizeof few ? borrow(bytes) : Workspace{};
    const bool are_steps = !memory[kLengths];
    std::byte* next = bytes > sizeof few ? workspace.memory.get() : few;
    for (std::size_t k = 0; k < slots_.size(); ++k) {
        if (memory[k]) continue;
        memory[k] = next;
        next += in_lines(run.size(k) * bytes_of(slots_[k].type));
    }
    if (are_steps) std::fill_n(run.i64(kLengths), counts[1], int64_t{1});
    for (const auto& operation : operations_) operation(run);
    give_back(std::move(workspace));
}

Program::Workspace Program::borrow(std::size_t size) const {
    {
        const std::lock_guard<std::mutex> guard(lock_);
        if (!free_.empty()) {
            Workspace found = std::move(free_.back());
            free_.pop_back();
            if (found.size >= size) return found;
        }
    }
    return {aligned<std::byte>(size), size};
}

void Program::give_back(Workspace&& workspace) const {
    if (workspace.size == 0 || workspace.size > kKept) return;
    const std::lock_guard<std::mutex> guard(lock_);
    free_.push_back(std::move(workspace));
}

}  // namespace segue
