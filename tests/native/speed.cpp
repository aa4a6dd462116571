// How near a scan comes to the fastest product on one thread: what is left for threads, memory and callers to lose.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels.h"

namespace {

using std::int64_t;

struct Free {
    void operator()(float* p) const { std::free(p); }
};

struct Array {
    std::unique_ptr<float[], Free> values;
    explicit Array(int64_t size) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, size * sizeof(float) + 64)) std::abort();
        values.reset(static_cast<float*>(memory));
        for (int64_t k = 0; k < size; ++k) values[k] = 0.05f * static_cast<float>(k * 7919 % 2001 - 1000) / 1000.0f;
    }
    float* get() const { return values.get(); }
};

// GFLOP/s of the fastest of many calls, which do so many multiply-adds each.
template <class Call>
double fastest(double multiply_adds, Call call) {
    double least = 1e9, spent = 0;
    while (spent < 0.5) {
        const auto begun = std::chrono::steady_clock::now();
        call();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
        least = seconds < least ? seconds : least;
        spent += seconds;
    }
    return 2e-9 * multiply_adds / least;
}

struct Packed {
    Array values;
    segue::Weights weights;
    Packed(int64_t outputs, int64_t inputs, int64_t gates)
        : values(segue::packed_size(outputs, inputs, gates)), weights{inputs, outputs, values.get(), gates} {
        const Array w(outputs * inputs);
        segue::pack(outputs, inputs, w.get(), inputs, 1, values.get(), 1, gates);
    }
};

double product() {
    constexpr int64_t N = 960, I = 256, O = 512;
    const Packed w(O, I, 1);
    const Array x(N * I), y(N * O);
    return fastest(double(N) * I * O, [&] { segue::affine({N, x.get(), I, w.weights, nullptr, y.get(), O, 1}); });
}

// All steps of `rows` sequences, nothing kept.
double scan(int64_t gates, int64_t rows, int64_t I, int64_t H) {
    constexpr int64_t T = 50;
    const int64_t G = gates * H, N = rows * T;
    const Packed w_x(G, I, gates), w_h(G, H, gates);
    const Array x(N * I), b(4 * H), state(rows * H), y(N * H), last(rows * H), c(rows * H), c_last(rows * H);
    const std::vector<int64_t> lengths(rows, T);
    segue::Recurrence over{};
    over.over = {rows, N, lengths.data(), false, 1};
    over.hidden = over.width = H;
    over.x = x.get(), over.w_x = w_x.weights, over.b = b.get(), over.w_h = w_h.weights;
    over.h0 = state.get(), over.y = y.get(), over.h_last = last.get();
    return fastest(double(N) * G * (I + H), [&] {
        if (gates == 1) return segue::scan_elman({over, segue::Activation::tanh});
        if (gates == 3) return segue::scan_gru({over, {}, b.get(), true});
        segue::Lstm call{};
        call.over = over, call.c0 = c.get(), call.c_last = c_last.get();
        segue::scan_lstm(call);
    });
}

}  // namespace

int main() {
    const double best = product();
    std::printf("%s, one thread; a product of 960 rows: %.0f GFLOP/s\n", segue::compiled_for(), best);
    const struct {
        const char* name;
        int64_t gates;
    } laws[] = {{"Elman", 1}, {"GRU", 3}, {"LSTM", 4}};
    for (const auto& law : laws)
        for (const int64_t hidden : {64, 128, 256}) {
            const double found = scan(law.gates, 16, hidden / 2, hidden);
            std::printf("%-5s 16 sequences, %3lld -> %3lld, forward: %.0f GFLOP/s, %.0f %% of the product's\n", law.name,
                        static_cast<long long>(hidden / 2), static_cast<long long>(hidden), found, 100 * found / best);
        }
}
