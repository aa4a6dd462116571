// The only file that knows Python. Every check is made here, so the kernels need none; the GIL is released around them.
// Messages have four parts: where: expected this, got that; what to do.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using std::int64_t;
using Input = nb::ndarray<nb::ro>;
using Output = nb::ndarray<>;

struct Extent {
    const char* letter;
    int64_t size;
};

[[noreturn]] void refuse(const std::string& where, const std::string& expected, const std::string& got,
                         const std::string& fix) {
    throw std::invalid_argument(where + ": expected " + expected + ", got " + got + "; " + fix);
}

template <class Array>
std::string shape_of(const Array& array) {
    std::string text = "[";
    for (size_t k = 0; k < array.ndim(); ++k) text += (k ? ", " : "") + std::to_string(array.shape(k));
    return text + "]";
}

std::string shape_of(std::initializer_list<Extent> extents) {
    std::string text = "[";
    for (const Extent& extent : extents)
        text += (text.size() > 1 ? ", " : "") + std::string(extent.letter) + "=" + std::to_string(extent.size);
    return text + "]";
}

std::string name_of(nb::dlpack::dtype dtype) {
    static const char* const kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    return (dtype.code < 7 ? kinds[dtype.code] : "unknown") + std::to_string(dtype.bits * dtype.lanes);
}

template <class Array>
bool contiguous(const Array& array) {
    if (array.size() == 0) return true;
    int64_t step = 1;
    for (size_t k = array.ndim(); k-- > 0; step *= static_cast<int64_t>(array.shape(k)))
        if (array.shape(k) > 1 && array.stride(k) != step) return false;
    return true;
}

// The checks of one call, each naming the call and the argument.
struct Call {
    std::string name;

    template <class T, class Array>
    void layout(const Array& array, const char* argument, size_t ndim) const {
        const std::string where = name + ": " + argument;
        const nb::dlpack::dtype dtype = nb::dtype<T>();
        if (array.device_type() != nb::device::cpu::value)
            refuse(where, "memory of the CPU", "memory of a device", "move it to the CPU");
        if (array.dtype() != dtype) refuse(where, name_of(dtype), name_of(array.dtype()), "convert it");
        if (array.ndim() != ndim)
            refuse(where, std::to_string(ndim) + " axes", "shape " + shape_of(array), "reshape it");
        if (!contiguous(array)) refuse(where, "contiguous memory", "a strided view", "call .contiguous() on it");
    }

    template <class Array>
    void shape(const Array& array, const char* argument, std::initializer_list<Extent> extents) const {
        size_t k = 0;
        for (const Extent& extent : extents)
            if (static_cast<int64_t>(array.shape(k++)) != extent.size)
                refuse(name + ": " + argument, "shape " + shape_of(extents), shape_of(array),
                       "pass arrays whose shapes agree");
    }

    const float* input(const Input& array, const char* argument, std::initializer_list<Extent> extents) const {
        layout<float>(array, argument, extents.size());
        shape(array, argument, extents);
        return static_cast<const float*>(array.data());
    }

    float* output(const Output& array, const char* argument, std::initializer_list<Extent> extents) const {
        layout<float>(array, argument, extents.size());
        shape(array, argument, extents);
        return static_cast<float*>(array.data());
    }

    int64_t extent(const Input& array, const char* argument, size_t axis) const {
        layout<float>(array, argument, 2);
        return static_cast<int64_t>(array.shape(axis));
    }

    int at_least_one(int threads) const {
        if (threads < 1)
            refuse(name + ": threads", "at least 1", std::to_string(threads), "pass how many threads may run");
        return threads;
    }

    // A copy, so that what was checked is what is used.
    std::vector<int64_t> lengths(const Input& array, int64_t steps) const {
        layout<int64_t>(array, "lengths", 1);
        const auto* first = static_cast<const int64_t*>(array.data());
        std::vector<int64_t> copy(first, first + array.shape(0));
        int64_t left = steps;
        for (size_t s = 0; s < copy.size(); ++s) {
            if (copy[s] < 0)
                refuse(name + ": lengths[" + std::to_string(s) + "]", "at least 0", std::to_string(copy[s]),
                       "count the steps of each sequence");
            if (copy[s] > left)
                refuse(name + ": lengths", "the sum N=" + std::to_string(steps) + ", the rows of x", "more",
                       "count the steps of each sequence");
            left -= copy[s];
        }
        if (left)
            refuse(name + ": lengths", "the sum N=" + std::to_string(steps) + ", the rows of x",
                   std::to_string(steps - left), "count the steps of each sequence");
        return copy;
    }
};

void affine(const Input& x, const Input& w_t, const std::optional<Input>& b, const Output& y, int threads) {
    const Call call{"affine"};
    const Extent N{"N", call.extent(x, "x", 0)}, I{"I", call.extent(x, "x", 1)}, O{"O", call.extent(w_t, "w_t", 1)};
    const segue::Affine work{N.size,
                             I.size,
                             O.size,
                             call.input(x, "x", {N, I}),
                             call.input(w_t, "w_t", {I, O}),
                             b ? call.input(*b, "b", {O}) : nullptr,
                             call.output(y, "y", {N, O}),
                             call.at_least_one(threads)};
    nb::gil_scoped_release release;
    segue::affine(work);
}

