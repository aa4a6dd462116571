#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "checks.h"
#include "compare.h"
#include "memory.h"
#include "native.h"

namespace {

// One chain of fused multiply-adds in ascending order, b first: what the law of kernels.h says, to the bit. In half
// precision the factors are rounded before.
Floats chain(int64_t rows, int64_t inputs, int64_t outputs, const Floats& x, const Floats& w, const Floats& b) {
    Floats y(rows * outputs);
    for (int64_t n = 0; n < rows; ++n)
        for (int64_t o = 0; o < outputs; ++o) {
            float sum = b.empty() ? 0 : b[o];
            for (int64_t i = 0; i < inputs; ++i) sum = std::fma(x[n * inputs + i], w[o * inputs + i], sum);
            y[n * outputs + o] = sum;
        }
    return y;
}

bool has_tiles() {
    return std::string(segue::compiled_for()) == "amx";
}

// Tiles sum in an order of their own: the values are those of the definition, and a row has one sum wherever it stands.
void check_tiles(int64_t rows, int64_t inputs, int64_t outputs, const Floats& x, const Floats& w, const Floats& b) {
    Problem q;
    q.half = true;
    const Floats y = affine(rows, inputs, outputs, x, w, b, 1, true);
    const Floats exact = chain(rows, inputs, outputs, rounded(q, x), rounded(q, w), b);
    for (std::size_t k = 0; k < y.size(); ++k)
        require(std::abs(y[k] - exact[k]) <= 1e-6f * static_cast<float>(inputs + 1), "expected the sums of one chain");
    for (int threads : {2, 3})
        require(affine(rows, inputs, outputs, x, w, b, threads, true) == y, "expected the same on any threads");
    for (int64_t n : {int64_t{0}, rows - 1}) {
        const Floats alone(x.begin() + n * inputs, x.begin() + (n + 1) * inputs);
        const Floats row(y.begin() + n * outputs, y.begin() + (n + 1) * outputs);
        require(affine(1, inputs, outputs, alone, w, b, 1, true) == row, "expected the bits that the row has alone");
    }
}

void check_affine(int64_t rows, int64_t inputs, int64_t outputs, bool half) {
    Draw draw(rows * 7919 + inputs * 104729 + outputs);
    const Floats x = draw.many(rows * inputs, -1, 1), w = draw.many(outputs * inputs, -1, 1);
    const Floats b = draw.many(outputs, -1, 1);
    Problem q;
    q.half = half;
    if (half && has_tiles()) return check_tiles(rows, inputs, outputs, x, w, b);
    for (const Floats& bias : {b, Floats()}) {
        const Floats want = chain(rows, inputs, outputs, rounded(q, x), rounded(q, w), bias);
        for (int threads : {1, 2, 3})
            require(affine(rows, inputs, outputs, x, w, bias, threads, half) == want,
                    "expected the bits of one chain in ascending order, threads " + std::to_string(threads));
    }
}

// Several matrices, each of which reads a part of the rows of x and writes a part of the rows of y; both lie among
// others, which are left as they are.
void check_blocks(int64_t rows, int64_t inputs, int64_t outputs, int64_t blocks, int64_t parts) {
    Draw draw(rows * 7919 + inputs * 104729 + outputs);
    const int64_t wide = parts * inputs + 3, long_ = blocks * outputs + 5, size = segue::packed_size(outputs, inputs);
    const Floats x = draw.many(rows * wide, -1, 1), w = draw.many(blocks * outputs * inputs, -1, 1);
    const Floats b = draw.many(blocks * outputs, -1, 1), before = draw.many(rows * long_, -1, 1);
    Floats want = before;
    for (int64_t block = 0; block < blocks; ++block)
        for (int64_t n = 0; n < rows; ++n) {
            const float* seen = x.data() + n * wide + block % parts * inputs;
            const Floats own = chain(1, inputs, outputs, Floats(seen, seen + inputs),
                                     Floats(w.begin() + block * outputs * inputs, w.end()),
                                     Floats(b.begin() + block * outputs, b.end()));
            std::copy(own.begin(), own.end(), want.begin() + n * long_ + block * outputs);
        }
    for (int threads : {1, 2, 3}) {
        Memory memory;
        Floats packed, y;
        float* weights = memory.aligned(packed, blocks * size, "packed");
        for (int64_t block = 0; block < blocks; ++block)
            segue::pack(outputs, inputs, w.data() + block * outputs * inputs, inputs, 1, weights + block * size, 1);
        segue::affine({rows, memory.input(x, "x"), wide, {inputs, outputs, weights}, memory.input(b, "b"),
                       memory.advanced(y, before, "y"), long_, threads, blocks, parts});
        memory.finish();
        require(y == want, "expected the bits of one chain in each block, and nothing else written");
    }
}

bool same_bits(const Floats& a, const Floats& b) {
    return a.size() == b.size() && (a.empty() || !std::memcmp(a.data(), b.data(), a.size() * sizeof(float)));
}

void check_pack(int64_t outputs, int64_t inputs) {
    Draw draw(outputs * 7919 + inputs);
    const Floats w = draw.many(outputs * inputs, -1, 1);
    Floats transposed(w.size());
    for (int64_t o = 0; o < outputs; ++o)
        for (int64_t i = 0; i < inputs; ++i) transposed[i * outputs + o] = w[o * inputs + i];
    for (int64_t gates : {1, 2, 3, 4}) {
        if (outputs % gates) continue;
        for (bool half : {false, true}) {
            const Floats want = pack(outputs, inputs, w, inputs, 1, 1, gates, half);
            for (int threads : {1, 2, 3}) {
                const Floats again = pack(outputs, inputs, w, inputs, 1, threads, gates, half);
                const Floats strided = pack(outputs, inputs, transposed, 1, outputs, threads, gates, half);
                require(same_bits(again, want), "expected the same on any threads");
                require(same_bits(strided, want), "expected strides to transpose");
            }
        }
    }
}

// Rows that are parts of longer ones, so that the caller's strides are seen.
void check_outer(Harness& harness, int64_t rows, int64_t columns, int64_t inputs, bool half) {
    Draw draw(rows * 7919 + columns * 104729 + inputs);
    const int64_t d_row = columns + 3, x_row = inputs + 5;
    Problem q;
    q.half = half && has_tiles();  // elsewhere nothing is rounded
    const Floats given_d = draw.many(rows * d_row, -1, 1), given_x = draw.many(rows * x_row, -1, 1);
    const Floats d = rounded(q, given_d), x = rounded(q, given_x);
    definition::Array<double> want(columns * inputs);
    Floats plain(columns * inputs);
    for (int64_t n = 0; n < rows; ++n)
        for (int64_t g = 0; g < columns; ++g)
            for (int64_t j = 0; j < inputs; ++j) {
                const float a = d[n * d_row + g], b = x[n * x_row + j];
                want[g * inputs + j] += double(a) * b, plain[g * inputs + j] += a * b;
            }
    const auto run = [&](int threads) {
        Memory memory;
        Floats got;
        segue::outer({rows, columns, inputs, memory.input(given_d, "d"), d_row, memory.input(given_x, "x"), x_row,
                      memory.output(got, columns * inputs, "dw"), threads, half});
        memory.finish();
        return got;
    };
    const Floats got = run(1);
    compare(harness, "dw", kFloat, got, want, plain);
    for (int threads : {2, 3}) require(run(threads) == got, "expected the same on any threads");
}

void check_column_sums(Harness& harness, int64_t rows, int64_t columns) {
    Draw draw(rows * 7919 + columns);
    const Floats d = draw.many(rows * columns, -1, 1);
    definition::Array<double> want(columns);
    Floats plain(columns);
    for (int64_t n = 0; n < rows; ++n)
        for (int64_t j = 0; j < columns; ++j) want[j] += d[n * columns + j], plain[j] += d[n * columns + j];
    const auto run = [&](int threads) {
        Memory memory;
        Floats got;
        segue::column_sums({rows, columns, memory.input(d, "d"), memory.output(got, columns, "sums"), threads});
        memory.finish();
        return got;
    };
    const Floats got = run(1);
    compare(harness, "sums", kFloat, got, want, plain);
    for (int threads : {2, 3}) require(run(threads) == got, "expected the same on any threads");
}

// Four numbers of a counter, as the paper has them.
std::array<std::uint32_t, 4> philox(std::uint64_t counter, std::uint64_t key) {
    const auto low = [](std::uint64_t a) { return static_cast<std::uint32_t>(a); };
    std::array<std::uint32_t, 4> c = {low(counter), low(counter >> 32), 0, 0};
    for (int round = 0; round < 10; ++round) {
        const std::uint32_t k0 = low(key) + 0x9E3779B9u * round, k1 = low(key >> 32) + 0xBB67AE85u * round;
        const std::uint64_t a = std::uint64_t{0xD2511F53u} * c[0], b = std::uint64_t{0xCD9E8D57u} * c[2];
        c = {low(b >> 32) ^ c[1] ^ k0, low(b), low(a >> 32) ^ c[3] ^ k1, low(a)};
    }
    return c;
}

void check_draw(int64_t size) {
    require(philox(0, 0) == std::array<std::uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u},
            "expected the numbers of the paper's code");
    const std::uint64_t key = 0x0123456789abcdefu;
    const std::uint32_t threshold = 0x20000000u;
    std::vector<std::uint8_t> want(size);
    for (int64_t n = 0; n < size; ++n) {
        const int64_t counters = segue::kDrawBlock / 4, block = n / segue::kDrawBlock, at = n % segue::kDrawBlock;
        want[n] = philox(block * counters + at % counters, key)[at / counters] < threshold;
    }
    for (int threads : {1, 3}) {
        std::vector<std::uint8_t> got(size + 1, 7);
        segue::draw({size, key, threshold, got.data(), threads});
        require(got.back() == 7, "draws written outside");
        got.pop_back();
        require(got == want, "expected the draws of the definition, on any threads");
    }
}

