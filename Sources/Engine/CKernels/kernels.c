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
    void (*pack_direct)(const float *, int, int, int, float *);
    size_t (*winograd_scratch)(const tf_convolution *);
    size_t (*direct_scratch)(const tf_convolution *);
    void (*winograd)(const tf_convolution *, float *);
    void (*direct)(const tf_convolution *, float *);
    void (*moments)(const float *, size_t, int, double *);
    void (*scale_shift)(const float *, size_t, int, const float *, const float *, int, float *);
    void (*softmax)(float *, size_t, size_t, size_t, float);
};

struct tf_transformer_functions {
    void (*activate)(tf_activation, float *, size_t);
    void (*geglu)(const float *, size_t, int, float *);
    void (*layer_norm)(const float *, size_t, int, const float *, const float *, float, float *);
};

#define NAME(x) x##_baseline
#define LANES 4
#define ROWS 6
#define ROWS3 4
#define EACH_ROW_COUNT(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4) M(W, 5) M(W, 6)
#define EACH_ROW_COUNT3(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4)
#define MINIMUM(a, b) ((vector_baseline)_mm_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_baseline)_mm_max_ps(a, b))
#include "kernels.inc"
#include "transformer.inc"
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
#include "transformer.inc"
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
#include "transformer.inc"
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
size_t tf_direct_weights(tf_isa isa, int outputs, int inputs, int kernel) {
    return (size_t)kernel * kernel * inputs * ROUND_UP(outputs, tf_lanes(isa));
}
void tf_pack_winograd(tf_isa isa, const float *weights, int outputs, int inputs, int upsample, float *packed) {
    functions(isa)->pack_winograd(weights, outputs, inputs, upsample, packed);
}
void tf_pack_direct(tf_isa isa, const float *weights, int outputs, int inputs, int kernel, float *packed) {
    functions(isa)->pack_direct(weights, outputs, inputs, kernel, packed);
}
size_t tf_winograd_scratch(tf_isa isa, const tf_convolution *c) { return functions(isa)->winograd_scratch(c); }
size_t tf_direct_scratch(tf_isa isa, const tf_convolution *c) { return functions(isa)->direct_scratch(c); }
void tf_winograd(tf_isa isa, const tf_convolution *c, float *scratch) { functions(isa)->winograd(c, scratch); }
void tf_direct(tf_isa isa, const tf_convolution *c, float *scratch) { functions(isa)->direct(c, scratch); }
void tf_moments(tf_isa isa, const float *data, size_t pixels, int channels, double *moments) {
    functions(isa)->moments(data, pixels, channels, moments);
}
void tf_scale_shift(tf_isa isa, const float *data, size_t pixels, int channels, const float *scale, const float *shift, int silu, float *output) {
    functions(isa)->scale_shift(data, pixels, channels, scale, shift, silu, output);
}
void tf_softmax(tf_isa isa, float *data, size_t rows, size_t columns, size_t stride, float scale) {
    functions(isa)->softmax(data, rows, columns, stride, scale);
}

// MARK: transformers

static const struct tf_transformer_functions *transformer_functions(tf_isa isa) {
    switch (isa) {
    case TF_AVX512: return &transformer_functions_avx512;
    case TF_AVX2: return &transformer_functions_avx2;
    default: return &transformer_functions_baseline;
    }
}

void tf_activate(tf_isa isa, tf_activation kind, float *data, size_t count) { transformer_functions(isa)->activate(kind, data, count); }
void tf_geglu(tf_isa isa, const float *data, size_t rows, int channels, float *output) {
    transformer_functions(isa)->geglu(data, rows, channels, output);
}
void tf_layer_norm(tf_isa isa, const float *data, size_t rows, int channels, const float *gamma, const float *beta, float eps, float *output) {
    transformer_functions(isa)->layer_norm(data, rows, channels, gamma, beta, eps, output);
}
