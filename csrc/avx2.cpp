// AVX2 with FMA: 8 lanes, 16 registers.
#include <immintrin.h>

#include <cstdint>

namespace {

struct Lanes {
    using F = __m256;
    typedef std::uint32_t U __attribute__((vector_size(32)));
    using Mask = __m256i;
    static constexpr int count = 8, vectors = 2, sums = 12, few = 8;

    static F splat(float a) { return _mm256_set1_ps(a); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
    static F root(F a) { return _mm256_sqrt_ps(a); }
    static F larger(F a, F b) { return _mm256_max_ps(a, b); }
    template <class Condition>
    static F select(Condition yes, F a, F b) {
        return yes ? a : b;
    }
    static U bits(F a) { return (U)a; }
    static F floats(U u) { return (F)u; }
    static Mask first(std::int64_t n) {
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
    }
    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static F load(const float* p, Mask m) { return _mm256_maskload_ps(p, m); }
    static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
    static void store(float* p, F a, Mask m) { _mm256_maskstore_ps(p, m, a); }
    static F keep(F a, Mask m) { return _mm256_and_ps(a, _mm256_castsi256_ps(m)); }
    static float total(F a) {
        const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
        return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
    }
};

}  // namespace

#include "kernels-inl.h"

const segue::Primitives segue::avx2_primitives = SEGUE_PRIMITIVES;