// The arguments that every scan has; `lengths` owns what `over` points to.
struct Scan {
    std::vector<int64_t> lengths;
    Extent N, I, B;
    segue::Sequences over;

    Scan(const Call& call, const Input& x, const Input& lengths_, Extent H, Extent R, const Input& h0, const Output& y,
         const Output& h_last, int threads)
        : N{"N", call.extent(x, "x", 0)}, I{"I", call.extent(x, "x", 1)}, B{"B", 0} {
        lengths = call.lengths(lengths_, N.size);
        B.size = static_cast<int64_t>(lengths.size());
        over = {B.size,
                N.size,
                I.size,
                H.size,
                lengths.data(),
                call.input(x, "x", {N, I}),
                call.input(h0, "h0", {B, R}),
                call.output(y, "y", {N, R}),
                call.output(h_last, "h_last", {B, R}),
                call.at_least_one(threads)};
    }
};

void scan_elman(const Input& x, const Input& lengths, const Input& w_xh_t, const Input& w_hh_t, const Input& b,
                int activation, const Input& h0, const Output& y, const Output& h_last, int threads) {
    const Call call{"scan_elman"};
    const Extent H{"H", call.extent(w_hh_t, "w_hh_t", 0)};
    const Scan scan(call, x, lengths, H, H, h0, y, h_last, threads);
    if (activation < 0 || activation > 3)
        refuse("scan_elman: activation", "0 (identity), 1 (tanh), 2 (relu) or 3 (sigmoid)", std::to_string(activation),
               "pass one of these");
    const segue::Elman work{scan.over, call.input(w_xh_t, "w_xh_t", {scan.I, H}), call.input(w_hh_t, "w_hh_t", {H, H}),
                            call.input(b, "b", {H}), static_cast<segue::Activation>(activation)};
    nb::gil_scoped_release release;
    segue::scan_elman(work);
}

void scan_lstm(const Input& x, const Input& lengths, const Input& w_xh_t, const Input& w_hh_t, const Input& b,
               const std::optional<Input>& w_hr_t, const Input& h0, const Input& c0, const Output& y,
               const Output& h_last, const Output& c_last, int threads) {
    const Call call{"scan_lstm"};
    const Extent H{"H", call.extent(c0, "c0", 1)}, G{"4H", 4 * H.size};
    const Extent R = w_hr_t ? Extent{"P", call.extent(*w_hr_t, "w_hr_t", 1)} : H;
    const Scan scan(call, x, lengths, H, R, h0, y, h_last, threads);
    const segue::Lstm work{scan.over,
                           call.input(w_xh_t, "w_xh_t", {scan.I, G}),
                           call.input(w_hh_t, "w_hh_t", {R, G}),
                           call.input(b, "b", {G}),
                           w_hr_t ? call.input(*w_hr_t, "w_hr_t", {H, R}) : nullptr,
                           w_hr_t ? R.size : 0,
                           call.input(c0, "c0", {scan.B, H}),
                           call.output(c_last, "c_last", {scan.B, H})};
    nb::gil_scoped_release release;
    segue::scan_lstm(work);
}

void scan_gru(const Input& x, const Input& lengths, const Input& w_xh_t, const Input& w_hh_t, const Input& b_x,
              const Input& b_hn, bool reset_after, const Input& h0, const Output& y, const Output& h_last,
              int threads) {
    const Call call{"scan_gru"};
    const Extent H{"H", call.extent(w_hh_t, "w_hh_t", 0)}, G{"3H", 3 * H.size};
    const Scan scan(call, x, lengths, H, H, h0, y, h_last, threads);
    const segue::Gru work{scan.over,
                          call.input(w_xh_t, "w_xh_t", {scan.I, G}),
                          call.input(w_hh_t, "w_hh_t", {H, G}),
                          call.input(b_x, "b_x", {G}),
                          call.input(b_hn, "b_hn", {H}),
                          reset_after};
    nb::gil_scoped_release release;
    segue::scan_gru(work);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Forward passes on the CPU over ragged batches, float32; csrc/kernels.h states each equation.";
    segue::compiled_for();  // an unknown SEGUE_TARGET stops the import, not the first call
    m.def("compiled_for", &segue::compiled_for);
    m.def("affine", &affine, "x"_a, "w_t"_a, "b"_a.none(), "y"_a, "threads"_a);
    m.def("scan_elman", &scan_elman, "x"_a, "lengths"_a, "w_xh_t"_a, "w_hh_t"_a, "b"_a, "activation"_a, "h0"_a, "y"_a,
          "h_last"_a, "threads"_a);
    m.def("scan_lstm", &scan_lstm, "x"_a, "lengths"_a, "w_xh_t"_a, "w_hh_t"_a, "b"_a, "w_hr_t"_a.none(), "h0"_a, "c0"_a,
          "y"_a, "h_last"_a, "c_last"_a, "threads"_a);
    m.def("scan_gru", &scan_gru, "x"_a, "lengths"_a, "w_xh_t"_a, "w_hh_t"_a, "b_x"_a, "b_hn"_a, "reset_after"_a, "h0"_a,
          "y"_a, "h_last"_a, "threads"_a);
}
