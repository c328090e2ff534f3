#include "CKernels.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))

/// What a Winograd convolution may hold of transformed tiles, a third of a second-level cache of 2 MB.
#define WINOGRAD_BLOCK_BYTES (700 * 1024)

struct tf_functions {
    int lanes;
    void (*pack_winograd)(const float *, int, int, int, float *);
    size_t (*winograd_scratch)(const tf_convolution *);
    void (*winograd)(const tf_convolution *, float *);
    void (*moments)(const float *, size_t, int, double *);
    void (*scale_shift)(const float *, size_t, int, const float *, const float *, int, float *);
    void (*softmax)(float *, size_t, size_t, size_t, float);
};

struct tf_convolution_functions {
    void (*pack_wide)(const float *, int, int, tf_storage, void *);
    void (*pack_direct)(const float *, int, int, int, tf_storage, void *);
    size_t (*wide_scratch)(const tf_convolution *);
    size_t (*direct_scratch)(const tf_convolution *);
    void (*wide)(const tf_convolution *, float *);
    void (*direct)(const tf_convolution *, float *);
};

/// Single to half precision, to nearest even, without the instructions that not every processor has.
static inline unsigned short to_half(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    const unsigned sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return sign | 0x7c00 | (magnitude > 0x7f800000 ? 0x200 : 0);
    if (magnitude >= 0x477ff000) return sign | 0x7c00;
    if (magnitude < 0x38800000) {  // subnormal: adding 1/2 leaves the rounded multiple of 2^-24 in the low bits
        float y;
        memcpy(&y, &magnitude, 4);
        y += 0.5f;
        memcpy(&bits, &y, 4);
        return sign | (bits - 0x3f000000);
    }
    return sign | (magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13;
}

/// Single precision to bfloat16, to nearest even.
static inline unsigned short to_bfloat16(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/// Stores `count` weights from number `at` on.
static inline void tf_store_weights(const float *weights, size_t count, tf_storage storage, void *packed, size_t at) {
    unsigned short *to = (unsigned short *)packed + at;
    switch (storage) {
    case TF_FLOAT32: memcpy((float *)packed + at, weights, count * sizeof(float)); break;
    case TF_FLOAT16: for (size_t i = 0; i < count; i++) to[i] = to_half(weights[i]); break;
    case TF_BFLOAT16: for (size_t i = 0; i < count; i++) to[i] = to_bfloat16(weights[i]); break;
    }
}

#define NAME(x) x##_baseline
#define LANES 4
#define ROWS 6
#define ROWS3 4
#define EACH_ROW_COUNT(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4) M(W, 5) M(W, 6)
#define EACH_ROW_COUNT3(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4)
#define MINIMUM(a, b) ((vector_baseline)_mm_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_baseline)_mm_max_ps(a, b))
#include "kernels.inc"
#include "convolution.inc"
#undef NAME
#undef LANES
#undef MINIMUM
#undef MAXIMUM

#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define NAME(x) x##_avx2
#define LANES 8
#define MINIMUM(a, b) ((vector_avx2)_mm256_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_avx2)_mm256_max_ps(a, b))
#include "kernels.inc"
#include "convolution.inc"
#undef NAME
#undef LANES
#undef ROWS
#undef ROWS3
#undef EACH_ROW_COUNT
#undef EACH_ROW_COUNT3
#undef MINIMUM
#undef MAXIMUM
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx512f,avx2,fma,prfchw"))), apply_to = function)
#define NAME(x) x##_avx512
#define LANES 16
#define ROWS 14
#define ROWS3 9
#define EACH_ROW_COUNT3(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4) M(W, 5) M(W, 6) M(W, 7) M(W, 8) M(W, 9)
#define EACH_ROW_COUNT(M, W) EACH_ROW_COUNT3(M, W) M(W, 10) M(W, 11) M(W, 12) M(W, 13) M(W, 14)
#define MINIMUM(a, b) ((vector_avx512)_mm512_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_avx512)_mm512_max_ps(a, b))
#include "kernels.inc"
#include "convolution.inc"
#pragma clang attribute pop

static const struct tf_functions *functions(tf_isa isa) {
    switch (isa) {
    case TF_AVX512: return &functions_avx512;
    case TF_AVX2: return &functions_avx2;
    default: return &functions_baseline;
    }
}

tf_isa tf_best_isa(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return TF_BASELINE;
    // What SkylakeX has, since OpenBLAS is told that the processor is one.
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) return TF_AVX512;
    return TF_AVX2;
}

int tf_lanes(tf_isa isa) { return functions(isa)->lanes; }

size_t tf_winograd_weights(tf_isa isa, int outputs, int inputs, int upsample) {
    return (size_t)(upsample ? 25 : 36) * inputs * ROUND_UP(outputs, tf_lanes(isa));
}
void tf_pack_winograd(tf_isa isa, const float *weights, int outputs, int inputs, int upsample, float *packed) {
    functions(isa)->pack_winograd(weights, outputs, inputs, upsample, packed);
}
size_t tf_winograd_scratch(tf_isa isa, const tf_convolution *c) { return functions(isa)->winograd_scratch(c); }
void tf_winograd(tf_isa isa, const tf_convolution *c, float *scratch) { functions(isa)->winograd(c, scratch); }
void tf_moments(tf_isa isa, const float *data, size_t pixels, int channels, double *moments) {
    functions(isa)->moments(data, pixels, channels, moments);
}
void tf_scale_shift(tf_isa isa, const float *data, size_t pixels, int channels, const float *scale, const float *shift, int silu, float *output) {
    functions(isa)->scale_shift(data, pixels, channels, scale, shift, silu, output);
}
void tf_softmax(tf_isa isa, float *data, size_t rows, size_t columns, size_t stride, float scale) {
    functions(isa)->softmax(data, rows, columns, stride, scale);
}

// MARK: wide convolutions

static const struct tf_convolution_functions *convolution_functions(tf_isa isa) {
    switch (isa) {
    case TF_AVX512: return &convolution_functions_avx512;
    case TF_AVX2: return &convolution_functions_avx2;
    default: return &convolution_functions_baseline;
    }
}

size_t tf_direct_weights(tf_isa isa, int outputs, int inputs, int kernel) {
    return (size_t)kernel * kernel * inputs * ROUND_UP(outputs, tf_lanes(isa));
}
void tf_pack_wide(tf_isa isa, const float *weights, int outputs, int inputs, tf_storage storage, void *packed) {
    convolution_functions(isa)->pack_wide(weights, outputs, inputs, storage, packed);
}
void tf_pack_direct(tf_isa isa, const float *weights, int outputs, int inputs, int kernel, tf_storage storage, void *packed) {
    convolution_functions(isa)->pack_direct(weights, outputs, inputs, kernel, storage, packed);
}
size_t tf_wide_scratch(tf_isa isa, const tf_convolution *c) { return convolution_functions(isa)->wide_scratch(c); }
size_t tf_direct_scratch(tf_isa isa, const tf_convolution *c) { return convolution_functions(isa)->direct_scratch(c); }
void tf_wide(tf_isa isa, const tf_convolution *c, float *scratch) { convolution_functions(isa)->wide(c, scratch); }
void tf_direct(tf_isa isa, const tf_convolution *c, float *scratch) { convolution_functions(isa)->direct(c, scratch); }
