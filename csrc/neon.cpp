// NEON of 64-bit ARM: 4 lanes, 32 registers.
#include <arm_neon.h>

#include <cstdint>

namespace {

struct Lanes {
    using F = float32x4_t;
    using U = uint32x4_t;
    using Mask = std::int64_t;  // how many lanes; NEON has no masked loads
    static constexpr int count = 4, vectors = 4, sums = 24, few = 16;

    static F splat(float a) { return vdupq_n_f32(a); }
    static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
    static F root(F a) { return vsqrtq_f32(a); }
    static F larger(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static F select(U yes, F a, F b) { return vbslq_f32(yes, a, b); }
    template <class Condition>
    static F select(Condition yes, F a, F b) {
        return vbslq_f32((U)yes, a, b);
    }
    static U bits(F a) { return vreinterpretq_u32_f32(a); }
    static F floats(U u) { return vreinterpretq_f32_u32(u); }
    static Mask first(std::int64_t n) { return n; }
    static F load(const float* p) { return vld1q_f32(p); }
    static F load(const float* p, Mask m) {
        if (m == count) return load(p);
        float lanes[count] = {};
        for (Mask k = 0; k < m; ++k) lanes[k] = p[k];
        return load(lanes);
    }
    static void store(float* p, F a) { vst1q_f32(p, a); }
    static void store(float* p, F a, Mask m) {
        if (m == count) return store(p, a);
        float lanes[count];
        store(lanes, a);
        for (Mask k = 0; k < m; ++k) p[k] = lanes[k];
    }
    static F keep(F a, Mask m) {
        float lanes[count];
        store(lanes, a);
        return load(lanes, m);
    }
    static float total(F a) {
        const float32x2_t b = vadd_f32(vget_low_f32(a), vget_high_f32(a));
        return vget_lane_f32(b, 0) + vget_lane_f32(b, 1);
    }
};

}  // namespace

#include "kernels-inl.h"

const segue::Primitives segue::neon_primitives = SEGUE_PRIMITIVES;
