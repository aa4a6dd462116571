// The only file that knows Python. Every check is made here, so the kernels need none; the GIL is released around them.
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "bind_program.h"
#include "checks.h"
#include "reserve.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace segue::checks;

namespace {

// Memory as float32 [rows, columns] with any strides, which pack() reads as it is; of several blocks, one below the
// other.
void pack(const Input& w, const Output& packed, int threads, int64_t gates, bool half, int64_t blocks) {
    const Call call{"pack"};
    if (w.ndim() != 2 || w.dtype() != nb::dtype<float>())
        refuse("pack: w", "float32 with 2 axes", name_of(w.dtype()) + " " + shape_of(w), "convert it");
    call.divides(blocks, "blocks", {"rows", static_cast<int64_t>(w.shape(0))});
    const int64_t outputs = static_cast<int64_t>(w.shape(0)) / blocks, inputs = w.shape(1);
    if (gates < 1 || gates > 4 || outputs % gates)
        refuse("pack: gates", "1 to 4, a divisor of the outputs " + std::to_string(outputs), std::to_string(gates),
               "say how many gates the outputs are of");
    const int64_t size = segue::packed_size(outputs, inputs, gates, half);
    float* to = call.get(packed, "packed", {{"packed", blocks * size}});
    call.at_least_one(threads);
    const auto* from = static_cast<const float*>(w.data());
    nb::gil_scoped_release release;
    for (int64_t block = 0; block < blocks; ++block, from += outputs * w.stride(0), to += size)
        segue::pack(outputs, inputs, from, w.stride(0), w.stride(1), to, threads, gates, half);
}

// An array [size] whose memory is used again; see reserve.h.
nb::ndarray<nb::numpy, float, nb::ndim<1>> reserved(std::size_t size) {
    struct Owned {
        void* memory;
        std::size_t bytes;
    };
    const std::size_t bytes = size * sizeof(float);
    void* const memory = segue::take_memory(bytes);
    if (!memory) throw std::bad_alloc();
    nb::capsule owner(new Owned{memory, bytes}, [](void* owned) noexcept {
        const auto* const mine = static_cast<Owned*>(owned);
        segue::give_memory(mine->memory, mine->bytes);
        delete mine;
    });
    return {memory, {size}, owner};
}

// The rows of x and of y may be apart.
void affine(const Input& x, const Input& w, const MaybeInput& b, const Output& y, int threads, bool half,
            int64_t blocks, int64_t parts) {
    const Call call{"affine"};
    const Extent N = call.rows_of(x, "x"), all{"I", (int64_t)x.shape(1)}, O{"O", call.columns_of(y, "y")};
    call.divides(blocks, "blocks", O);
    call.divides(parts, "parts", all);
    const Extent of_block{"O / blocks", O.size / blocks}, I{"I / parts", all.size / parts};
    const segue::Affine work{N.size,
                             call.rows(x, "x", {N, all}),
                             x.stride(0),
                             call.weights(w, "w", of_block, I, 1, half, blocks),
                             call.get(b, "b", {O}),
                             call.rows(y, "y", {N, O}),
                             y.stride(0),
                             call.at_least_one(threads),
                             blocks,
                             parts};
    nb::gil_scoped_release release;
    segue::affine(work);
}

using Indices = nb::ndarray<nb::numpy, int64_t, nb::ndim<1>>;

Indices indices(std::vector<int64_t> values) {
    auto* kept = new std::vector<int64_t>(std::move(values));
    const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<int64_t>*>(p); });
    return Indices(kept->data(), {kept->size()}, owner);
}

