// exp, sigmoid and tanh, written once for one float and for vectors of floats, so that every lane of every target
// computes the same bits. No branches, no tables, no libm.
//
// S describes the lanes: S::F the float type, S::U unsigned bits of the same shape, and splat, fma, select, bits,
// floats. Everything stands in an anonymous namespace: files compiled for different CPUs must not share one copy of a
// function.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct OneLane {
    using F = float;
    using U = std::uint32_t;
    static F splat(float a) { return a; }
    static F fma(F a, F b, F c) { return std::fma(a, b, c); }
    static F select(bool yes, F a, F b) { return yes ? a : b; }
    static U bits(F a) {
        U u;
        std::memcpy(&u, &a, sizeof u);
        return u;
    }
    static F floats(U u) {
        F a;
        std::memcpy(&a, &u, sizeof a);
        return a;
    }
};

// exp(x) for x in [-87, 88], NaN for NaN; relative error below 1.2e-7.
// x = n ln 2 + r with |r| <= ln 2 / 2, and exp(r) = 1 + r + r^2 q(r), q interpolated at Chebyshev nodes.
template <class S>
inline typename S::F exp_within(typename S::F x) {
    using F = typename S::F;
    const F round_to_int = S::splat(12582912.0f);  // 1.5 * 2^23: adding it leaves n in the low bits
    const F shifted = S::fma(x, S::splat(1.44269504f), round_to_int);
    const F n = shifted - round_to_int;
    F r = S::fma(n, S::splat(-0.693145751953125f), x);  // ln 2 in two parts, the first exact times any n
    r = S::fma(n, S::splat(-1.42860682e-6f), r);
    F q = S::splat(0.0013926926614f);
    q = S::fma(q, r, S::splat(0.00836377387441f));
    q = S::fma(q, r, S::splat(0.0416665501103f));
    q = S::fma(q, r, S::splat(0.166665733819f));
    q = S::fma(q, r, S::splat(0.5f));
    const F e = S::fma(q * r, r, r) + S::splat(1.0f);
    const F power = S::floats((S::bits(shifted) << 23) + S::bits(S::splat(1.0f)));  // 2^n
    return e * power;
}

// 1 / (1 + exp(-x)); exactly 0 below -88 and exactly 1 above 17.4.
template <class S>
inline typename S::F sigmoid(typename S::F x) {
    using F = typename S::F;
    const F least = S::splat(-88.0f), most = S::splat(87.0f), one = S::splat(1.0f);
    const F clamped = S::select(x > most, most, S::select(x < least, least, x));
    const F s = one / (one + exp_within<S>(S::splat(0.0f) - clamped));
    return S::select(x < least, S::splat(0.0f), s);
}

// tanh(x) = (1 - e) / (1 + e), e = exp(-2 |x|), with the sign of x; near 0, where that cancels, an odd polynomial
// interpolated at Chebyshev nodes in x^2 (relative error 2e-8).
template <class S>
inline typename S::F tanh(typename S::F x) {
    using F = typename S::F;
    const F one = S::splat(1.0f), most = S::splat(20.0f);
    const F size = S::floats(S::bits(x) & ~S::bits(S::splat(-0.0f)));
    const F clamped = S::select(size > most, most, size);
    const F e = exp_within<S>(S::splat(-2.0f) * clamped);
    const F far = (one - e) / (one + e);
    const F z = x * x;
    F p = S::splat(-0.00609671415996f);
    p = S::fma(p, z, S::splat(0.0209971789938f));
    p = S::fma(p, z, S::splat(-0.053850909577f));
    p = S::fma(p, z, S::splat(0.13332769737f));
    p = S::fma(p, z, S::splat(-0.333333289441f));
    const F near = S::fma(p * z, x, x);
    return S::select(size < S::splat(0.625f), near, S::select(x < S::splat(0.0f), S::splat(0.0f) - far, far));
}

}  // namespace
