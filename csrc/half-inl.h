// Products in half precision: the factors are rounded to bfloat16, the sums are float32. Part of kernels-inl.h.
//
// Where a processor multiplies tiles of bfloat16 (AMX), a product of 16 rows with 32 inputs of 16 outputs is one
// instruction. Each row of a tile is summed by itself, so a row has the same bits alone and among others; but the
// 32 inputs are summed in an order of the instruction's own, and what is below 2^-126 counts as 0. Elsewhere the rounded
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
                const int64_t left = inputs - i;
                const F value = Lanes::load(x[r] + (left > 0 ? i : 0), Lanes::first(left < 0 ? 0 : left < kLanes ? left : kLanes));
                _mm256_store_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(value));
            }
        }
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

#else

constexpr bool kHasTiles = false;

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
