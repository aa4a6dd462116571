// Sums of outer products, for gradients of weights; part of kernels-inl.h.

namespace {

using segue::OuterBlock;

// Columns of d that are packed side by side.
constexpr int kOuterColumns = Lanes::sums / Lanes::vectors;

// How many such strips keep the sums of V vectors each in registers.
constexpr int strips_of(int vectors) {
    return vectors * 2 <= Lanes::vectors ? 2 : 1;
}

// Columns of d: from one row to the next, and from one strip to the next.
struct Strips {
    const float* d;
    int64_t step, next;
};

// dw of P strips of d, the last with R columns, and V vectors of x, over all rows of the block.
template <int P, int R, int V>
void outer_tile(const OuterBlock& block, const Strips& strips, const float* x, float* dw, Lanes::Mask last) {
    const int64_t step = strips.step, next = strips.next;
    const float* d = strips.d;
    constexpr int D = kOuterColumns, all = (P - 1) * D + R;
    F sum[all][V];
    SEGUE_UNROLL for (int r = 0; r < all; ++r) {
        SEGUE_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = Lanes::splat(0.0f);
    }
    for (int64_t n = 0; n < block.rows; ++n, d += step, x += V * kLanes) {
        F vector[V];
        SEGUE_UNROLL for (int v = 0; v < V; ++v) vector[v] = Lanes::load(x + v * kLanes);
        SEGUE_UNROLL for (int r = 0; r < all; ++r) {
            const F value = Lanes::splat(d[r / D * next + r % D]);
            SEGUE_UNROLL for (int v = 0; v < V; ++v) sum[r][v] = Lanes::fma(value, vector[v], sum[r][v]);
        }
    }
    SEGUE_UNROLL for (int r = 0; r < all; ++r) {
        SEGUE_UNROLL for (int v = 0; v < V; ++v) {
            float* to = dw + r * block.dw_row + v * kLanes;
            const Lanes::Mask mask = v + 1 < V ? Lanes::first(kLanes) : last;
            Lanes::store(to, block.is_first ? sum[r][v] : Lanes::load(to, mask) + sum[r][v], mask);
        }
    }
}

template <int V>
void outer_columns(const OuterBlock& block, Strips d, int64_t columns, const float* x, float* dw, Lanes::Mask last) {
    static_assert(kOuterColumns <= 6, "one case for each number of columns");
    constexpr int P = strips_of(V), D = kOuterColumns;
    for (; columns >= P * D; columns -= P * D, d.d += P * d.next, dw += P * D * block.dw_row)
        outer_tile<P, D, V>(block, d, x, dw, last);
    for (; columns >= D; columns -= D, d.d += d.next, dw += D * block.dw_row)
        outer_tile<1, D, V>(block, d, x, dw, last);
    switch (columns) {
        case 5: return outer_tile<1, 5, V>(block, d, x, dw, last);
        case 4: return outer_tile<1, 4, V>(block, d, x, dw, last);
        case 3: return outer_tile<1, 3, V>(block, d, x, dw, last);
        case 2: return outer_tile<1, 2, V>(block, d, x, dw, last);
        case 1: return outer_tile<1, 1, V>(block, d, x, dw, last);
    }
}

void add_outer(const OuterBlock& block, int64_t from, int64_t to) {
    static_assert(Lanes::vectors <= 4, "one case for each number of vectors");
    constexpr int64_t D = kOuterColumns, wide = Lanes::vectors * kLanes;
    Strips strips{block.d + from, block.d_row, D};
    if (block.strips) strips = {block.strips, D, D * block.rows};
    for (int64_t n = 0; block.strips && n < block.rows; ++n) {
        const float* d = block.d + n * block.d_row;
        float* strip = block.strips + n * D;
        for (int64_t g = from; g < to; g += D, strip += block.rows * D) {
            const int64_t columns = to - g < D ? to - g : D;
            for (int64_t at = 0; at < columns; at += kLanes) {
                const Lanes::Mask mask = Lanes::first(columns - at < kLanes ? columns - at : kLanes);
                Lanes::store(strip + at, Lanes::load(d + g + at, mask), mask);
            }
        }
    }
    for (int64_t j = 0; j < block.inputs; j += wide) {
        const int64_t left = block.inputs - j, vectors = left < wide ? (left + kLanes - 1) / kLanes : Lanes::vectors;
        const Lanes::Mask last = Lanes::first(left < vectors * kLanes ? left - (vectors - 1) * kLanes : kLanes);
        const float* x = block.x + j * block.rows;
        float* dw = block.dw + from * block.dw_row + j;
        switch (vectors) {
            case 1: outer_columns<1>(block, strips, to - from, x, dw, last); break;
            case 2: outer_columns<2>(block, strips, to - from, x, dw, last); break;
            case 3: outer_columns<3>(block, strips, to - from, x, dw, last); break;
            default: outer_columns<4>(block, strips, to - from, x, dw, last);
        }
    }
}

}  // namespace