// Cuts sequences into pieces: a flag at a step starts a new one there. Returns the lengths of the pieces, and of each
// sequence the first and the last one.
nb::tuple cut(const Input& lengths, const Input& flags) {
    const Call call{"cut"};
    call.layout<bool>(flags, "flags", 1);
    const int64_t steps = flags.shape(0);
    const auto* at = static_cast<const bool*>(flags.data());
    std::vector<int64_t> pieces, first, last;
    int64_t step = 0;
    for (const int64_t length : call.lengths(lengths, steps)) {
        first.push_back(pieces.size());
        int64_t begin = step;
        step += length;
        const bool* const end = at + step;
        for (const bool* from = at + begin; from < end; ++from) {
            from = static_cast<const bool*>(std::memchr(from, 1, end - from));
            if (!from) break;
            pieces.push_back(from - at - begin);
            begin = from - at;
        }
        pieces.push_back(step - begin);
        last.push_back(pieces.size() - 1);
    }
    return nb::make_tuple(indices(std::move(pieces)), indices(std::move(first)), indices(std::move(last)));
}

// What every scan is given; see Recurrence in kernels.h. The Python side (ops/native.py) has the same fields.
struct ScanArguments {
    Input x, w_x, b, lengths, w_h, h0;
    MaybeInput mask, gain_x, gain_h, keep_h;
    double rate_h;
    MaybeOutput xhat_x, rstd_x, xhat_h, rstd_h, gates;
    Output y, h_last;
    bool reverse;
    int threads;
    bool half;
};

// Widths of a law: columns of the gates kept, of the input part, of the first recurrent product; and how many gates the
// latter two have.
struct Widths {
    Extent hidden, width, kept, gates, product;
    int64_t groups, count, product_count;  // of norms; of gates
};

struct Scan {
    std::vector<int64_t> lengths;  // owns what `over` points to
    Extent N, B;
    segue::Recurrence over;

    Scan(const Call& call, const ScanArguments& a, const Widths& law) : N{"N", 0}, B{"B", 0} {
        N.size = call.extent(a.x, "x", 0);
        const Extent I{"I", call.extent(a.x, "x", 1)}, groups{"groups", law.groups};
        lengths = call.lengths(a.lengths, N.size);
        B.size = static_cast<int64_t>(lengths.size());
        if (bool(a.gain_x) != bool(a.gain_h))
            refuse(call.name, "gain_x and gain_h", "one of them", "pass both or neither");
        over.over = {B.size, N.size, lengths.data(), a.reverse, call.at_least_one(a.threads)};
        over.hidden = law.hidden.size;
        over.width = law.width.size;
        over.x = call.get(a.x, "x", {N, I});
        over.w_x = call.weights(a.w_x, "w_x", law.gates, I, law.count, a.half);
        over.b = call.get(a.b, "b", {law.gates});
        over.w_h = call.weights(a.w_h, "w_h", law.product, law.width, law.product_count, a.half);
        over.h0 = call.get(a.h0, "h0", {B, law.width});
        over.mask = call.get(a.mask, "mask", {B, law.width});
        over.norm_x = {call.get(a.gain_x, "gain_x", {law.gates}), call.get(a.xhat_x, "xhat_x", {N, law.gates}),
                       call.get(a.rstd_x, "rstd_x", {N, groups})};
        over.norm_h = {call.get(a.gain_h, "gain_h", {law.gates}), call.get(a.xhat_h, "xhat_h", {N, law.gates}),
                       call.get(a.rstd_h, "rstd_h", {N, groups})};
        over.zone_h = {call.get<std::uint8_t>(a.keep_h, "keep_h", {N, law.width}), static_cast<float>(a.rate_h)};
        over.gates = call.get(a.gates, "gates", {N, law.kept});
        over.y = call.get(a.y, "y", {N, law.width});
        over.h_last = call.get(a.h_last, "h_last", {B, law.width});
    }
};

// See RecurrenceGrad.
struct BackArguments {
    Input lengths, w_h_t, h0, y;
    MaybeInput mask, gain_x, xhat_x, rstd_x, gain_h, xhat_h, rstd_h, keep_h;
    double rate_h;
    Input gates;
    MaybeInput dy, dh_last;
    Output d;
    MaybeOutput du_x, du_h;
    Output d_sum;
    MaybeOutput dgain_x, dgain_h;
    Output dh0;
    bool reverse;
    int threads;
    bool half;
};

