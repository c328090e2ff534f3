// The loops that need the processor's vector instructions. One source, the .inc files, is compiled three times (AVX-512, AVX2 with FMA, and
// what every x86-64 has); the caller says which to run. Every function is single-threaded, keeps no state, and sums in a fixed order.
//
// Words: an activation is height x width x channels, channels innermost, dense, and readable for 64 bytes past its end. `lanes` is the
// number of floats in a vector of the chosen kernels; a padded channel count is rounded up to a multiple of it.
#ifndef CKERNELS_H
#define CKERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum { TF_BASELINE = 0, TF_AVX2 = 1, TF_AVX512 = 2 } tf_isa;

/// The best kernels that this processor and its operating system can run.
tf_isa tf_best_isa(void);
/// Whether the processor has dot products of bfloat16 pairs (AVX512-BF16), and whether they are faster than float32: twice on AMD's Zen 4 and
/// later and on Cooper Lake, half as fast on Intel's later ones, which have AMX for it.
int tf_has_bfloat16_dots(void);
int tf_has_fast_bfloat16_dots(void);
/// Floats in a vector.
int tf_lanes(tf_isa isa);

/// One activation, or part of the channels of a concatenation.
typedef struct {
    const float *data;
    int channels;
} tf_source;

/// How packed weights stand in memory. TF_BFLOAT16_DOTS: in pairs, for the processor's dot products of bfloat16 (only TF_AVX512 where
/// tf_has_bfloat16_dots says so, and only linear layers); the input is rounded to bfloat16, too.
typedef enum { TF_FLOAT32 = 0, TF_FLOAT16 = 1, TF_BFLOAT16 = 2, TF_BFLOAT16_DOTS = 3 } tf_storage;

/// A 1x1 or 3x3 convolution with everything that can be done while its data passes by.
typedef struct {
    tf_source source[2];  ///< concatenated in channels; source[1].channels may be 0
    int height, width;    ///< of the sources
    const float *scale, *shift;  ///< per input channel: reads silu(x * scale + shift); NULL: reads x
    int kernel;           ///< 1 or 3
    int stride;           ///< 1 or 2
    int pad;              ///< zeros above and to the left; below and to the right there are as many as the output needs
    int upsample;         ///< 1: reads the sources enlarged twice by nearest neighbour
    const void *weights;  ///< as tf_pack_winograd, tf_pack_wide or tf_pack_direct made them
    tf_storage storage;   ///< of the weights (float32 for tf_winograd)
    const float *bias;    ///< padded channels
    float *output;
    int output_height, output_width, output_channels;
    const float *residual;        ///< like output, added to it; NULL: none
    tf_source shortcut[2];        ///< with shortcut_weights: a 1x1 convolution of these, of the output's size, is added; its bias is in `bias`
    const float *shortcut_weights; ///< NULL: none
    double *moments;      ///< per output channel its sum, then (from the padded channel count on) its sum of squares; NULL: not wanted
} tf_convolution;

/// Winograd's F(4x4, 3x3) (Lavin & Gray, arXiv:1509.09308) for narrow layers: 3x3, stride 1, pad 1. The weights are packed transformed,
/// four times as large, and meet a few tiles at a time, so that everything stays in the second-level cache.
size_t tf_winograd_weights(tf_isa isa, int outputs, int inputs, int upsample);  ///< floats
void tf_pack_winograd(tf_isa isa, const float *weights, int outputs, int inputs, int upsample, float *packed);  ///< outputs x inputs x 3 x 3
size_t tf_winograd_scratch(tf_isa isa, const tf_convolution *c);  ///< floats, 64-byte aligned
void tf_winograd(tf_isa isa, const tf_convolution *c, float *scratch);

/// The same for wide layers, whose weights are read as they are and transformed on the way, block by block. No shortcut.
void tf_pack_wide(tf_isa isa, const float *weights, int outputs, int inputs, tf_storage storage, void *packed);  ///< tf_direct_weights elements
size_t tf_wide_scratch(tf_isa isa, const tf_convolution *c);
void tf_wide(tf_isa isa, const tf_convolution *c, float *scratch);

