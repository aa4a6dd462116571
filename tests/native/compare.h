// How near a kernel has to come to the definition in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "definition.h"
#include "harness.h"

// The tolerance has two parts. `rounding` of the largest value of an array: some thirty units in the last place, for
// sums in another order and for activations that are good to a few units. And kPlain times what the definition itself
// loses when it runs in float: a norm over few columns, or a long sequence, may magnify rounding. Where it magnifies
// it beyond `hopeless`, a comparison would prove nothing, and the case is refused.
//
// In half precision what is summed is rounded to 8 bits, so a value that differs in its last float bit may be rounded
// the other way: comparisons are as loose as that. Products alone are strict about it, in products.cpp.
struct Tolerance {
    double rounding, hopeless;
};
constexpr Tolerance kFloat = {2e-6, 2e-3}, kHalfway = {0.02, 0.1};
constexpr double kPlain = 12, kTiny = 1e-7;

inline double largest(const definition::Array<double>& a) {
    double most = 0;
    for (double value : a) most = std::max(most, std::abs(value));
    return most;
}

// `scale` is the largest value that went into the array, where that is more than the array's own.
inline void compare(Harness& harness, const std::string& name, const Tolerance& most,
                    const definition::Array<float>& got, const definition::Array<double>& want,
                    const definition::Array<float>& plain, double scale = 0) {
    require(got.size() == want.size(),
            name + ": expected " + std::to_string(want.size()) + " values, got " + std::to_string(got.size()));
    double lost = 0;
    for (std::size_t k = 0; k < want.size(); ++k) lost = std::max(lost, std::abs(plain[k] - want[k]));
    scale = std::max(scale, largest(want));
    const double tolerance = kTiny + most.rounding * scale + kPlain * lost;
    require(lost <= kTiny + most.hopeless * scale, name + ": the definition in float loses too much to compare with");
    for (std::size_t k = 0; k < want.size(); ++k) {
        const double wrong = std::abs(got[k] - want[k]);
        harness.used(wrong / tolerance);
        if (wrong <= tolerance) continue;  // a NaN does not
        char text[100];
        std::snprintf(text, sizeof text, "[%zu]: expected %.9g within %.2g, got %.9g", k, want[k], tolerance, got[k]);
        throw Failure(name + text);
    }
}