struct Back {
    std::vector<int64_t> lengths;
    Extent N, B;
    segue::RecurrenceGrad over;

    Back(const Call& call, const BackArguments& a, const Widths& law)
        : N{"N", call.extent(a.y, "y", 0)}, B{"B", 0} {
        const Extent groups{"groups", law.groups};
        lengths = call.lengths(a.lengths, N.size);
        B.size = static_cast<int64_t>(lengths.size());
        over.over = {B.size, N.size, lengths.data(), a.reverse, call.at_least_one(a.threads)};
        over.hidden = law.hidden.size;
        over.width = law.width.size;
        over.w_h_t = call.weights(a.w_h_t, "w_h_t", law.width, law.product, 1, a.half);
        over.h0 = call.get(a.h0, "h0", {B, law.width});
        over.y = call.get(a.y, "y", {N, law.width});
        over.mask = call.get(a.mask, "mask", {B, law.width});
        if (a.gain_h && !(a.gain_x && a.xhat_x && a.rstd_x && a.du_x && a.dgain_x && a.xhat_h && a.rstd_h && a.du_h &&
                          a.dgain_h))
            refuse(call.name, "gain, xhat, rstd, du and dgain of both norms", "fewer", "pass them");
        // The scan wrote them, the way back only reads them.
        over.norm_x = {call.get(a.gain_x, "gain_x", {law.gates}),
                       const_cast<float*>(call.get(a.xhat_x, "xhat_x", {N, law.gates})),
                       const_cast<float*>(call.get(a.rstd_x, "rstd_x", {N, groups}))};
        over.norm_h = {call.get(a.gain_h, "gain_h", {law.gates}),
                       const_cast<float*>(call.get(a.xhat_h, "xhat_h", {N, law.gates})),
                       const_cast<float*>(call.get(a.rstd_h, "rstd_h", {N, groups}))};
        over.zone_h = {call.get<std::uint8_t>(a.keep_h, "keep_h", {N, law.width}), static_cast<float>(a.rate_h)};
        over.gates = call.get(a.gates, "gates", {N, law.kept});
        over.dy = call.get(a.dy, "dy", {N, law.width});
        over.dh_last = call.get(a.dh_last, "dh_last", {B, law.width});
        over.d = call.get(a.d, "d", {N, law.kept});
        over.du_x = call.get(a.du_x, "du_x", {N, law.gates});
        over.du_h = call.get(a.du_h, "du_h", {N, law.gates});
        over.d_sum = call.get(a.d_sum, "d_sum", {B, law.kept});
        over.dgain_x = call.get(a.dgain_x, "dgain_x", {B, law.gates});
        over.dgain_h = call.get(a.dgain_h, "dgain_h", {B, law.gates});
        over.dh0 = call.get(a.dh0, "dh0", {B, law.width});
    }
};

Widths elman_widths(const Call& call, const Input& h0) {
    const Extent H{"H", call.extent(h0, "h0", 1)};
    return {H, H, H, H, H, 1, 1, 1};
}

Widths lstm_widths(const Call& call, const Input& h0, const Input& c0) {
    const Extent H{"H", call.extent(c0, "c0", 1)}, R{"R", call.extent(h0, "h0", 1)}, G{"4H", 4 * H.size};
    return {H, R, G, G, G, 1, 4, 4};
}

// The first product is all of W_hh, or r and z alone.
Widths gru_widths(const Call& call, const Input& h0, bool is_all) {
    const Extent H{"H", call.extent(h0, "h0", 1)}, all{"3H", 3 * H.size}, two{"2H", 2 * H.size};
    return {H, H, {"4H", 4 * H.size}, all, is_all ? all : two, 2, 3, is_all ? 3 : 2};
}

