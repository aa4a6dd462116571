// Packing, and what is done to rows that are independent of each other.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "blocked.h"
#include "threads.h"

namespace segue::blocked {

using std::int64_t;

// How many outputs a panel of packed weights has.
static int64_t panel_of(const Primitives& p, int64_t gates) {
    return (gates == 1 ? p.vectors : gates) * p.lanes;
}

int64_t panels(const Primitives& p, int64_t outputs, int64_t gates) {
    const int64_t units = outputs / gates, of_each = panel_of(p, gates) / gates;
    return (units + of_each - 1) / of_each;
}

constexpr int64_t kTileDepth = 32;

static int64_t tiled(int64_t inputs) {
    return (inputs + kTileDepth - 1) / kTileDepth * kTileDepth;
}

int64_t packed_size(const Primitives& p, int64_t outputs, int64_t inputs, int64_t gates, bool half) {
    const bool is_tiled = half && p.has_tiles;
    return panels(p, outputs, gates) * panel_of(p, gates) * (is_tiled ? tiled(inputs) / 2 : inputs);
}

// One panel of tiles; see Primitives::has_tiles.
static void pack_tiles(const Primitives& p, int64_t inputs, int64_t gates, int64_t units, int64_t first,
                       const float* w, int64_t row, int64_t column, float* packed) {
    const int64_t vectors = panel_of(p, gates) / p.lanes, depth = tiled(inputs);
    auto* to = reinterpret_cast<std::uint16_t*>(packed);
    for (int64_t block = 0; block < depth; block += kTileDepth)
        for (int64_t v = 0; v < vectors; ++v)
            for (int64_t pair = block; pair < block + kTileDepth; pair += 2)
                for (int64_t lane = 0; lane < p.lanes; ++lane)
                    for (int64_t i = pair; i < pair + 2; ++i, ++to) {
                        const int64_t unit = first + lane + (gates == 1 ? v * p.lanes : 0);
                        float value = 0.0f;
                        if (i < inputs && unit < units)
                            value = w[((gates == 1 ? 0 : v) * units + unit) * row + i * column];
                        p.round(1, &value, &value);
                        std::uint32_t bits;
                        std::memcpy(&bits, &value, sizeof bits);
                        *to = static_cast<std::uint16_t>(bits >> 16);
                    }
}

void pack(const Primitives& p, int64_t outputs, int64_t inputs, const float* w, int64_t row, int64_t column,
          float* packed, int threads, int64_t gates, bool half) {
    const int64_t units = outputs / gates, wide = panel_of(p, gates), of_each = wide / gates;
    const int64_t count = panels(p, outputs, gates);
    const int useful = useful_threads(threads, count, static_cast<double>(outputs * inputs));
    run_shares(useful, count, [&](int64_t panel) {
        const int64_t first = panel * of_each, filled = std::min(of_each, units - first);
        if (half && p.has_tiles) {
            float* tiles = packed + panel * wide * tiled(inputs) / 2;
            return pack_tiles(p, inputs, gates, units, first, w, row, column, tiles);
        }
        float* to = packed + panel * wide * inputs;
        for (int64_t i = 0; i < inputs; ++i) {
            for (int64_t gate = 0; gate < gates; ++gate, to += of_each) {
                const float* from = w + (gate * units + first) * row + i * column;
                for (int64_t unit = 0; unit < filled; ++unit) to[unit] = from[unit * row];
                std::fill(to + filled, to + of_each, 0.0f);
                if (half) p.round(filled, to, to);
            }
        }
    });
}

float* half_scratch(int64_t rows, int64_t inputs, int64_t others) {
    constexpr int64_t kLine = 16, kTileRows = 16;
    thread_local std::vector<float> memory;
    const int64_t needed = (rows + kTileRows - 1) / kTileRows * kTileRows * (tiled(inputs) + tiled(others)) + kLine;
    if (static_cast<int64_t>(memory.size()) < needed) memory.resize(needed);
    const auto past = reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float) % kLine;
    return memory.data() + (past ? kLine - past : 0);
}

void multiply_add(const Primitives& p, int64_t rows, const float* const* x, const Weights& w, int64_t from, int64_t to,
                  float* const* y) {
    if (w.half)
        p.multiply_add_half(rows, x, w, from, to, y, half_scratch(rows, w.inputs));
    else
        p.multiply_add(rows, x, w, from, to, y);
}

void affine(const Primitives& p, const Affine& call) {
    const int64_t I = call.w.inputs, O = call.w.outputs, wide = call.blocks * O, all = panels(p, call.w);
    const int64_t size = packed_size(p, O, I, call.w.gates, call.w.half);
    const double work = static_cast<double>(call.rows) * static_cast<double>(I * wide);
    const int64_t shares = (call.rows + kRows - 1) / kRows;
    const int threads = useful_threads(call.threads, shares, work);
    run_shares(threads, shares, [&](int64_t share) {
        const float* x[kRows];
        float* y[kRows];
        const int64_t n = share * kRows, rows = std::min(kRows, call.rows - n);
        for (int64_t block = 0; block < call.blocks; ++block) {
            for (int64_t r = 0; r < rows; ++r) {
                x[r] = call.x + (n + r) * call.x_row + block % call.parts * I;
                y[r] = call.y + (n + r) * call.y_row + block * O;
                if (call.b)
                    std::copy_n(call.b + block * O, O, y[r]);
                else
                    std::fill_n(y[r], O, 0.0f);
            }
            Weights w = call.w;
            w.packed += block * size;
            multiply_add(p, rows, x, w, 0, all, y);
        }
    });
}