void check_before(int64_t width, bool masked, bool reverse) {
    Draw draw(width);
    const std::vector<int64_t> lengths = {3, 0, 1, 70, 5, 0};
    const int64_t rows = 79, count = 6;
    const Floats y = draw.many(rows * width, -1, 1), first = draw.many(count * width, -1, 1);
    const Floats mask = masked ? draw.many(count * width, 0, 2) : Floats();
    Floats want(rows * width);
    for (int64_t s = 0, start = 0; s < count; start += lengths[s++])
        for (int64_t t = 0; t < lengths[s]; ++t)
            for (int64_t j = 0; j < width; ++j) {
                const int64_t n = start + t, earlier = reverse ? n + 1 : n - 1;
                const bool is_first = reverse ? t == lengths[s] - 1 : t == 0;
                const float state = is_first ? first[s * width + j] : y[earlier * width + j];
                want[n * width + j] = masked ? mask[s * width + j] * state : state;
            }
    for (int threads : {1, 2, 3}) {
        Memory memory;
        Floats got;
        segue::before({{count, rows, memory.input(lengths, "lengths"), reverse, threads}, width, memory.input(y, "y"),
                       memory.input(first, "first"), memory.optional(mask, "mask"),
                       memory.output(got, rows * width, "before")});
        memory.finish();
        require(got == want, "expected the state before each step, on any threads");
    }
}