// The rows of d and of x may be apart.
void outer(const Input& d, const Input& x, const Output& dw, int threads, bool half) {
    const Call call{"outer"};
    const Extent N = call.rows_of(d, "d"), G{"G", (int64_t)d.shape(1)};
    call.rows_of(x, "x");
    const Extent J{"J", (int64_t)x.shape(1)};
    const segue::Outer work{N.size,
                            G.size,
                            J.size,
                            call.rows(d, "d", {N, G}),
                            d.stride(0),
                            call.rows(x, "x", {N, J}),
                            x.stride(0),
                            call.get(dw, "dw", {G, J}),
                            call.at_least_one(threads),
                            half};
    nb::gil_scoped_release release;
    segue::outer(work);
}

void column_sums(const Input& d, const Output& sums, int threads) {
    const Call call{"column_sums"};
    const Extent N{"N", call.extent(d, "d", 0)}, G{"G", call.extent(d, "d", 1)};
    const segue::ColumnSums work{N.size, G.size, call.get(d, "d", {N, G}), call.get(sums, "sums", {G}),
                                 call.at_least_one(threads)};
    nb::gil_scoped_release release;
    segue::column_sums(work);
}

void before(const Input& y, const Input& first, const MaybeInput& mask, const Input& lengths, bool reverse,
            const Output& to, int threads) {
    const Call call{"before"};
    const Extent N{"N", call.extent(y, "y", 0)}, R{"R", call.extent(y, "y", 1)};
    const std::vector<int64_t> counts = call.lengths(lengths, N.size);
    const Extent B{"B", static_cast<int64_t>(counts.size())};
    const segue::Before work{{B.size, N.size, counts.data(), reverse, call.at_least_one(threads)},
                             R.size,
                             call.get(y, "y", {N, R}),
                             call.get(first, "first", {B, R}),
                             call.get(mask, "mask", {B, R}),
                             call.get(to, "before", {N, R})};
    nb::gil_scoped_release release;
    segue::before(work);
}

void scan_linear(const Input& a, const Input& b, const Input& lengths, const Input& h0, const Output& y,
                 const Output& h_last, bool reverse, int threads) {
    const Call call{"scan_linear"};
    const Extent N{"N", call.extent(a, "a", 0)}, H{"H", call.extent(a, "a", 1)};
    const std::vector<int64_t> counts = call.lengths(lengths, N.size);
    const Extent B{"B", static_cast<int64_t>(counts.size())};
    const segue::Linear work{{B.size, N.size, counts.data(), reverse, call.at_least_one(threads)},
                             H.size,
                             call.get(a, "a", {N, H}),
                             call.get(b, "b", {N, H}),
                             call.get(h0, "h0", {B, H}),
                             call.get(y, "y", {N, H}),
                             call.get(h_last, "h_last", {B, H})};
    nb::gil_scoped_release release;
    segue::scan_linear(work);
}

segue::Diagonal diagonal_law(const Call& call, int code) {
    if (code < 0 || code > 3)
        refuse(call.name + ": law", "0 (min_gru), 1 (min_lstm), 2 (rg_lru) or 3 (s5)", std::to_string(code),
               "pass one of these");
    return static_cast<segue::Diagonal>(code);
}

// The widths of a diagonal law of H units: G, of its states and of its rates.
struct DiagonalWidths {
    Extent gates, states, rates;

    DiagonalWidths(segue::Diagonal law, int64_t hidden)
        : gates{"G", segue::parts_of(law).gates * hidden},
          states{"R", segue::parts_of(law).states * hidden},
          rates{"W", segue::parts_of(law).rates * hidden} {}
};

void check_rates(const Call& call, bool has_rates, const DiagonalWidths& law) {
    if (has_rates != (law.rates.size > 0))
        refuse(call.name + ": rates", law.rates.size ? "rates" : "none", has_rates ? "rates" : "none",
               "pass those that the law has");
}

