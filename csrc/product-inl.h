// Products of rows with packed weights; part of kernels-inl.h.

namespace {

constexpr int kMostRows = 8, kMostVectors = 4;  // of a tile

// Inputs taken at a time, so that this part of a panel stays in the nearest cache while all rows pass.
constexpr int64_t kDepth = 128;

// How many vectors a panel has: of one gate as many as suit the target, else one of each gate.
constexpr int vectors_of(int64_t gates) {
    return gates == 1 ? Lanes::vectors : static_cast<int>(gates);
}

// How many rows a tile of so many vectors has at most.
constexpr int rows_of(int vectors) {
    return Lanes::sums / vectors < kMostRows ? Lanes::sums / vectors : kMostRows;
}

// Where V vectors of sums stand in an output row, and which of their lanes there are.
template <int V>
struct Columns {
    int64_t at[V];
    Lanes::Mask masks[V];

    // Of the gates of `units` units: the vectors of panels that follow each other.
    Columns(int64_t gates, int64_t units, int64_t panel) {
        const int64_t apart = gates == 1 ? kLanes : units;
        const int in_panel = vectors_of(gates);
        int64_t unit = gates == 1 ? panel * in_panel * kLanes : panel * kLanes;
        for (int v = 0, k = 0; v < V; ++v) {
            const int64_t left = units - unit - (gates == 1 ? k * kLanes : 0);
            at[v] = unit + k * apart;
            masks[v] = Lanes::first(left < 0 ? 0 : left < kLanes ? left : kLanes);
            if (++k == in_panel) k = 0, unit += gates == 1 ? in_panel * kLanes : kLanes;
        }
    }
};

// What a tile multiplies: inputs [from, to) with panels of weights; w points at input `from` of the first one.
struct Block {
    int64_t from, to;
    const float* w;
    int64_t step, next;        // from one input to the next, from one panel to the next
    const int64_t* at;         // see Columns
    const Lanes::Mask* masks;
};

// y += W x for R rows times V vectors of each of P panels, all sums in registers.
template <int R, int V, int P>
SEGUE_INLINE void tile(const float* const* x, const Block& block, float* const* y) {
    const int64_t step = block.step, next = block.next;
    F sum[R][P * V];
    const float* row[R];
    SEGUE_UNROLL for (int r = 0; r < R; ++r) {
        row[r] = x[r];
        SEGUE_UNROLL for (int v = 0; v < P * V; ++v) sum[r][v] = Lanes::load(y[r] + block.at[v], block.masks[v]);
    }
    const float* w = block.w;
    for (int64_t i = block.from; i < block.to; ++i, w += step) {
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
        SEGUE_UNROLL for (int v = 0; v < P * V; ++v) Lanes::store(y[r] + block.at[v], sum[r][v], block.masks[v]);
    }
}

using Tile = void (*)(const float* const*, const Block&, float* const*);

template <int V>
Tile tile_of_rows(int64_t rows) {
    static_assert(kMostRows == 8, "one case for each number of rows");
    constexpr int most = rows_of(V);
    switch (rows) {
        case 1: return tile<1, V, 1>;
        case 2: return tile<2, V, 1>;
        case 3: return tile<most < 3 ? most : 3, V, 1>;
        case 4: return tile<most < 4 ? most : 4, V, 1>;
        case 5: return tile<most < 5 ? most : 5, V, 1>;
        case 6: return tile<most < 6 ? most : 6, V, 1>;
        case 7: return tile<most < 7 ? most : 7, V, 1>;
        default: return tile<most, V, 1>;
    }
}

Tile tile_of(int64_t rows, int vectors) {
    switch (vectors) {
        case 1: return tile_of_rows<1>(rows);
        case 2: return tile_of_rows<2>(rows);
        case 3: return tile_of_rows<3>(rows);
        default: return tile_of_rows<4>(rows);
    }
}

// Calls body(first, rows) for all rows, in even groups of at most `most`.
template <class Body>
inline void each_tile(int64_t rows, int64_t most, Body body) {
    const int64_t groups = (rows + most - 1) / most, small = rows / groups, larger = rows % groups;
    for (int64_t group = 0, first = 0; group < groups; ++group) {
        const int64_t size = small + (group < larger);
        body(first, size);
        first += size;
    }
}

// How many panels at once keep enough sums under way where there are one or two rows, which leave registers free.
constexpr int panels_of(int rows, int vectors) {
    const int most = Lanes::few / rows / (vectors == 3 ? 4 : vectors);
    return most < 1 ? 1 : most;
}

template <int R, int V>
int64_t multiply_few(const float* const* x, const Weights& w, int64_t panel, int64_t to, float* const* y) {
    constexpr int P = panels_of(R, V);
    const int64_t step = V * kLanes, next = w.inputs * step;
    for (; panel + P <= to; panel += P) {
        const Columns<P * V> columns(w.gates, w.outputs / w.gates, panel);
        tile<R, V, P>(x, {0, w.inputs, w.packed + panel * next, step, next, columns.at, columns.masks}, y);
    }
    return panel;
}

template <int R>
int64_t multiply_few(const float* const* x, const Weights& w, int64_t panel, int64_t to, float* const* y) {
    if (w.gates == 1) {
        const int64_t full = w.outputs / (Lanes::vectors * kLanes);
        return multiply_few<R, Lanes::vectors>(x, w, panel, full < to ? full : to, y);
    }
    if (w.gates == 2) return multiply_few<R, 2>(x, w, panel, to, y);
    if (w.gates == 3) return multiply_few<R, 3>(x, w, panel, to, y);
    return multiply_few<R, 4>(x, w, panel, to, y);
}

// Sums are stored and loaded again between two blocks of the same outputs, which changes no bit.
void multiply_add(int64_t rows, const float* const* x, const Weights& w, int64_t from, int64_t to, float* const* y) {
    if (rows == 0) return;
    if (rows == 1) from = multiply_few<1>(x, w, from, to, y);
    if (rows == 2) from = multiply_few<2>(x, w, from, to, y);
    const int most = vectors_of(w.gates);
    const int64_t units = w.outputs / w.gates, step = most * kLanes, next = w.inputs * step;
    const int64_t depth = rows > rows_of(most) ? kDepth : w.inputs;
    for (int64_t panel = from; panel < to; ++panel) {
        const Columns<kMostVectors> columns(w.gates, units, panel);
        const int64_t left = w.gates == 1 ? (units - panel * step + kLanes - 1) / kLanes : most;
        const int vectors = left < most ? static_cast<int>(left) : most;
        for (int64_t i = 0; i < w.inputs; i += depth) {
            const int64_t end = w.inputs - i < depth ? w.inputs : i + depth;
            const Block block{i, end, w.packed + panel * next + i * step, step, next, columns.at, columns.masks};
            each_tile(rows, rows_of(vectors),
                      [&](int64_t r, int64_t size) { tile_of(size, vectors)(x + r, block, y + r); });
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
