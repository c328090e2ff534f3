#include "CKernels.h"

#include <immintrin.h>

// The same bits whatever the instruction set: each product and sum is rounded by itself, in the order in which they stand here.
#pragma STDC FP_CONTRACT OFF

#define INLINE static inline __attribute__((always_inline))

/// Four at a time. The products of each pixel come side by side, and change places to be summed.
static void widen_row_of_one(const float *row, const int32_t *starts, const float *weights, size_t count, float *wide) {
    for (size_t x = 0; x < count; x += 4, starts += 4, weights += 16) {
        __m128 sums[4];
        for (size_t i = 0; i < 4; i++)
            sums[i] = x + i < count ? _mm_loadu_ps(weights + 4 * i) * _mm_loadu_ps(row + starts[i]) : _mm_setzero_ps();
        _MM_TRANSPOSE4_PS(sums[0], sums[1], sums[2], sums[3]);
        _mm_storeu_ps(wide + x, sums[0] + sums[1] + sums[2] + sums[3]);
    }
}

INLINE void widen_row(const float *row, size_t channels, const int32_t *starts, const float *weights, size_t count, float *wide) {
    for (size_t x = 0; x < count; x++, weights += 4, wide += channels) {
        const float *pixel = row + starts[x] * channels;
        const __m128 w0 = _mm_set1_ps(weights[0]), w1 = _mm_set1_ps(weights[1]), w2 = _mm_set1_ps(weights[2]), w3 = _mm_set1_ps(weights[3]);
        // The next pixel overwrites what a step of four has written beyond this one.
        for (size_t c = 0; c < channels; c += 4, pixel += 4)
            _mm_storeu_ps(
                wide + c, w0 * _mm_loadu_ps(pixel) + w1 * _mm_loadu_ps(pixel + channels) + w2 * _mm_loadu_ps(pixel + 2 * channels) +
                    w3 * _mm_loadu_ps(pixel + 3 * channels));
    }
}

void tf_widen_row(const float *row, size_t channels, const int32_t *starts, const float *weights, size_t count, float *wide) {
    if (channels == 1) widen_row_of_one(row, starts, weights, count, wide);
    else if (channels == 3) widen_row(row, 3, starts, weights, count, wide);  // a constant takes a third off the time
    else widen_row(row, channels, starts, weights, count, wide);
}

INLINE void weigh_rows(const float *const rows[4], const float weights[4], size_t count, float *restrict output) {
    const float *const a = rows[0], *const b = rows[1], *const c = rows[2], *const d = rows[3];
    const float w0 = weights[0], w1 = weights[1], w2 = weights[2], w3 = weights[3];
    for (size_t i = 0; i < count; i++) output[i] = w0 * a[i] + w1 * b[i] + w2 * c[i] + w3 * d[i];
}

/// Values are in 0...65535.5, so nothing needs a check, and cutting off rounds down.
INLINE int32_t quantized(float value, float steps) {
    const float positive = value > 0 ? value : 0;  // 0 for NaN, too
    return (int32_t)((positive < 1 ? positive : 1) * steps + 0.5f);
}

INLINE void quantize(const float *values, size_t count, int bits, uint8_t *restrict samples) {
    if (bits == 8)
        for (size_t i = 0; i < count; i++) samples[i] = (uint8_t)quantized(values[i], 255);
    else
        for (size_t i = 0; i < count; i++) {
            const uint16_t sample = __builtin_bswap16((uint16_t)quantized(values[i], 65535));
            __builtin_memcpy(samples + 2 * i, &sample, 2);
        }
}

#define VARIANT(name, target_attribute)                                                                                                        \
    target_attribute static void weigh_rows_##name(const float *const rows[4], const float weights[4], size_t count, float *output) {          \
        weigh_rows(rows, weights, count, output);                                                                                              \
    }                                                                                                                                          \
    target_attribute static void quantize_##name(const float *values, size_t count, int bits, uint8_t *samples) {                              \
        quantize(values, count, bits, samples);                                                                                                \
    }
VARIANT(baseline, )
VARIANT(avx2, __attribute__((target("avx2"))))
VARIANT(avx512, __attribute__((target("avx512f,avx512bw"))))

void tf_weigh_rows(tf_isa isa, const float *const rows[4], const float weights[4], size_t count, float *output) {
    (isa == TF_AVX512 ? weigh_rows_avx512 : isa == TF_AVX2 ? weigh_rows_avx2 : weigh_rows_baseline)(rows, weights, count, output);
}

void tf_quantize(tf_isa isa, const float *values, size_t count, int bits, uint8_t *samples) {
    (isa == TF_AVX512 ? quantize_avx512 : isa == TF_AVX2 ? quantize_avx2 : quantize_baseline)(values, count, bits, samples);
}