// Without weights, x are the sums of the gates themselves.
void scan_diagonal(int code, const Input& x, const MaybeInput& w_x, const MaybeInput& b, const MaybeInput& rates,
                   const Input& lengths, const Input& h0, const MaybeOutput& gates, const Output& y,
                   const Output& h_last, int threads) {
    const Call call{"scan_diagonal"};
    const segue::Diagonal law = diagonal_law(call, code);
    const Extent N{"N", call.extent(x, "x", 0)}, I{"I", call.extent(x, "x", 1)};
    if (bool(w_x) != bool(b)) refuse(call.name, "w_x and b", "one of them", "pass both or neither");
    const int64_t hidden = call.extent(h0, "h0", 1) / segue::parts_of(law).states;
    const DiagonalWidths width(law, hidden);
    check_rates(call, bool(rates), width);
    const std::vector<int64_t> counts = call.lengths(lengths, N.size);
    const Extent B{"B", static_cast<int64_t>(counts.size())};
    const int64_t gates_of = segue::parts_of(law).gates;
    const segue::DiagonalScan work{law,
                                   {B.size, N.size, counts.data(), false, call.at_least_one(threads)},
                                   hidden,
                                   w_x ? call.get(x, "x", {N, I}) : nullptr,
                                   w_x ? call.weights(*w_x, "w_x", width.gates, I, gates_of, false)
                                       : segue::Weights{0, width.gates.size, nullptr, gates_of},
                                   call.get(b, "b", {width.gates}),
                                   w_x ? nullptr : call.get(x, "x", {N, width.gates}),
                                   call.get(rates, "rates", {width.rates}),
                                   call.get(h0, "h0", {B, width.states}),
                                   call.get(gates, "gates", {N, width.gates}),
                                   call.get(y, "y", {N, width.states}),
                                   call.get(h_last, "h_last", {B, width.states})};
    nb::gil_scoped_release release;
    segue::scan_diagonal(work);
}

void scan_diagonal_back(int code, const MaybeInput& rates, const Input& lengths, const Input& h0, const Input& y,
                        const Input& gates, const MaybeInput& dy, const MaybeInput& dh_last, const Output& d,
                        const Output& d_sum, const MaybeOutput& drates, const Output& dh0, int threads) {
    const Call call{"scan_diagonal_back"};
    const segue::Diagonal law = diagonal_law(call, code);
    const Extent N{"N", call.extent(y, "y", 0)};
    const int64_t hidden = call.extent(h0, "h0", 1) / segue::parts_of(law).states;
    const DiagonalWidths width(law, hidden);
    check_rates(call, bool(rates), width);
    check_rates(call, bool(drates), width);
    const std::vector<int64_t> counts = call.lengths(lengths, N.size);
    const Extent B{"B", static_cast<int64_t>(counts.size())};
    const segue::DiagonalGrad work{law,
                                   {B.size, N.size, counts.data(), false, call.at_least_one(threads)},
                                   hidden,
                                   call.get(rates, "rates", {width.rates}),
                                   call.get(h0, "h0", {B, width.states}),
                                   call.get(y, "y", {N, width.states}),
                                   call.get(gates, "gates", {N, width.gates}),
                                   call.get(dy, "dy", {N, width.states}),
                                   call.get(dh_last, "dh_last", {B, width.states}),
                                   call.get(d, "d", {N, width.gates}),
                                   call.get(d_sum, "d_sum", {B, width.gates}),
                                   call.get(drates, "drates", {B, width.rates}),
                                   call.get(dh0, "dh0", {B, width.states})};
    nb::gil_scoped_release release;
    segue::scan_diagonal_back(work);
}

void draw(std::uint64_t key, double rate, const Output& keep, int threads) {
    const Call call{"draw"};
    call.layout<std::uint8_t>(keep, "keep", 1);
    const double scaled = std::nearbyint(rate * 4294967296.0), most = 4294967295.0;
    const auto threshold = static_cast<std::uint32_t>(std::min(std::max(scaled, 0.0), most));
    const segue::Draw work{static_cast<int64_t>(keep.shape(0)), key, threshold,
                           static_cast<std::uint8_t*>(keep.data()), call.at_least_one(threads)};
    nb::gil_scoped_release release;
    segue::draw(work);
}