void check_linear(int64_t hidden, bool reverse) {
    Draw draw(hidden);
    const std::vector<int64_t> lengths = {3, 0, 1, 70, 5, 0};
    const int64_t rows = 79, count = 6;
    const Floats a = draw.many(rows * hidden, -1, 1), b = draw.many(rows * hidden, -1, 1);
    const Floats h0 = draw.many(count * hidden, -1, 1);
    Floats want(rows * hidden), last = h0;
    for (int64_t s = 0, start = 0; s < count; start += lengths[s++])
        for (int64_t t = 0; t < lengths[s]; ++t)
            for (int64_t j = 0; j < hidden; ++j) {
                const int64_t n = (start + (reverse ? lengths[s] - 1 - t : t)) * hidden + j;
                float& h = last[s * hidden + j];
                want[n] = h = std::fma(a[n], h, b[n]);
            }
    for (int threads : {1, 2, 3}) {
        Memory memory;
        Floats y, h_last;
        segue::scan_linear({{count, rows, memory.input(lengths, "lengths"), reverse, threads}, hidden,
                            memory.input(a, "a"), memory.input(b, "b"), memory.input(h0, "h0"),
                            memory.output(y, rows * hidden, "y"), memory.output(h_last, count * hidden, "h_last")});
        memory.finish();
        require(y == want && h_last == last, "expected a * h + b at every step, on any threads");
    }
}

}  // namespace

