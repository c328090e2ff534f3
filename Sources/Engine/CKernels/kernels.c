#include "CKernels.h"

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))

/// Bytes of transformed tiles that a Winograd convolution may hold, a third of a second-level cache of 2 MB.
#define WINOGRAD_BLOCK_BYTES (700 * 1024)

/// Tiles that a wide Winograd convolution works on at a time: 64, for which 48 inputs (440 KB), the transformed weights of 48 inputs and 64 outputs
/// (440 KB), and the products (590 KB) stay in that cache. Fewer tiles would transform the weights more often, which takes as long as products
/// with about 10 tiles; more of anything else measured slower.
#define WIDE_TILES 64
#define WIDE_INPUTS 48
/// Depth of what a direct convolution gathers at a time, for 8 * ROWS pixels: at most 460 KB.
#define DIRECT_DEPTH 1024

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

struct tf_transformer_functions {
    void (*activate)(tf_activation, float *, size_t);
    void (*geglu)(const float *, size_t, int, float *);
    void (*layer_norm)(const float *, size_t, int, const float *, const float *, float, float *);
};
struct tf_linear_functions {
    void (*multiply)(const tf_linear *, float *);
    void (*pack)(const tf_linear *, const float *, void *);
    void (*pack_bias)(const tf_linear *, const float *, float *);
};

struct tf_attention_functions {
    void (*attend)(const tf_attention *, float *);
    size_t (*scratch)(const tf_attention *);
};

/// Rows and depth of what is held of the left factor of a product: a quarter of a second-level cache of 2 MB, as outputs pass through it, too.
#define ROW_BLOCK 112
#define DEPTH_BLOCK 1280
/// Keys whose scores are held at a time.
#define KEY_BLOCK 256
#define ROWS_MOST 14  // of any variant's ROWS

static inline int depth_blocks(int depth) { return (depth + DEPTH_BLOCK - 1) / DEPTH_BLOCK; }
/// Even, but for the last one, as dot products want it.
static inline int depth_of_block(int depth, int blocks, int block) {
    const int each = ROUND_UP((depth + blocks - 1) / blocks, 2), left = depth - block * each;
    return left < each ? left : each;
}
static inline int linear_panels(const tf_linear *l, int lanes) {
    const int panel = l->gated ? lanes : 2 * lanes;
    return (l->outputs + panel - 1) / panel;
}

static inline uint32_t bits_of(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float float_of(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

/// To nearest, ties to even.
static inline uint16_t bfloat16_from(float x) {
    const uint32_t u = bits_of(x);
    return x == x ? (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16) : (uint16_t)(u >> 16 | 64);
}
static inline uint16_t half_from(float x) {
    const uint32_t sign = bits_of(x) & 0x80000000, u = bits_of(x) ^ sign;
    uint32_t half;
    if (u >= 0x47800000) half = u > 0x7f800000 ? 0x7e00 : 0x7c00;
    else if (u < 0x38800000) half = bits_of(float_of(u) + 0.5f) - 0x3f000000;  // subnormal: the addition rounds
    else half = (u - 0x38000000 + 0xfff + (u >> 13 & 1)) >> 13;
    return (uint16_t)(half | sign >> 16);
}

static inline float largest4(__m128 x) {
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
}

/// Four halves; without F16C by moving the fraction into place and the exponent by a multiplication.
static inline __m128 half4(const uint16_t *p) {
    const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64((const void *)p), _mm_setzero_si128());
    const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x7fff)), 13), sign = _mm_slli_epi32(_mm_srli_epi32(h, 15), 31);
    const __m128i special = _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x0f7fffff)), _mm_set1_epi32(0x7f800000));
    const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
    return _mm_or_ps(_mm_or_ps(scaled, _mm_castsi128_ps(special)), _mm_castsi128_ps(sign));
}

/// Stores `count` weights from number `at` on.
static inline void store_weights(const float *weights, size_t count, tf_storage storage, void *packed, size_t at) {
    uint16_t *to = (uint16_t *)packed + at;
    if (storage == TF_FLOAT32) memcpy((float *)packed + at, weights, count * sizeof(float));
    else if (storage == TF_FLOAT16) for (size_t i = 0; i < count; i++) to[i] = half_from(weights[i]);
    else for (size_t i = 0; i < count; i++) to[i] = bfloat16_from(weights[i]);
}