void scan_elman(const ScanArguments& a, int activation) {
    const Call call{"scan_elman"};
    const Scan scan(call, a, elman_widths(call, a.h0));
    const segue::Elman work{scan.over, call.activation(activation)};
    nb::gil_scoped_release release;
    segue::scan_elman(work);
}

void scan_elman_back(const BackArguments& a, int activation) {
    const Call call{"scan_elman_back"};
    const Back back(call, a, elman_widths(call, a.h0));
    const segue::ElmanGrad work{back.over, call.activation(activation)};
    nb::gil_scoped_release release;
    segue::scan_elman_back(work);
}

void check_projection(const Call& call, bool is_projected, const Widths& law) {
    if (!is_projected && law.width.size != law.hidden.size)
        refuse(call.name + ": h0", "R=" + std::to_string(law.hidden.size) + " columns without a projection",
               std::to_string(law.width.size), "pass arrays whose shapes agree");
}

void scan_lstm(const ScanArguments& a, const MaybeInput& peepholes, const MaybeInput& w_r, const MaybeInput& gain_c,
               const MaybeInput& bias_c, const MaybeInput& keep_c, double rate_c, const Input& c0,
               const Output& c_last, const MaybeOutput& c, const MaybeOutput& chat, const MaybeOutput& rstd_c,
               const MaybeOutput& m) {
    const Call call{"scan_lstm"};
    const Widths law = lstm_widths(call, a.h0, c0);
    check_projection(call, bool(w_r), law);
    const Scan scan(call, a, law);
    const Extent H = law.hidden, three{"3", 3}, one{"1", 1};
    if (bool(gain_c) != bool(bias_c)) refuse(call.name, "gain_c and bias_c", "one of them", "pass both or neither");
    const segue::Lstm work{scan.over,
                           call.get(peepholes, "peepholes", {three, H}),
                           call.weights(w_r, "w_r", law.width, H, 1, a.half),
                           call.get(gain_c, "gain_c", {H}),
                           call.get(bias_c, "bias_c", {H}),
                           {call.get<std::uint8_t>(keep_c, "keep_c", {scan.N, H}), static_cast<float>(rate_c)},
                           call.get(c0, "c0", {scan.B, H}),
                           call.get(c_last, "c_last", {scan.B, H}),
                           call.get(c, "c", {scan.N, H}),
                           call.get(chat, "chat", {scan.N, H}),
                           call.get(rstd_c, "rstd_c", {scan.N, one}),
                           call.get(m, "m", {scan.N, H})};
    if (work.chat && !work.rstd_c) refuse(call.name, "chat and rstd_c", "chat alone", "pass both or neither");
    nb::gil_scoped_release release;
    segue::scan_lstm(work);
}