void check_products(Harness& harness) {
    const std::vector<int64_t> few = {1, 3, 17, 64, 67, 130, 257, 1030};
    for (int64_t outputs : few)
        for (int64_t inputs : few) {
            const std::string size = " outputs " + std::to_string(outputs) + " inputs " + std::to_string(inputs);
            harness.check("pack" + size, [&] { check_pack(outputs, inputs); });
            for (int64_t rows : {1, 2, 3, 5, 6, 7, 13, 33, 100, 1001}) {
                const bool large = rows * outputs * inputs > (harness.quick() ? 1000000 : 30000000);
                if (large) continue;
                const std::string name = " rows " + std::to_string(rows) + size;
                harness.check("affine" + name, [&] { check_affine(rows, inputs, outputs, false); });
                harness.check("half affine" + name, [&] { check_affine(rows, inputs, outputs, true); });
            }
        }
    harness.check("affine on rows enough to be shared out", [] { check_affine(2001, 67, 130, false); });
    harness.check("affine without inputs", [] { check_affine(5, 0, 17, false); });
    harness.check("affine without rows", [] { check_affine(0, 5, 17, false); });
    for (int64_t size : {1, 5, 16, 33})
        for (int64_t parts : {1, 3})
            for (int64_t rows : {1, 2, 7, 200})
                harness.check("affine in blocks of " + std::to_string(size),
                              [&] { check_blocks(rows, size, size + parts - 1, 2 * parts, parts); });
    using Counts = std::vector<int64_t>;
    const bool quick = harness.quick();
    for (int64_t columns : quick ? Counts{1, 17, 130} : Counts{1, 5, 17, 130, 257})
        for (int64_t inputs : quick ? Counts{1, 33, 64, 130} : Counts{1, 3, 17, 33, 64, 67, 130, 257})
            for (int64_t rows : quick ? Counts{0, 1, 129, 300} : Counts{0, 1, 63, 129, 300, 1001}) {
                const std::string size = std::to_string(columns) + " by " + std::to_string(inputs);
                for (bool half : {false, true})
                    harness.check("outer products " + size + " rows " + std::to_string(rows),
                                  [&] { check_outer(harness, rows, columns, inputs, half); });
            }
    for (int64_t columns : {1, 17, 255, 600})
        for (int64_t rows : {0, 1, 127, 300, 2000})
            harness.check("column sums rows " + std::to_string(rows) + " columns " + std::to_string(columns),
                          [&] { check_column_sums(harness, rows, columns); });
    for (int64_t hidden : {1, 17, 300, 4000})
        for (bool reverse : {false, true})
            harness.check("linear recurrence, hidden " + std::to_string(hidden),
                          [&] { check_linear(hidden, reverse); });
    for (int64_t size : {0, 1, 255, 256, 1000, 300000})
        harness.check("draws " + std::to_string(size), [&] { check_draw(size); });
    for (int64_t width : {1, 17, 2000})
        for (bool masked : {false, true})
            for (bool reverse : {false, true})
                harness.check("states before, width " + std::to_string(width),
                              [&] { check_before(width, masked, reverse); });
}
