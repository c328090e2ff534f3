#include "CKernels.h"

// The same source for every instruction set. Only additions, multiplications, divisions by powers of two and square roots by Newton are used, each
// rounded by itself (no fused ones), so the bits are the same everywhere. The library's functions would keep the compiler from working on several
// elements at once; these are arithmetic without a branch.
#pragma STDC FP_CONTRACT OFF

#define INLINE static inline __attribute__((always_inline))

INLINE void philox(const uint32_t counter[4], uint64_t key, size_t count, uint32_t *restrict a, uint32_t *restrict b, uint32_t *restrict c, uint32_t *restrict d) {
    for (size_t i = 0; i < count; i++) {
        uint32_t c0 = counter[0] + (uint32_t)i, c1 = counter[1], c2 = counter[2], c3 = counter[3];
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        for (int round = 0; round < 10; round++) {
            const uint64_t x = (uint64_t)c0 * 0xd2511f53u, y = (uint64_t)c2 * 0xcd9e8d57u;
            c0 = (uint32_t)(y >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)y;
            c2 = (uint32_t)(x >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)x;
            k0 += 0x9e3779b9u;
            k1 += 0xbb67ae85u;
        }
        a[i] = c0;
        b[i] = c1;
        c[i] = c2;
        d[i] = c3;
    }
}

INLINE float from_bits(uint32_t bits) { return (union { uint32_t bits; float value; }){bits}.value; }
INLINE uint32_t bits_of(float value) { return (union { float value; uint32_t bits; }){value}.bits; }

/// Integers below 2^23, exactly: they become the fraction of a float between 2^23 and 2^24.
INLINE float float_of(uint32_t x) { return from_bits(x | 0x4b000000u) - 0x1p23f; }

/// sqrt x of a number in 0...100, to about 2e-7 relative: Newton's iteration for 1 / sqrt x.
INLINE float square_root(float x) {
    const float half = 0.5f * x;
    float y = from_bits(0x5f3759dfu - ((bits_of(x) & 0x7fffffffu) >> 1));
    y *= 1.5f - half * y * y;
    y *= 1.5f - half * y * y;
    y *= 1.5f - half * y * y;
    return x * y;
}

/// ln x of a positive normal number, to about 1e-7 relative. Polynomial of Cephes `logf` (Moshier 1989) on [sqrt(1/2), sqrt(2)).
INLINE float natural_logarithm(float x) {
    const int32_t exponent = (int32_t)(bits_of(x) - 0x3f3504f3u) >> 23;
    const float f = from_bits(bits_of(x) - ((uint32_t)exponent << 23)) - 1;
    const float e = float_of((uint32_t)(exponent + 64)) - 64;
    const float square = f * f;
    float p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    // ln 2 in two parts, the first of few bits, so that e times it is exact.
    return f + (p * f * square - 0.5f * square + e * -2.12194440e-4f) + e * 0.693359375f;
}

/// sin and cos of 2 pi bits / 2^32: two bits choose the quadrant, the next 23 the place within it, so no argument needs reducing. Polynomials of
/// Cephes `sinf` and `cosf` on [-pi/4, pi/4].
INLINE void sine_and_cosine(uint32_t bits, float *sine, float *cosine) {
    const uint32_t turned = bits + 0x20000000u;  // quadrants centred on the axes
    const uint32_t quadrant = turned >> 30;
    const float pi = 0x1.921fb4p+1f;  // rounded towards zero, as it always was here
    const float a = (float_of((turned & 0x3fffffffu) >> 7) + (0.5f - 0x1p22f)) * (pi * 0x1p-24f);
    const float square = a * a;
    const float s = ((square * -1.9515295891e-4f + 8.3321608736e-3f) * square - 1.6666654611e-1f) * square * a + a;
    const float c = ((square * 2.443315711809948e-5f - 1.388731625493765e-3f) * square + 4.166664568298827e-2f) * square * square - 0.5f * square + 1;
    const int odd = quadrant & 1;
    *sine = from_bits(bits_of(odd ? c : s) ^ (quadrant & 2) << 30);
    *cosine = from_bits(bits_of(odd ? s : c) ^ ((quadrant + 1) & 2) << 30);
}

INLINE void box_muller(const uint32_t *restrict radii, const uint32_t *restrict angles, size_t count, float *restrict cosines, float *restrict sines) {
    for (size_t i = 0; i < count; i++) {
        // Both halves are exact as floats; one rounding in the sum gives u in (0, 1].
        const float uniform = float_of(radii[i] >> 16) * 0x1p-16f + (float_of(radii[i] & 0xffff) + 0.5f) * 0x1p-32f;
        const float radius = square_root(-2 * natural_logarithm(uniform));
        float sine, cosine;
        sine_and_cosine(angles[i], &sine, &cosine);
        cosines[i] = radius * cosine;
        sines[i] = radius * sine;
    }
}

#define VARIANT(name, target_attribute)                                                                                                                 \
    target_attribute static void philox_##name(                                                                                                         \
        const uint32_t counter[4], uint64_t key, size_t count, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {                                    \
        philox(counter, key, count, a, b, c, d);                                                                                                        \
    }                                                                                                                                                   \
    target_attribute static void box_muller_##name(const uint32_t *radii, const uint32_t *angles, size_t count, float *cosines, float *sines) {         \
        box_muller(radii, angles, count, cosines, sines);                                                                                               \
    }
VARIANT(baseline, )
VARIANT(avx2, __attribute__((target("avx2"))))
VARIANT(avx512, __attribute__((target("avx512f"))))

void tf_philox(tf_isa isa, const uint32_t counter[4], uint64_t key, size_t count, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d) {
    (isa == TF_AVX512 ? philox_avx512 : isa == TF_AVX2 ? philox_avx2 : philox_baseline)(counter, key, count, a, b, c, d);
}

void tf_box_muller(tf_isa isa, const uint32_t *radii, const uint32_t *angles, size_t count, float *cosines, float *sines) {
    (isa == TF_AVX512 ? box_muller_avx512 : isa == TF_AVX2 ? box_muller_avx2 : box_muller_baseline)(radii, angles, count, cosines, sines);
}
