// Products of rows with packed weights; part of kernels-inl.h.

namespace {

constexpr int64_t kPanel = Lanes::vectors * kLanes;

// Inputs taken at a time, so that this part of a panel stays in the nearest cache while all rows pass.
constexpr int64_t kDepth = 128;

// What a tile multiplies: inputs [from, to) with panels of weights; w points at input `from` of the first one.
struct Block {
    int64_t from, to;
    const float* w;
    int64_t next;      // from one panel to the next
    int64_t at;        // the first output
    Lanes::Mask mask;  // the lanes of the last vector
};

// R rows times V vectors of each of P panels, all sums in registers.
template <int R, int V, int P>
void tile(const float* const* x, const Block& block, float* const* y) {
    constexpr int last = P * V - 1;
    const int64_t at = block.at, next = block.next;
    F sum[R][P * V];
    const float* row[R];
    SEGUE_UNROLL for (int r = 0; r < R; ++r) {
        row[r] = x[r];
        SEGUE_UNROLL for (int v = 0; v < last; ++v) sum[r][v] = Lanes::load(y[r] + at + v * kLanes);
        sum[r][last] = Lanes::load(y[r] + at + last * kLanes, block.mask);
    }
    const float* w = block.w;
    for (int64_t i = block.from; i < block.to; ++i, w += kPanel) {
        F weights[P * V];
        SEGUE_UNROLL for (int p = 0; p < P; ++p) {
            SEGUE_UNROLL for (int v = 0; v < V; ++v) weights[p * V + v] = Lanes::load(w + p * next + v * kLanes);
        }
        SEGUE_UNROLL for (int r = 0; r < R; ++r) {
            const F value = Lanes::splat(row[r][i]);
            SEGUE_UNROLL for (int v = 0; v < P * V; ++v) sum[r][v] = Lanes::fma(value, weights[v], sum[r][v]);
        }
    }
    SEGUE_UNROLL for (int r = 0; r < R; ++r) {
        SEGUE_UNROLL for (int v = 0; v < last; ++v) Lanes::store(y[r] + at + v * kLanes, sum[r][v]);
        Lanes::store(y[r] + at + last * kLanes, sum[r][last], block.mask);
    }
}

using Tile = void (*)(const float* const*, const Block&, float* const*);

template <int R>
Tile tile_of_width(int64_t vectors) {
    static_assert(Lanes::vectors <= 4, "one case for each number of vectors");
    switch (vectors) {
        case 1: return tile<R, 1, 1>;
        case 2: return tile<R, Lanes::vectors < 2 ? Lanes::vectors : 2, 1>;
        case 3: return tile<R, Lanes::vectors < 3 ? Lanes::vectors : 3, 1>;
        default: return tile<R, Lanes::vectors, 1>;
    }
}

Tile tile_of(int64_t rows, int64_t vectors) {
    static_assert(Lanes::rows <= 6, "one case for each number of rows");
    switch (rows) {
        case 1: return tile_of_width<1>(vectors);
        case 2: return tile_of_width<2>(vectors);
        case 3: return tile_of_width<3>(vectors);
        case 4: return tile_of_width<4>(vectors);
        case 5: return tile_of_width<Lanes::rows < 5 ? Lanes::rows : 5>(vectors);
        default: return tile_of_width<Lanes::rows>(vectors);
    }
}

// All rows through one block of one panel, in even groups of at most Lanes::rows.
void multiply_block(int64_t rows, const float* const* x, const Block& block, int64_t vectors, float* const* y) {
    const int64_t groups = (rows + Lanes::rows - 1) / Lanes::rows, small = rows / groups, larger = rows % groups;
    const Tile plain = tile_of(small, vectors), one_more = tile_of(small + 1, vectors);
    for (int64_t group = 0, r = 0; group < groups; ++group) {
        const bool extra = group < larger;
        (extra ? one_more : plain)(x + r, block, y + r);
        r += small + extra;
    }
}

// One or two rows leave registers free: several panels at once, so that many sums are under way.
template <int R, int P>
int64_t multiply_few(const float* const* x, const Weights& w, int64_t panel, int64_t to, float* const* y) {
    const int64_t full = w.outputs / kPanel < to ? w.outputs / kPanel : to, next = w.inputs * kPanel;
    for (; panel + P <= full; panel += P)
        tile<R, Lanes::vectors, P>(
            x, {0, w.inputs, w.packed + panel * next, next, panel * kPanel, Lanes::first(kLanes)}, y);
    return panel;
}

// Sums are stored and loaded again between two blocks of the same outputs, which changes no bit.
void multiply_add(int64_t rows, const float* const* x, const Weights& w, int64_t from, int64_t to, float* const* y) {
    if (rows == 0) return;
    if (rows == 1) from = multiply_few<1, Lanes::panels_of_1>(x, w, from, to, y);
    if (rows == 2) from = multiply_few<2, Lanes::panels_of_2>(x, w, from, to, y);
    const int64_t depth = rows > Lanes::rows ? kDepth : w.inputs, next = w.inputs * kPanel;
    for (int64_t panel = from; panel < to; ++panel) {
        const int64_t at = panel * kPanel, outputs = w.outputs - at < kPanel ? w.outputs - at : kPanel;
        const int64_t vectors = (outputs + kLanes - 1) / kLanes;
        const Lanes::Mask mask = Lanes::first(outputs - (vectors - 1) * kLanes);
        for (int64_t i = 0; i < w.inputs; i += depth) {
            const int64_t end = w.inputs - i < depth ? w.inputs : i + depth;
            multiply_block(rows, x, {i, end, w.packed + panel * next + i * kPanel, next, at, mask}, vectors, y);
        }
    }
}

void round(int64_t size, const float* x, float* y) {
    for (int64_t i = 0; i < size; ++i) {
        std::uint32_t bits;
        __builtin_memcpy(&bits, x + i, sizeof bits);
        const std::uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
        bits = x[i] == x[i] ? nearest : bits;  // rounding could make an infinity of a NaN
        __builtin_memcpy(y + i, &bits, sizeof bits);
    }
}

}  // namespace