#define NAME(x) x##_baseline
#define LANES 4
#define ROWS 6
#define ROWS3 4
#define EACH_ROW_COUNT(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4) M(W, 5) M(W, 6)
#define EACH_ROW_COUNT3(M, W) M(W, 1) M(W, 2) M(W, 3) M(W, 4)
#define MINIMUM(a, b) ((vector_baseline)_mm_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_baseline)_mm_max_ps(a, b))
#define LARGEST(v) largest4((__m128)(v))
#define FROM_HALF(p) half4(p)
#define FROM_BFLOAT16(p) ((vector_baseline)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const void *)(p))))
#include "kernels.inc"
#include "convolution.inc"
#include "transformer.inc"
#include "linear.inc"
#include "attention.inc"
#undef NAME
#undef LANES
#undef MINIMUM
#undef MAXIMUM
#undef LARGEST
#undef FROM_HALF
#undef FROM_BFLOAT16

#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#define NAME(x) x##_avx2
#define LANES 8
#define MINIMUM(a, b) ((vector_avx2)_mm256_min_ps(a, b))
#define MAXIMUM(a, b) ((vector_avx2)_mm256_max_ps(a, b))
#define LARGEST(v) largest4(_mm_max_ps(_mm256_castps256_ps128((__m256)(v)), _mm256_extractf128_ps((__m256)(v), 1)))
#define FROM_HALF(p) ((vector_avx2)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(p))))
#define FROM_BFLOAT16(p) ((vector_avx2)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p))), 16))
#include "kernels.inc"
#include "convolution.inc"
#include "transformer.inc"
#include "linear.inc"
#include "attention.inc"
#undef NAME
#undef LANES
#undef ROWS
#undef ROWS3
#undef EACH_ROW_COUNT
#undef EACH_ROW_COUNT3
#undef MINIMUM
#undef MAXIMUM
#undef LARGEST
#undef FROM_HALF
#undef FROM_BFLOAT16
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
#define LARGEST(v) _mm512_reduce_max_ps((__m512)(v))
#define FROM_HALF(p) ((vector_avx512)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p))))
#define FROM_BFLOAT16(p) ((vector_avx512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p))), 16))
#include "kernels.inc"
#include "convolution.inc"
#include "transformer.inc"
#include "linear.inc"
#include "attention.inc"
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx512f,avx512bf16,avx2,fma,prfchw"))), apply_to = function)
#define V vector_avx512
#define load load_avx512
#define store store_avx512
#define splat splat_avx512
#define A_STEP (DEPTH_BLOCK + 16)
#define TILE(x) x##_dots
#define DOTS
#define ADD(sum, x, b) ((V)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(x), (__m512bh)(b)))
#include "tile.inc"
static void linear_dots(const tf_linear *l, float *scratch) { multiply_avx512(l, scratch, tiles_dots); }
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
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("f16c")) return TF_BASELINE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd")) return TF_AVX512;
    return TF_AVX2;
}

