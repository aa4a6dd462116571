// sigmoid and tanh, written once for one float and for vectors of floats, so that every lane of every target computes
// the same bits. No branches, no tables, no libm. One division each: it runs beside the multiplications of other lanes,
// and was measured to be faster than a series of these, and than one division for several quotients.
//
// S describes the lanes: S::F the float type, S::U unsigned bits of the same shape, and splat, fma (a b + c), fnma
// (c - a b), larger (a if a > b, else b), select, bits, floats. Everything stands in an anonymous namespace: files
// compiled for different CPUs must not share one copy of a function.
#pragma once

namespace {

// exp(a) = power * (1 + part), for a <= 0; exactly 0 (power is) below -87.7. NaN for NaN.
template <class S>
struct Exp {
    typename S::F power, part;
};

// a = n ln 2 + r with |r| <= ln 2 / 2, and exp(r) = 1 + r + r^2 q(r), q interpolated at Chebyshev nodes; the relative
// error of power * (1 + part) is below 1.2e-7.
template <class S>
inline Exp<S> exp_of_negative(typename S::F a) {
    using F = typename S::F;
    const F round_to_int = S::splat(12582912.0f);  // 1.5 * 2^23: adding it leaves n in the low bits
    const F clamped = S::larger(S::splat(-88.0f), a);
    const F shifted = S::fma(clamped, S::splat(1.44269504f), round_to_int);
    const F n = shifted - round_to_int;
    F r = S::fma(n, S::splat(-0.693145751953125f), clamped);  // ln 2 in two parts, the first exact times any n
    r = S::fma(n, S::splat(-1.42860682e-6f), r);
    F q = S::splat(0.0013926926614f);
    q = S::fma(q, r, S::splat(0.00836377387441f));
    q = S::fma(q, r, S::splat(0.0416665501103f));
    q = S::fma(q, r, S::splat(0.166665733819f));
    q = S::fma(q, r, S::splat(0.5f));
    // 2^n; for n = -127 the bits are those of 0.
    const F power = S::floats((S::bits(shifted) << 23) + S::bits(S::splat(1.0f)));
    return {power, S::fma(q * r, r, r)};
}

// -|x|
template <class S>
inline typename S::F minus_size_of(typename S::F x) {
    return S::floats(S::bits(x) | S::bits(S::splat(-0.0f)));
}

// exp(a) for a <= 0
template <class S>
inline typename S::F exp(typename S::F a) {
    const Exp<S> one = exp_of_negative<S>(a);
    return S::fma(one.power, one.part, one.power);
}

// e = exp(-|x|); 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0. Exactly 0 below -87.7 and exactly 1 above 17.4.
template <class S>
inline typename S::F sigmoid(typename S::F x) {
    using F = typename S::F;
    const F one = S::splat(1.0f);
    const F e = exp<S>(minus_size_of<S>(x));
    return S::select(x < S::splat(0.0f), e, one) / (one + e);
}

// sigmoid(x) and sigmoid(-x), each as exact as the other.
template <class S>
struct Shares {
    typename S::F share, rest;
};

template <class S>
inline Shares<S> shares(typename S::F x) {
    using F = typename S::F;
    const F one = S::splat(1.0f);
    const F e = exp<S>(minus_size_of<S>(x));
    const F larger = one / (one + e), smaller = e * larger;
    const auto is_below = x < S::splat(0.0f);
    return {S::select(is_below, smaller, larger), S::select(is_below, larger, smaller)};
}

// (1 - e) / (1 + e) with e = exp(-2 |x|), and the sign of x. 1 - e comes without cancellation: near 0 power is 1.
template <class S>
inline typename S::F tanh(typename S::F x) {
    using F = typename S::F;
    const F one = S::splat(1.0f);
    const F a = minus_size_of<S>(x);
    const Exp<S> exp = exp_of_negative<S>(a + a);
    const F rest = S::fnma(exp.power, exp.part, one - exp.power);
    const F size = rest / (S::splat(2.0f) - rest);
    return S::floats(S::bits(size) | (S::bits(x) & S::bits(S::splat(-0.0f))));
}

}  // namespace
