// Products in half precision: the factors are rounded to bfloat16, the sums are float32. Part of kernels-inl.h.
//
// Where a processor multiplies tiles of bfloat16 (AMX), a product of 16 rows with 32 inputs of 16 outputs is one
// instruction. Each row of a tile is summed by itself, so a row has the same bits alone and among others; but the 32
// inputs are summed in an order of the instruction's own, and what is below 2^-126 counts as 0. Elsewhere the rounded
// numbers are multiplied as any other.

namespace {

// Rows of x [rows][inputs], rounded, in a scratch as large as half_scratch() in product.cpp says.
#ifdef __AMX_BF16__

constexpr bool kHasTiles = true;
constexpr int64_t kTileRows = 16, kTileDepth = 32, kTileFloats = 256;

class HalfRows {
   public:
    HalfRows(int64_t rows, const float* const* x, int64_t inputs, float* scratch)
        : at_(reinterpret_cast<std::uint16_t*>(scratch)), width_((inputs + kTileDepth - 1) / kTileDepth * kTileDepth) {
        for (int64_t r = 0; r < rows; ++r) {
            std::uint16_t* to = at_ + r * width_;
            for (int64_t i = 0; i < width_; i += kLanes) {
                const int64_t left = inputs - i < 0 ? 0 : inputs - i;
                const F value = Lanes::load(x[r] + i, Lanes::first(left < kLanes ? left : kLanes));
                _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(value));
            }
        }
    }
    // What follows in the scratch.
    float* end(int64_t rows) const {
        const int64_t whole = (rows + kTileRows - 1) / kTileRows * kTileRows;
        return reinterpret_cast<float*>(at_ + whole * width_);
    }
    const std::uint16_t* row(int64_t r) const { return at_ + r * width_; }
    int64_t bytes() const { return 2 * width_; }
    int64_t depth() const { return width_ / kTileDepth; }

   private:
    std::uint16_t* at_;
    int64_t width_;
};

// Eight tiles of 16 rows of 64 bytes, while this lives.
class TileRegisters {
   public:
    TileRegisters() {
        struct {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } layout;
        // GCC's own intrinsic does not say that all of the layout is read.
        __asm__ volatile("ldtilecfg %0" : : "m"(layout));
    }
    ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
};