int tf_has_bfloat16_dots(void) { return tf_best_isa() == TF_AVX512 && __builtin_cpu_supports("avx512bf16"); }
int tf_has_fast_bfloat16_dots(void) {
    if (!tf_has_bfloat16_dots()) return 0;
    return __builtin_cpu_is("amd") || __builtin_cpu_is("cooperlake");
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

// MARK: linear layers

static const struct tf_linear_functions *linear_functions(tf_isa isa) {
    switch (isa) {
    case TF_AVX512: return &linear_functions_avx512;
    case TF_AVX2: return &linear_functions_avx2;
    default: return &linear_functions_baseline;
    }
}

size_t tf_linear_weights(tf_isa isa, const tf_linear *l) {
    const int panel = 2 * tf_lanes(isa);
    const size_t count = (size_t)linear_panels(l, tf_lanes(isa)) * panel * (l->storage == TF_BFLOAT16_DOTS ? ROUND_UP(l->inputs, 2) : l->inputs);
    return count * (l->storage == TF_FLOAT32 ? 4 : 2);
}
size_t tf_linear_bias(tf_isa isa, const tf_linear *l) { return (size_t)linear_panels(l, tf_lanes(isa)) * 2 * tf_lanes(isa); }
size_t tf_linear_scratch(tf_isa isa, const tf_linear *l) {
    const size_t rows = l->rows < ROW_BLOCK ? l->rows : ROW_BLOCK, panel = 2 * tf_lanes(isa), panels = linear_panels(l, tf_lanes(isa));
    const int keeps = depth_blocks(l->inputs) > 1 && (l->gated || l->outputs % panel);
    return rows * (DEPTH_BLOCK + 16) + DEPTH_BLOCK * panel + (keeps ? rows * panels * panel : ROWS_MOST * panel);
}
void tf_pack_linear(tf_isa isa, const tf_linear *l, const float *weights, void *packed) { linear_functions(isa)->pack(l, weights, packed); }
void tf_pack_bias(tf_isa isa, const tf_linear *l, const float *bias, float *packed) { linear_functions(isa)->pack_bias(l, bias, packed); }
void tf_multiply(tf_isa isa, const tf_linear *l, float *scratch) {
    if (l->storage == TF_BFLOAT16_DOTS) linear_dots(l, scratch);
    else linear_functions(isa)->multiply(l, scratch);
}

// MARK: attention

static const struct tf_attention_functions *attention_functions(tf_isa isa) {
    switch (isa) {
    case TF_AVX512: return &attention_functions_avx512;
    case TF_AVX2: return &attention_functions_avx2;
    default: return &attention_functions_baseline;
    }
}

size_t tf_attention_scratch(tf_isa isa, const tf_attention *a) { return attention_functions(isa)->scratch(a); }
void tf_attend(tf_isa isa, const tf_attention *a, float *scratch) { attention_functions(isa)->attend(a, scratch); }

// MARK: half precision

__attribute__((target("avx,f16c"))) static void from_half_f16c(const uint16_t *from, size_t count, float *to) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(from + i))));
    for (; i < count; i++) to[i] = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(from[i])));
}
__attribute__((target("avx,f16c"))) static void to_half_f16c(const float *from, size_t count, uint16_t *to) {
    size_t i = 0;
    for (; i + 8 <= count; i += 8) _mm_storeu_si128((void *)(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < count; i++) to[i] = half_from(from[i]);
}

static void from_half_baseline(const uint16_t *from, size_t count, float *to) {
    for (size_t i = 0; i < count; i++) {
        const uint16_t four[4] = {from[i]};
        to[i] = _mm_cvtss_f32(half4(four));
    }
}
static void to_half_baseline(const float *from, size_t count, uint16_t *to) {
    for (size_t i = 0; i < count; i++) to[i] = half_from(from[i]);
}

/// Where rows are short and far apart the processor does not see what comes.
static inline void fetch(const void *from, const void *to, size_t from_bytes, size_t to_bytes) {
    for (size_t i = 0; i < from_bytes; i += 64) __builtin_prefetch((const char *)from + i, 0, 2);
    for (size_t i = 0; i < to_bytes; i += 64) __builtin_prefetch((const char *)to + i, 1, 2);
}

void tf_rows_from_half(const uint16_t *from, size_t from_stride, float *to, size_t to_stride, size_t rows, size_t count) {
    void (*const row_from_half)(const uint16_t *, size_t, float *) = tf_best_isa() == TF_BASELINE ? from_half_baseline : from_half_f16c;
    for (; rows > 0; rows--, from += from_stride, to += to_stride) {
        if (rows > 1) fetch(from + from_stride, to + to_stride, 2 * count, 4 * count);
        row_from_half(from, count, to);
    }
}

void tf_rows_to_half(const float *from, size_t from_stride, uint16_t *to, size_t to_stride, size_t rows, size_t count) {
    void (*const row_to_half)(const float *, size_t, uint16_t *) = tf_best_isa() == TF_BASELINE ? to_half_baseline : to_half_f16c;
    for (; rows > 0; rows--, from += from_stride, to += to_stride) {
        if (rows > 1) fetch(from + from_stride, to + to_stride, 4 * count, 2 * count);
        row_to_half(from, count, to);
    }
}

// MARK: copies

void tf_copy_rows(const void *from, size_t from_stride, void *to, size_t to_stride, size_t rows, size_t bytes) {
    for (size_t row = 0; row < rows; row++) {
        const char *source = (const char *)from + row * from_stride;
        char *target = (char *)to + row * to_stride;
        if (row + 1 < rows) fetch(source + from_stride, target + to_stride, bytes, bytes);
        memcpy(target, source, bytes);
    }
}