/// Any kernel, stride and upsampling as a matrix product over the taps. No shortcut.
size_t tf_direct_weights(tf_isa isa, int outputs, int inputs, int kernel);  ///< elements
void tf_pack_direct(tf_isa isa, const float *weights, int outputs, int inputs, int kernel, tf_storage storage, void *packed);
size_t tf_direct_scratch(tf_isa isa, const tf_convolution *c);
void tf_direct(tf_isa isa, const tf_convolution *c, float *scratch);

/// Sums and sums of squares per channel, laid out as tf_convolution.moments.
void tf_moments(tf_isa isa, const float *data, size_t pixels, int channels, double *moments);
/// output = data * scale + shift per channel, through SiLU if `silu`.
void tf_scale_shift(tf_isa isa, const float *data, size_t pixels, int channels, const float *scale, const float *shift, int silu, float *output);
/// Each row: exp(scale * (x - max)) / sum, in place.
void tf_softmax(tf_isa isa, float *data, size_t rows, size_t columns, size_t stride, float scale);

/// Types of the numbers that bytes are.
typedef enum { TF_BYTES = 0, TF_FLOATS = 1, TF_DOUBLES = 2, TF_HALVES = 3 } tf_elements;
/// CRC-32C of the bytes, and in the same pass whether no element is infinite or not a number.
uint32_t tf_checksum(tf_isa isa, const void *data, size_t count, tf_elements kind, int *finite);

// Writing PNG files (RFC 1950, RFC 1951, PNG specification 9.2): the same bytes whatever the instruction set.

/// The average filter: each byte less half the sum of those to its left and above, rounded down. `left` is `row` a pixel earlier, zeros before the first.
void tf_png_filter(tf_isa isa, const uint8_t *row, const uint8_t *left, const uint8_t *above, size_t count, uint8_t *filtered);
/// Adler-32, from 1 or the sum of what came before.
uint32_t tf_adler32(tf_isa isa, uint32_t sum, const uint8_t *bytes, size_t count);

/// A code of deflate, its first bit lowest.
typedef struct { uint32_t bits, count; } tf_code;
/// How often each byte and each run occurs, in one of `step` KiB. Words of eight bytes that are like the byte before them are runs, of at most 32 such words;
/// words that are not, and the bytes behind the last whole one, stand for themselves.
void tf_deflate_counts(const uint8_t *bytes, size_t count, size_t step, uint32_t literals[256], uint32_t runs[33]);
/// Writes the codes of all of it: of literals at most 14 bits, of runs at most 56.
/// - bits, bit_count: those that have not filled a byte yet, fewer than 8
/// - output: 7 / 4 of `count` and 8 bytes are enough for every code
/// Returns the whole bytes written.
size_t tf_deflate_encode(
    tf_isa isa, const uint8_t *bytes, size_t count, const tf_code literals[256], const tf_code runs[33], uint64_t *bits, uint32_t *bit_count,
    uint8_t *output);

/// Means of 2x2 pixels of 1 or 3 channels, halves upwards; the last of an odd width counts twice.
void tf_halve(tf_isa isa, const uint8_t *above, const uint8_t *below, size_t width, int channels, uint8_t *half);

// Transformers.

typedef enum { TF_GELU = 0, TF_QUICK_GELU = 1, TF_SILU = 2 } tf_activation;

/// x Phi(x), x sigmoid(1.702 x), or x sigmoid(x), in place.
void tf_activate(tf_isa isa, tf_activation kind, float *data, size_t count);
/// Each row of 2 * channels: output = the first half * gelu(the second half).
void tf_geglu(tf_isa isa, const float *data, size_t rows, int channels, float *output);
/// Each row: (x - mean) / sqrt(variance + eps) * gamma + beta; gamma and beta are readable up to the padded channels.
void tf_layer_norm(tf_isa isa, const float *data, size_t rows, int channels, const float *gamma, const float *beta, float eps, float *output);

