// Checks of the arguments of one native call. Messages have four parts: where: expected this, got that; what to do.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

namespace segue::checks {

namespace nb = nanobind;
using std::int64_t;
using Input = nb::ndarray<nb::ro>;
using Output = nb::ndarray<>;
using MaybeInput = std::optional<Input>;
using MaybeOutput = std::optional<Output>;

struct Extent {
    const char* letter;
    int64_t size;
};

[[noreturn]] inline void refuse(const std::string& where, const std::string& expected, const std::string& got,
                                const std::string& fix) {
    throw std::invalid_argument(where + ": expected " + expected + ", got " + got + "; " + fix);
}

template <class Array>
std::string shape_of(const Array& array) {
    std::string text = "[";
    for (size_t k = 0; k < array.ndim(); ++k) text += (k ? ", " : "") + std::to_string(array.shape(k));
    return text + "]";
}

inline std::string shape_of(std::initializer_list<Extent> extents) {
    std::string text = "[";
    for (const Extent& extent : extents)
        text += (text.size() > 1 ? ", " : "") + std::string(extent.letter) + "=" + std::to_string(extent.size);
    return text + "]";
}

inline std::string name_of(nb::dlpack::dtype dtype) {
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
    void kind(const Array& array, const char* argument, size_t ndim) const {
        const std::string where = name + ": " + argument;
        const nb::dlpack::dtype dtype = nb::dtype<T>();
        if (array.device_type() != nb::device::cpu::value)
            refuse(where, "memory of the CPU", "memory of a device", "move it to the CPU");
        if (array.dtype() != dtype) refuse(where, name_of(dtype), name_of(array.dtype()), "convert it");
        if (array.ndim() != ndim)
            refuse(where, std::to_string(ndim) + " axes", "shape " + shape_of(array), "reshape it");
    }

    template <class T, class Array>
    void layout(const Array& array, const char* argument, size_t ndim) const {
        kind<T>(array, argument, ndim);
        if (!contiguous(array))
            refuse(name + ": " + argument, "contiguous memory", "a strided view", "call .contiguous() on it");
    }

    template <class Array>
    void shape(const Array& array, const char* argument, std::initializer_list<Extent> extents) const {
        size_t k = 0;
        for (const Extent& extent : extents)
            if (static_cast<int64_t>(array.shape(k++)) != extent.size)
                refuse(name + ": " + argument, "shape " + shape_of(extents), shape_of(array),
                       "pass arrays whose shapes agree");
    }

    template <class T = float, class Array>
    auto get(const Array& array, const char* argument, std::initializer_list<Extent> extents) const {
        layout<T>(array, argument, extents.size());
        shape(array, argument, extents);
        if constexpr (std::is_same_v<Array, Input>)
            return static_cast<const T*>(array.data());
        else
            return static_cast<T*>(array.data());
    }

    // Null for None.
    template <class T = float, class Array>
    auto get(const std::optional<Array>& array, const char* argument, std::initializer_list<Extent> extents) const {
        return array ? get<T>(*array, argument, extents) : nullptr;
    }

    // The first element of rows that may be apart; each of them is contiguous.
    template <class Array>
    auto rows(const Array& array, const char* argument, std::initializer_list<Extent> extents) const {
        kind<float>(array, argument, 2);
        if (array.size() && array.shape(1) > 1 && array.stride(1) != 1)
            refuse(name + ": " + argument, "contiguous rows", "a strided view", "call .contiguous() on it");
        shape(array, argument, extents);
        if constexpr (std::is_same_v<Array, Input>)
            return static_cast<const float*>(array.data());
        else
            return static_cast<float*>(array.data());
    }

    // How many rows there are, of a matrix.
    Extent rows_of(const Input& array, const char* argument) const {
        kind<float>(array, argument, 2);
        return {"N", static_cast<int64_t>(array.shape(0))};
    }

    // How many columns it has.
    int64_t columns_of(const Output& array, const char* argument) const {
        kind<float>(array, argument, 2);
        return static_cast<int64_t>(array.shape(1));
    }

    int64_t extent(const Input& array, const char* argument, size_t axis) const {
        layout<float>(array, argument, 2);
        return static_cast<int64_t>(array.shape(axis));
    }

    void divides(int64_t count, const char* argument, Extent whole) const {
        if (count < 1 || whole.size % count)
            refuse(name + ": " + argument, "a divisor of " + std::string(whole.letter) + "=" + std::to_string(whole.size),
                   std::to_string(count), "cut it into equal pieces");
    }

    // A matrix [outputs, inputs] in packed form, or several of them.
    Weights weights(const Input& packed, const char* argument, Extent outputs, Extent inputs, int64_t gates,
                    bool half, int64_t blocks = 1) const {
        const int64_t size = blocks * packed_size(outputs.size, inputs.size, gates, half);
        const float* data = get(packed, argument, {{"packed", size}});
        if (reinterpret_cast<std::uintptr_t>(data) % 64)
            refuse(name + ": " + argument, "memory aligned to 64 bytes", "other memory", "let segue pack it");
        return {inputs.size, outputs.size, data, gates, half};
    }

    Weights weights(const MaybeInput& packed, const char* argument, Extent outputs, Extent inputs, int64_t gates,
                    bool half) const {
        return packed ? weights(*packed, argument, outputs, inputs, gates, half) : Weights{0, 0, nullptr};
    }

    int at_least_one(int threads) const {
        if (threads < 1)
            refuse(name + ": threads", "at least 1", std::to_string(threads), "pass how many threads may run");
        return threads;
    }

    Activation activation(int code) const {
        if (code < 0 || code > 3)
            refuse(name + ": activation", "0 (identity), 1 (tanh), 2 (relu) or 3 (sigmoid)", std::to_string(code),
                   "pass one of these");
        return static_cast<Activation>(code);
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

}  // namespace segue::checks