// The share of a thread in outer(), by tiles.
static void outer_tiles(const Primitives& p, const Outer& call, int64_t from, int64_t to) {
    constexpr int64_t kBlock = 256, kTile = 16;
    const auto whole = [](int64_t size) { return (size + kTile - 1) / kTile * kTile; };
    const int64_t J = call.inputs, G = to - from, row = whole(J), depth = tiled(std::min(kBlock, call.rows));
    const int64_t sums = whole(G) * row, scratch = (whole(G) + row) * depth / 2;
    const std::unique_ptr<float[]> memory(new float[sums + scratch + kTile]);
    float* dw = memory.get() + (kTile - reinterpret_cast<std::uintptr_t>(memory.get()) / sizeof(float) % kTile);
    for (int64_t n = 0; n < call.rows; n += kBlock)
        p.add_outer_half({std::min(kBlock, call.rows - n), J, call.d + n * call.d_row, call.d_row,
                          call.x + n * call.x_row, call.x_row, dw + sums, dw, row, n == 0},
                         from, to);
    for (int64_t g = 0; g < G; ++g) std::copy_n(dw + g * row, J, call.dw + (from + g) * J);
}

// Threads share out the columns of d, so that each sum is made by one of them, in one order.
void outer(const Primitives& p, const Outer& call) {
    constexpr int64_t kFewInputs = 64;  // for which packing d would cost more than it saves, measured
    const bool is_packed = call.inputs > kFewInputs;
    const int64_t kBlock = is_packed ? 128 : 64;  // rows that the nearest cache holds
    const int64_t kColumns = call.half && p.has_tiles ? 32 : 12;  // a multiple of the tallest tiles
    constexpr int64_t kLine = 16;
    const int64_t J = call.inputs, wide = p.vectors * p.lanes, panels = (J + wide - 1) / wide;
    const int64_t parts = (call.columns + kColumns - 1) / kColumns;
    if (!call.rows) std::fill_n(call.dw, call.columns * J, 0.0f);
    const double work = static_cast<double>(call.rows) * static_cast<double>(call.columns * J);
    const int threads = useful_threads(call.threads, parts, work);
    const int64_t shares = threads;
    run_shares(threads, shares, [&](int64_t share) {
        const int64_t from = parts * share / shares * kColumns;
        const int64_t to = std::min(parts * (share + 1) / shares * kColumns, call.columns);
        if (call.half && p.has_tiles && call.rows) return outer_tiles(p, call, from, to);
        const int64_t most = std::min(kBlock, call.rows);
        const std::unique_ptr<float[]> memory(new float[(panels * wide + to - from + kColumns) * most + kLine]);
        float* x = memory.get() + (kLine - reinterpret_cast<std::uintptr_t>(memory.get()) / sizeof(float) % kLine);
        for (int64_t n = 0; n < call.rows; n += kBlock) {
            const int64_t rows = std::min(kBlock, call.rows - n);
            for (int64_t j = 0; j < J; j += wide) {
                const int64_t filled = std::min(wide, J - j), step = (filled + p.lanes - 1) / p.lanes * p.lanes;
                float* row = x + j * rows;
                for (int64_t r = 0; r < rows; ++r, row += step) {
                    std::copy_n(call.x + (n + r) * call.x_row + j, filled, row);
                    std::fill(row + filled, row + step, 0.0f);
                }
            }
            p.add_outer({rows, J, call.d + n * call.d_row, call.d_row, is_packed ? x + panels * wide * rows : nullptr,
                         x, call.dw, J, n == 0},
                        from, to);
        }
    });
}

void column_sums(const Primitives& p, const ColumnSums& call) {
    constexpr int64_t kBlock = 128;  // sums of sums, so that rounding does not grow with the rows
    const int64_t G = call.columns, blocks = (call.rows + kBlock - 1) / kBlock;
    const int useful = useful_threads(call.threads, blocks, static_cast<double>(call.rows * G) * 4);
    std::vector<float> parts(blocks * G);
    run_shares(useful, blocks, [&](int64_t block) {
        float* part = parts.data() + block * G;
        for (int64_t n = block * kBlock; n < std::min(call.rows, (block + 1) * kBlock); ++n)
            p.add(G, part, call.d + n * G, part);
    });
    std::fill_n(call.sums, G, 0.0f);
    for (int64_t block = 0; block < blocks; ++block) p.add(G, call.sums, parts.data() + block * G, call.sums);
}

void draw(const Primitives& p, const Draw& call) {
    constexpr int64_t kPiece = 256;  // blocks
    const int64_t whole = call.size / kDrawBlock, pieces = (whole + kPiece - 1) / kPiece;
    const int threads = useful_threads(call.threads, pieces, static_cast<double>(call.size));
    run_shares(threads, pieces, [&](int64_t piece) {
        const int64_t from = piece * kPiece, to = std::min(whole, from + kPiece);
        p.draw_blocks(call.key, call.threshold, from, to, call.keep + from * kDrawBlock);
    });
    std::uint8_t rest[kDrawBlock];
    p.draw_blocks(call.key, call.threshold, whole, whole + 1, rest);
    std::copy_n(rest, call.size % kDrawBlock, call.keep + whole * kDrawBlock);
}

}  // namespace segue::blocked
