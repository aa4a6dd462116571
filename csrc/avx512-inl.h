// AVX-512 (F, DQ, BW, VL): 16 lanes, 32 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Lanes {
    using F = __m512;
    typedef std::uint32_t U __attribute__((vector_size(64)));
    using Mask = __mmask16;
    static constexpr int count = 16, vectors = 4, sums = 24, few = 8;

    static F splat(float a) { return _mm512_set1_ps(a); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
    static F root(F a) { return _mm512_sqrt_ps(a); }
    static F larger(F a, F b) { return _mm512_maskz_max_ps(0xffff, a, b); }  // GCC 12 warns of the plain one
    template <class Condition>
    static F select(Condition yes, F a, F b) {
        return yes ? a : b;
    }
    static U bits(F a) { return (U)a; }
    static F floats(U u) { return (F)u; }
    static Mask first(std::int64_t n) { return static_cast<Mask>((1u << n) - 1u); }
    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static F load(const float* p, Mask m) { return _mm512_maskz_loadu_ps(m, p); }
    static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
    static void store(float* p, F a, Mask m) { _mm512_mask_storeu_ps(p, m, a); }
    static F keep(F a, Mask m) { return _mm512_maskz_mov_ps(m, a); }
    static float total(F a) {
        const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
        const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
        const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
        return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
    }
};

}  // namespace