// Sums of R times 16 rows and V times 16 outputs: tiles 0 to 3; inputs of the rows: 4 and 5; weights: 6 and 7.
template <int R, int V>
inline void tile_product(const HalfRows& x, int64_t row, const float* w, int64_t step, float* y, int64_t y_bytes,
                         const int64_t* at) {
    float* const low = y + 16 * (y_bytes / 4);
    _tile_loadd(0, y + at[0], y_bytes);
    if constexpr (V > 1) _tile_loadd(1, y + at[1], y_bytes);
    if constexpr (R > 1) _tile_loadd(2, low + at[0], y_bytes);
    if constexpr (R > 1 && V > 1) _tile_loadd(3, low + at[1], y_bytes);
    const std::uint16_t *a = x.row(row), *b = R > 1 ? x.row(row + kTileRows) : a;
    for (int64_t block = 0; block < x.depth(); ++block, a += kTileDepth, b += kTileDepth, w += step) {
        _tile_loadd(6, w, 64);
        _tile_loadd(4, a, x.bytes());
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (V > 1) {
            _tile_loadd(7, w + kTileFloats, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (R > 1) {
            _tile_loadd(5, b, x.bytes());
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (R > 1 && V > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, y + at[0], y_bytes);
    if constexpr (V > 1) _tile_stored(1, y + at[1], y_bytes);
    if constexpr (R > 1) _tile_stored(2, low + at[0], y_bytes);
    if constexpr (R > 1 && V > 1) _tile_stored(3, low + at[1], y_bytes);
}

// y += W x for the first `vectors` vectors of a panel; row r of y is at y + r * y_row, vector v of it at + at[v].
// Rows up to the next multiple of 16 are written as well.
inline void multiply_tiles(const HalfRows& x, int64_t rows, const Weights& w, int64_t panel, int vectors, float* y,
                           int64_t y_row, const int64_t* at) {
    const int in_panel = vectors_of(w.gates);
    const int64_t step = in_panel * kTileFloats;
    const float* const first = w.packed + panel * x.depth() * step;
    for (int v = 0; v < vectors; v += 2) {
        const bool both = v + 1 < vectors;
        for (int64_t r = 0; r < rows; r += 2 * kTileRows) {
            const float* from = first + v * kTileFloats;
            float* to = y + r * y_row;
            if (rows - r > kTileRows)
                (both ? tile_product<2, 2> : tile_product<2, 1>)(x, r, from, step, to, 4 * y_row, at + v);
            else
                (both ? tile_product<1, 2> : tile_product<1, 1>)(x, r, from, step, to, 4 * y_row, at + v);
        }
    }
}

void multiply_add_half(int64_t rows, const float* const* x, const Weights& w, int64_t from, int64_t to,
                       float* const* y, float* scratch) {
    if (rows == 0 || from == to) return;
    const HalfRows half(rows, x, w.inputs, scratch);
    const TileRegisters registers;
    const int in_panel = vectors_of(w.gates);
    const int64_t units = w.outputs / w.gates, wide = in_panel * kLanes;
    alignas(64) float sums[segue::blocked::kRows * kMostVectors * kLanes];
    int64_t at[kMostVectors];
    for (int v = 0; v < in_panel; ++v) at[v] = v * kLanes;
    for (int64_t panel = from; panel < to; ++panel) {
        const Columns<kMostVectors> columns(w.gates, units, panel);
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < in_panel; ++v)
                Lanes::store(sums + r * wide + at[v], Lanes::load(y[r] + columns.at[v], columns.masks[v]));
        multiply_tiles(half, rows, w, panel, in_panel, sums, wide, at);
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < in_panel; ++v)
                Lanes::store(y[r] + columns.at[v], Lanes::load(sums + r * wide + at[v]), columns.masks[v]);
    }
}

// Columns of two rows, rounded, as pairs: of column j, (a[j], b[j]).
inline __m512i pairs(const float* a, const float* b, Lanes::Mask mask) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(Lanes::load(a, mask)));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(Lanes::load(b, mask)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Rows [n, n + 32) of 16 columns as the 16 rows of a tile: a pair of rows each. Rows past the last are 0.
inline void load_pairs(const float* x, int64_t row, int64_t n, int64_t rows, Lanes::Mask mask, __m512i* tile) {
    for (int64_t pair = 0; pair < kTileRows; ++pair, n += 2) {
        const float *a = x + n * row, *b = a + row;
        tile[pair] = n + 1 < rows ? pairs(a, b, mask) : n < rows ? pairs(a, a, mask) : _mm512_setzero_si512();
        if (n + 1 == rows) tile[pair] = _mm512_and_si512(tile[pair], _mm512_set1_epi32(0xffff));
    }
}

inline void transpose(__m512i* r) {
    __m512i t[16];
    SEGUE_UNROLL for (int k = 0; k < 16; k += 2) {
        t[k] = _mm512_unpacklo_epi32(r[k], r[k + 1]), t[k + 1] = _mm512_unpackhi_epi32(r[k], r[k + 1]);
    }
    SEGUE_UNROLL for (int k = 0; k < 16; k += 4) {
        SEGUE_UNROLL for (int j = 0; j < 2; ++j) {
            r[k + 2 * j] = _mm512_unpacklo_epi64(t[k + j], t[k + j + 2]);
            r[k + 2 * j + 1] = _mm512_unpackhi_epi64(t[k + j], t[k + j + 2]);
        }
    }
    SEGUE_UNROLL for (int k = 0; k < 4; ++k) {
        t[k] = _mm512_shuffle_i32x4(r[k], r[k + 4], 0x88), t[k + 4] = _mm512_shuffle_i32x4(r[k], r[k + 4], 0xdd);
        t[k + 8] = _mm512_shuffle_i32x4(r[k + 8], r[k + 12], 0x88);
        t[k + 12] = _mm512_shuffle_i32x4(r[k + 8], r[k + 12], 0xdd);
    }
    SEGUE_UNROLL for (int k = 0; k < 4; ++k) {
        r[k] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0x88), r[k + 8] = _mm512_shuffle_i32x4(t[k], t[k + 8], 0xdd);
        r[k + 4] = _mm512_shuffle_i32x4(t[k + 4], t[k + 12], 0x88);
        r[k + 12] = _mm512_shuffle_i32x4(t[k + 4], t[k + 12], 0xdd);
    }
}

// Columns [from, to) as tiles [columns / 16][rows / 32], each of pairs of rows, or, transposed, of columns.
inline void pack_pairs(const float* x, int64_t row, int64_t rows, int64_t from, int64_t to, bool is_transposed,
                       float* packed) {
    const int64_t strip = (rows + kTileDepth - 1) / kTileDepth * kTileFloats;
    for (int64_t n = 0; n < rows; n += kTileDepth, packed += kTileFloats) {  // as the rows lie in memory
        float* at = packed;
        for (int64_t j = from; j < to; j += kLanes, at += strip) {
            __m512i tile[kTileRows];
            load_pairs(x + j, row, n, rows, Lanes::first(to - j < kLanes ? to - j : kLanes), tile);
            if (is_transposed) transpose(tile);
            SEGUE_UNROLL for (int k = 0; k < kTileRows; ++k) _mm512_store_si512(at + k * kLanes, tile[k]);
        }
    }
}

// Sums of R times 16 columns of d and V times 16 of x, as in tile_product.
template <int R, int V>
inline void outer_product(const float* d, const float* x, int64_t depth, float* dw, int64_t bytes, bool is_first) {
    float* const low = dw + 16 * (bytes / 4);
    if (is_first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, dw, bytes);
        if constexpr (V > 1) _tile_loadd(1, dw + 16, bytes);
        if constexpr (R > 1) _tile_loadd(2, low, bytes);
        if constexpr (R > 1 && V > 1) _tile_loadd(3, low + 16, bytes);
    }
    const int64_t next = depth * kTileFloats;
    for (int64_t block = 0; block < depth; ++block, d += kTileFloats, x += kTileFloats) {
        _tile_loadd(6, x, 64);
        _tile_loadd(4, d, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (V > 1) {
            _tile_loadd(7, x + next, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (R > 1) {
            _tile_loadd(5, d + next, 64);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (R > 1 && V > 1) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, dw, bytes);
    if constexpr (V > 1) _tile_stored(1, dw + 16, bytes);
    if constexpr (R > 1) _tile_stored(2, low, bytes);
    if constexpr (R > 1 && V > 1) _tile_stored(3, low + 16, bytes);
}

void add_outer_half(const segue::HalfOuterBlock& block, int64_t from, int64_t to) {
    const int64_t depth = (block.rows + kTileDepth - 1) / kTileDepth, strip = depth * kTileFloats;
    const int64_t columns = (to - from + kTileRows - 1) / kTileRows, inputs = (block.inputs + kLanes - 1) / kLanes;
    float *d = block.scratch, *x = d + columns * strip;
    pack_pairs(block.d, block.d_row, block.rows, from, to, true, d);
    pack_pairs(block.x, block.x_row, block.rows, 0, block.inputs, false, x);
    const TileRegisters registers;
    const int64_t bytes = 4 * block.dw_row;
    for (int64_t g = 0; g < columns; g += 2)
        for (int64_t j = 0; j < inputs; j += 2) {
            const float *a = d + g * strip, *b = x + j * strip;
            float* dw = block.dw + g * kTileRows * block.dw_row + j * kLanes;
            const bool wide = j + 1 < inputs;
            if (g + 1 < columns)
                (wide ? outer_product<2, 2> : outer_product<2, 1>)(a, b, depth, dw, bytes, block.is_first);
            else
                (wide ? outer_product<1, 2> : outer_product<1, 1>)(a, b, depth, dw, bytes, block.is_first);
        }
}

#else

constexpr bool kHasTiles = false;
constexpr void (*add_outer_half)(const segue::HalfOuterBlock&, int64_t, int64_t) = nullptr;

void multiply_add_half(int64_t rows, const float* const* x, const Weights& w, int64_t from, int64_t to,
                       float* const* y, float* scratch) {
    const float* rounded[segue::blocked::kRows];
    for (int64_t r = 0; r < rows; ++r) {
        rounded[r] = scratch + r * w.inputs;
        round(w.inputs, x[r], scratch + r * w.inputs);
    }
    multiply_add(rows, rounded, w, from, to, y);
}

#endif

}  // namespace