void scan_lstm_back(const BackArguments& a, const MaybeInput& peepholes, const MaybeInput& w_r_t,
                    const MaybeInput& gain_c, const MaybeInput& bias_c, const MaybeInput& keep_c, double rate_c,
                    const Input& c0, const Input& c, const MaybeInput& chat, const MaybeInput& rstd_c,
                    const MaybeInput& dc_last, const Output& dc0, const MaybeOutput& dm_out,
                    const MaybeOutput& dgain_c, const MaybeOutput& dbias_c) {
    const Call call{"scan_lstm_back"};
    const Widths law = lstm_widths(call, a.h0, c0);
    check_projection(call, bool(w_r_t), law);
    const Back back(call, a, law);
    const Extent H = law.hidden, R = law.width, three{"3", 3}, one{"1", 1};
    if (gain_c && !(bias_c && chat && rstd_c && dgain_c && dbias_c))
        refuse(call.name, "bias_c, chat, rstd_c, dgain_c and dbias_c with gain_c", "fewer", "pass them");
    if (w_r_t && !dm_out) refuse(call.name, "dm_out with w_r_t", "w_r_t alone", "pass it");
    const segue::LstmGrad work{back.over,
                               call.get(peepholes, "peepholes", {three, H}),
                               call.weights(w_r_t, "w_r_t", H, R, 1, a.half),
                               call.get(gain_c, "gain_c", {H}),
                               call.get(bias_c, "bias_c", {H}),
                               {call.get<std::uint8_t>(keep_c, "keep_c", {back.N, H}), static_cast<float>(rate_c)},
                               call.get(c0, "c0", {back.B, H}),
                               call.get(c, "c", {back.N, H}),
                               call.get(chat, "chat", {back.N, H}),
                               call.get(rstd_c, "rstd_c", {back.N, one}),
                               call.get(dc_last, "dc_last", {back.B, H}),
                               call.get(dc0, "dc0", {back.B, H}),
                               call.get(dm_out, "dm_out", {back.N, R}),
                               call.get(dgain_c, "dgain_c", {back.B, H}),
                               call.get(dbias_c, "dbias_c", {back.B, H})};
    nb::gil_scoped_release release;
    segue::scan_lstm_back(work);
}

// With b_hn the reset comes after, else there is w_n.
void scan_gru(const ScanArguments& a, const MaybeInput& w_n, const MaybeInput& b_hn) {
    const Call call{"scan_gru"};
    if (bool(w_n) == bool(b_hn)) refuse(call.name, "either w_n or b_hn", "both or neither", "pass one of them");
    const Widths law = gru_widths(call, a.h0, bool(b_hn));
    const Scan scan(call, a, law);
    const segue::Gru work{scan.over, call.weights(w_n, "w_n", law.hidden, law.hidden, 1, a.half),
                          call.get(b_hn, "b_hn", {law.hidden}), bool(b_hn)};
    nb::gil_scoped_release release;
    segue::scan_gru(work);
}

