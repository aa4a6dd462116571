// No vectors at all: any machine with a C++ compiler. Slow where the machine has no fused multiply-add, but the same
// bits as everywhere.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct Lanes {
    using F = float;
    using U = std::uint32_t;
    using Mask = bool;  // one lane: it is there, or this vector would not be
    static constexpr int count = 1, vectors = 4, sums = 16, few = 4;

    static F splat(float a) { return a; }
    static F fma(F a, F b, F c) { return std::fma(a, b, c); }
    static F fnma(F a, F b, F c) { return std::fma(-a, b, c); }
    static F root(F a) { return std::sqrt(a); }
    static F larger(F a, F b) { return a > b ? a : b; }
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
    static Mask first(std::int64_t) { return true; }
    static F load(const float* p) { return *p; }
    static F load(const float* p, Mask) { return *p; }
    static void store(float* p, F a) { *p = a; }
    static void store(float* p, F a, Mask) { *p = a; }
    static F keep(F a, Mask) { return a; }
    static float total(F a) { return a; }
};

}  // namespace

#include "kernels-inl.h"

const segue::Primitives segue::plain_primitives = SEGUE_PRIMITIVES;