/// output = input * weights + bias + residual for many rows.
typedef struct {
    int rows, inputs, outputs;
    const float *input;  ///< rows `input_step` floats apart
    ptrdiff_t input_step;
    tf_storage storage;
    int gated;           ///< value * gelu(gate), of twice as many weights: those of the values before those of the gates
    const void *weights; ///< as tf_pack_linear made them
    const float *bias;   ///< as tf_pack_bias made it
    const float *residual;  ///< NULL: none
    ptrdiff_t residual_step;
    float *output;
    ptrdiff_t output_step;
} tf_linear;

/// Bytes that the packed weights take, of which only shape, storage and `gated` are read; floats of the packed bias; floats of scratch memory.
size_t tf_linear_weights(tf_isa isa, const tf_linear *l);
size_t tf_linear_bias(tf_isa isa, const tf_linear *l);
size_t tf_linear_scratch(tf_isa isa, const tf_linear *l);
/// Packs weights of shape (outputs, inputs), or (2 * outputs, inputs) if gated, and as many biases (NULL: zeros).
void tf_pack_linear(tf_isa isa, const tf_linear *l, const float *weights, void *packed);
void tf_pack_bias(tf_isa isa, const tf_linear *l, const float *bias, float *packed);
void tf_multiply(tf_isa isa, const tf_linear *l, float *scratch);

/// softmax(query key^T / sqrt(width)) value, for each head; rows `..._step` floats apart, a head's channels side by side, heads side by side.
typedef struct {
    int queries, keys, heads, width;
    int causal;  ///< query i reads only the keys 0...i
    const float *query, *key, *value;
    ptrdiff_t query_step, key_step, value_step;
    float *output;
    ptrdiff_t output_step;
} tf_attention;

/// Floats of scratch memory.
size_t tf_attention_scratch(tf_isa isa, const tf_attention *a);
void tf_attend(tf_isa isa, const tf_attention *a, float *scratch);

/// Rows of half precision to single and, rounding to nearest, ties to even, back. Strides are in elements; see `tf_copy_rows`.
void tf_rows_from_half(const uint16_t *from, size_t from_stride, float *to, size_t to_stride, size_t rows, size_t count);
void tf_rows_to_half(const float *from, size_t from_stride, uint16_t *to, size_t to_stride, size_t rows, size_t count);

/// Philox4x32-10 of `count` counters, which differ in their first word: counter[0], counter[0] + 1, ... The four words of each block, place by place.
void tf_philox(tf_isa isa, const uint32_t counter[4], uint64_t key, size_t count, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d);
/// Two uniform words each to two independent normals, sqrt(-2 ln u) (cos, sin)(angle): the same bits whatever the instruction set.
void tf_box_muller(tf_isa isa, const uint32_t *radii, const uint32_t *angles, size_t count, float *cosines, float *sines);

// Pictures: the same bits whatever the instruction set.

/// `count` pixels, each the sum of four neighbouring ones of `row`, from starts[x] on, times the four weights of x. Reads and writes up to three
/// values beyond the last pixel's.
void tf_widen_row(const float *row, size_t channels, const int32_t *starts, const float *weights, size_t count, float *wide);
/// output = weights[0] * rows[0] + ... + weights[3] * rows[3].
void tf_weigh_rows(tf_isa isa, const float *const rows[4], const float weights[4], size_t count, float *output);
/// Values clamped to [0, 1] (NaN: 0) as steps of 255 or 65535, rounded to nearest with halves up, in one byte or two with the high one first.
void tf_quantize(tf_isa isa, const float *values, size_t count, int bits, uint8_t *samples);

/// Copies rows of so many bytes, whose starts are a stride apart. The next row is fetched meanwhile: where rows are short and far apart the processor
/// does not see what comes.
void tf_copy_rows(const void *from, size_t from_stride, void *to, size_t to_stride, size_t rows, size_t bytes);

#endif