void scan_gru_back(const BackArguments& a, const Input& w_n_t, bool reset_after) {
    const Call call{"scan_gru_back"};
    const Widths law = gru_widths(call, a.h0, false);
    const Back back(call, a, law);
    const segue::GruGrad work{back.over, call.weights(w_n_t, "w_n_t", law.hidden, law.hidden, 1, a.half), reset_after};
    nb::gil_scoped_release release;
    segue::scan_gru_back(work);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Recurrent kernels on the CPU over ragged batches, float32; csrc/kernels.h states each equation.";
    segue::compiled_for();  // an unknown SEGUE_TARGET stops the import, not the first call
    m.def("compiled_for", &segue::compiled_for);
    m.def("packed_size", &segue::packed_size, "outputs"_a, "inputs"_a, "gates"_a = 1, "half"_a = false);
    m.def("pack", &pack, "w"_a, "packed"_a, "threads"_a, "gates"_a = 1, "half"_a = false, "blocks"_a = 1);
    m.def("reserved", &reserved, "size"_a);
    m.def("affine", &affine, "x"_a, "w"_a, "b"_a.none(), "y"_a, "threads"_a, "half"_a = false, "blocks"_a = 1,
          "parts"_a = 1);
    m.def("outer", &outer, "d"_a, "x"_a, "dw"_a, "threads"_a, "half"_a = false);
    m.def("column_sums", &column_sums, "d"_a, "sums"_a, "threads"_a);
    m.def("before", &before, "y"_a, "first"_a, "mask"_a.none(), "lengths"_a, "reverse"_a, "before"_a, "threads"_a);
    nb::class_<ScanArguments>(m, "Scan").def(
        nb::init<Input, Input, Input, Input, Input, Input, MaybeInput, MaybeInput, MaybeInput, MaybeInput, double,
                 MaybeOutput, MaybeOutput, MaybeOutput, MaybeOutput, MaybeOutput, Output, Output, bool, int, bool>(),
        "x"_a, "w_x"_a, "b"_a, "lengths"_a, "w_h"_a, "h0"_a, "mask"_a.none(), "gain_x"_a.none(), "gain_h"_a.none(),
        "keep_h"_a.none(), "rate_h"_a, "xhat_x"_a.none(), "rstd_x"_a.none(), "xhat_h"_a.none(), "rstd_h"_a.none(),
        "gates"_a.none(), "y"_a, "h_last"_a, "reverse"_a, "threads"_a, "half"_a = false);
    nb::class_<BackArguments>(m, "Back").def(
        nb::init<Input, Input, Input, Input, MaybeInput, MaybeInput, MaybeInput, MaybeInput, MaybeInput, MaybeInput,
                 MaybeInput, MaybeInput, double, Input, MaybeInput, MaybeInput, Output, MaybeOutput, MaybeOutput,
                 Output, MaybeOutput, MaybeOutput, Output, bool, int, bool>(),
        "lengths"_a, "w_h_t"_a, "h0"_a, "y"_a, "mask"_a.none(), "gain_x"_a.none(), "xhat_x"_a.none(),
        "rstd_x"_a.none(), "gain_h"_a.none(), "xhat_h"_a.none(), "rstd_h"_a.none(), "keep_h"_a.none(), "rate_h"_a,
        "gates"_a, "dy"_a.none(), "dh_last"_a.none(), "d"_a, "du_x"_a.none(), "du_h"_a.none(), "d_sum"_a,
        "dgain_x"_a.none(), "dgain_h"_a.none(), "dh0"_a, "reverse"_a, "threads"_a, "half"_a = false);
    m.def("scan_linear", &scan_linear, "a"_a, "b"_a, "lengths"_a, "h0"_a, "y"_a, "h_last"_a, "reverse"_a,
          "threads"_a);
    m.def("scan_diagonal", &scan_diagonal, "law"_a, "x"_a, "w_x"_a.none(), "b"_a.none(), "rates"_a.none(),
          "lengths"_a, "h0"_a, "gates"_a.none(), "y"_a, "h_last"_a, "threads"_a);
    m.def("scan_diagonal_back", &scan_diagonal_back, "law"_a, "rates"_a.none(), "lengths"_a, "h0"_a, "y"_a, "gates"_a,
          "dy"_a.none(), "dh_last"_a.none(), "d"_a, "d_sum"_a, "drates"_a.none(), "dh0"_a, "threads"_a);
    m.def("draw", &draw, "key"_a, "rate"_a, "keep"_a, "threads"_a);
    m.def("cut", &cut, "lengths"_a, "flags"_a);
    m.def("scan_elman", &scan_elman, "scan"_a, "activation"_a);
    m.def("scan_elman_back", &scan_elman_back, "back"_a, "activation"_a);
    m.def("scan_lstm", &scan_lstm, "scan"_a, "peepholes"_a.none(), "w_r"_a.none(), "gain_c"_a.none(),
          "bias_c"_a.none(), "keep_c"_a.none(), "rate_c"_a, "c0"_a, "c_last"_a, "c"_a.none(), "chat"_a.none(),
          "rstd_c"_a.none(), "m"_a.none());
    m.def("scan_lstm_back", &scan_lstm_back, "back"_a, "peepholes"_a.none(), "w_r_t"_a.none(), "gain_c"_a.none(),
          "bias_c"_a.none(), "keep_c"_a.none(), "rate_c"_a, "c0"_a, "c"_a, "chat"_a.none(), "rstd_c"_a.none(),
          "dc_last"_a.none(), "dc0"_a, "dm_out"_a.none(), "dgain_c"_a.none(),
          "dbias_c"_a.none());
    m.def("scan_gru", &scan_gru, "scan"_a, "w_n"_a.none(), "b_hn"_a.none());
    m.def("scan_gru_back", &scan_gru_back, "back"_a, "w_n_t"_a, "reset_after"_a);
    bind_program(m);
}
