#include "CKernels.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

// The loops over bytes of writing PNG files and halving pictures. All are of integers, and give the same whatever the instruction set.

#define INLINE static inline __attribute__((always_inline))
#define AVX2 __attribute__((target("avx2,bmi2")))

// MARK: Filter

INLINE void filter(const uint8_t *restrict row, const uint8_t *restrict left, const uint8_t *restrict above, size_t count, uint8_t *restrict filtered) {
    for (size_t i = 0; i < count; i++) filtered[i] = row[i] - (uint8_t)((left[i] & above[i]) + ((left[i] ^ above[i]) >> 1));
}

// MARK: Adler

INLINE uint32_t adler32(uint32_t sum, const uint8_t *bytes, size_t count) {
    uint32_t low = sum & 0xffff, high = sum >> 16;
    // 64 columns of 16 rows, whose sums fit in 16 bits.
    for (; count >= 1024; bytes += 1024, count -= 1024) {
        uint16_t sums[64] = {0}, sums_before[64] = {0};
        for (int row = 0; row < 16; row++)
            for (int i = 0; i < 64; i++) {
                sums_before[i] += sums[i];
                sums[i] += bytes[64 * row + i];
            }
        uint32_t all = 0, weighted = 0;
        for (uint32_t i = 0; i < 64; i++) {
            all += sums[i];
            weighted += 64 * sums_before[i] + (64 - i) * sums[i];
        }
        high = (high + 1024 * low + weighted) % 65521;
        low = (low + all) % 65521;
    }
    for (size_t i = 0; i < count; i++) {
        low += bytes[i];
        high += low;
    }
    return low % 65521 | high % 65521 << 16;
}

// MARK: Deflate

INLINE uint64_t word_at(const uint8_t *bytes, size_t i) {
    uint64_t word;
    memcpy(&word, bytes + 8 * i, 8);
    return word;
}

/// How many words of eight bytes from the i-th on are like the byte before them, 32 at the most; 0: no run begins here.
INLINE size_t run_at(const uint8_t *bytes, size_t i, size_t words) {
    if (i == 0) return 0;
    const uint64_t repeated = bytes[8 * i - 1] * 0x0101010101010101u;
    size_t run = 0;
    while (run < 32 && i + run < words && word_at(bytes, i + run) == repeated) run++;
    return run;
}

void tf_deflate_counts(const uint8_t *bytes, size_t count, size_t step, uint32_t literals[256], uint32_t runs[33]) {
    // Four counts, so that equal neighbours do not wait for each other.
    uint32_t counts[4][256];
    memset(counts, 0, sizeof counts);
    memset(runs, 0, 33 * sizeof *runs);
    const size_t words = count / 8;
    // Another KiB of each group: rows of about a group's length would show the same columns every time.
    for (size_t i = 0, group = 0; 128 * (step * group + group % step) < words; group++) {
        const size_t first = 128 * (step * group + group % step), end = first + 128 < words ? first + 128 : words;
        // The last run may have gone further.
        for (i = i > first ? i : first; i < end;) {
            const size_t run = run_at(bytes, i, words);
            if (run) {
                runs[run]++;
                i += run;
                continue;
            }
            const uint64_t word = word_at(bytes, i++);
            for (int k = 0; k < 8; k++) counts[k % 4][word >> 8 * k & 255]++;
        }
    }
    for (size_t i = 8 * words; i < count; i++) counts[0][bytes[i]]++;
    for (int b = 0; b < 256; b++) literals[b] = counts[0][b] + counts[1][b] + counts[2][b] + counts[3][b];
}

/// The first lowest.
typedef struct { uint64_t bits; uint32_t count; } bit_string;
INLINE bit_string joined(bit_string a, bit_string b) { return (bit_string){a.bits | b.bits << a.count, a.count + b.count}; }

/// With at most 7 bits that have not filled a byte yet.
typedef struct { bit_string rest; uint8_t *to; } stream;

/// At most 56 bits. Touches up to eight bytes behind those that it writes.
INLINE void put(stream *s, bit_string more) {
    s->rest = joined(s->rest, more);
    memcpy(s->to, &s->rest.bits, 8);
    s->to += s->rest.count >> 3;
    s->rest.bits >>= s->rest.count & ~7u;
    s->rest.count &= 7;
}

typedef struct { uint32_t literals[256]; const tf_code *runs; } code_table;  // a literal's bits * 256 + their count

INLINE bit_string literal(const code_table *table, uint64_t byte) { return (bit_string){table->literals[byte & 255] >> 8, table->literals[byte & 255] & 255}; }
INLINE bit_string four(const code_table *table, uint64_t word) {
    return joined(joined(literal(table, word), literal(table, word >> 8)), joined(literal(table, word >> 16), literal(table, word >> 24)));
}

/// Writes the i-th word or the run that begins there.
/// - Returns: the next.
INLINE size_t put_word(stream *s, const code_table *table, const uint8_t *bytes, size_t i, size_t words) {
    const uint64_t word = word_at(bytes, i);
    const size_t run = run_at(bytes, i, words);
    if (__builtin_expect(run != 0, 0)) {
        put(s, (bit_string){table->runs[run].bits, table->runs[run].count});
        return i + run;
    }
    const bit_string low = four(table, word), high = four(table, word >> 32);
    if (__builtin_expect(low.count + high.count <= 56, 1)) {
        put(s, joined(low, high));
    } else {
        put(s, low);
        put(s, high);
    }
    return i + 1;
}

INLINE void encode(stream *out, const code_table *table, const uint8_t *bytes, size_t count) {
    stream local = *out, *s = &local;  // in registers: for all that is known, what is written could be the stream itself
    const size_t words = count / 8;
    for (size_t i = 0; i < words;) i = put_word(s, table, bytes, i, words);
    for (size_t i = 8 * words; i < count; i++) put(s, literal(table, bytes[i]));
    *out = local;
}

#define VBMI __attribute__((target("avx2,bmi2,avx512f,avx512bw,avx512vbmi")))

/// Entries of a table of 256 bytes.
VBMI INLINE __m512i looked_up(const __m512i table[4], __m512i at) {
    return _mm512_mask_blend_epi8(
        _mm512_movepi8_mask(at), _mm512_permutex2var_epi8(table[0], at, table[1]), _mm512_permutex2var_epi8(table[2], at, table[3]));
}

/// Eight words at a time where none is a run: codes are looked up by permutations and joined to those of two, four and eight bytes.
VBMI static void encode_vbmi(stream *out, const code_table *table, const uint8_t *bytes, size_t count) {
    stream local = *out, *s = &local;  // see `encode`
    uint8_t parts[3][256];
    for (int b = 0; b < 256; b++) {
        parts[0][b] = (uint8_t)(table->literals[b] >> 8);
        parts[1][b] = (uint8_t)(table->literals[b] >> 16);
        parts[2][b] = (uint8_t)table->literals[b];
    }
    __m512i low[4], high[4], length[4];
    for (int k = 0; k < 4; k++) {
        low[k] = _mm512_loadu_si512(parts[0] + 64 * k);
        high[k] = _mm512_loadu_si512(parts[1] + 64 * k);
        length[k] = _mm512_loadu_si512(parts[2] + 64 * k);
    }
    const __m512i of16 = _mm512_set1_epi16(0xff), of32 = _mm512_set1_epi32(0xffff), of64 = _mm512_set1_epi64(0xffffffff);
    const size_t words = count / 8;
    size_t i = words > 0 ? put_word(s, table, bytes, 0, words) : 0;
    while (i + 8 <= words) {
        const __m512i byte = _mm512_loadu_si512(bytes + 8 * i), before = _mm512_loadu_si512(bytes + 8 * i - 1);
        if (__builtin_expect(_mm512_cmpeq_epi64_mask(byte, before) != 0, 0)) {
            for (const size_t end = i + 8; i < end;) i = put_word(s, table, bytes, i, words);
            continue;
        }
        const __m512i l = looked_up(low, byte), h = looked_up(high, byte), n = looked_up(length, byte);
        // Of each pair of neighbours the first (a) and the second (b), then both (ab); lengths (n) likewise.
        const __m512i a1 = _mm512_or_si512(_mm512_and_si512(l, of16), _mm512_slli_epi16(h, 8));
        const __m512i b1 = _mm512_or_si512(_mm512_srli_epi16(l, 8), _mm512_andnot_si512(of16, h));
        const __m512i na1 = _mm512_and_si512(n, of16), nab1 = _mm512_add_epi16(na1, _mm512_srli_epi16(n, 8));
        const __m512i a2 = _mm512_or_si512(_mm512_and_si512(a1, of32), _mm512_sllv_epi32(_mm512_and_si512(b1, of32), _mm512_and_si512(na1, of32)));
        const __m512i b2 = _mm512_or_si512(_mm512_srli_epi32(a1, 16), _mm512_sllv_epi32(_mm512_srli_epi32(b1, 16), _mm512_srli_epi32(na1, 16)));
        const __m512i na2 = _mm512_and_si512(nab1, of32), nab2 = _mm512_add_epi32(na2, _mm512_srli_epi32(nab1, 16));
        const __m512i a4 = _mm512_or_si512(_mm512_and_si512(a2, of64), _mm512_sllv_epi64(_mm512_and_si512(b2, of64), _mm512_and_si512(na2, of64)));
        const __m512i b4 = _mm512_or_si512(_mm512_srli_epi64(a2, 32), _mm512_sllv_epi64(_mm512_srli_epi64(b2, 32), _mm512_srli_epi64(na2, 32)));
        const __m512i na4 = _mm512_and_si512(nab2, of64), nb4 = _mm512_srli_epi64(nab2, 32), nab4 = _mm512_add_epi64(na4, nb4);
        uint64_t bits[2][8], counts[2][8];
        if (__builtin_expect(_mm512_cmpgt_epu64_mask(nab4, _mm512_set1_epi64(56)) == 0, 1)) {
            _mm512_storeu_si512(bits[0], _mm512_or_si512(a4, _mm512_sllv_epi64(b4, na4)));
            _mm512_storeu_si512(counts[0], nab4);
            for (int k = 0; k < 8; k++) put(s, (bit_string){bits[0][k], (uint32_t)counts[0][k]});
        } else {
            _mm512_storeu_si512(bits[0], a4);
            _mm512_storeu_si512(bits[1], b4);
            _mm512_storeu_si512(counts[0], na4);
            _mm512_storeu_si512(counts[1], nb4);
            for (int k = 0; k < 8; k++) {
                put(s, (bit_string){bits[0][k], (uint32_t)counts[0][k]});
                put(s, (bit_string){bits[1][k], (uint32_t)counts[1][k]});
            }
        }
        i += 8;
    }
    while (i < words) i = put_word(s, table, bytes, i, words);
    for (i = 8 * words; i < count; i++) put(s, literal(table, bytes[i]));
    *out = local;
}

static void encode_baseline(stream *s, const code_table *table, const uint8_t *bytes, size_t count) { encode(s, table, bytes, count); }
AVX2 static void encode_avx2(stream *s, const code_table *table, const uint8_t *bytes, size_t count) { encode(s, table, bytes, count); }

size_t tf_deflate_encode(
    tf_isa isa, const uint8_t *bytes, size_t count, const tf_code literals[256], const tf_code runs[33], uint64_t *bits, uint32_t *bit_count,
    uint8_t *output) {
    code_table table;
    for (int b = 0; b < 256; b++) table.literals[b] = literals[b].bits << 8 | literals[b].count;
    table.runs = runs;
    stream s = {{*bits, *bit_count}, output};
    const int vbmi = isa == TF_AVX512 && __builtin_cpu_supports("avx512vbmi");
    (vbmi ? encode_vbmi : isa == TF_BASELINE ? encode_baseline : encode_avx2)(&s, &table, bytes, count);
    *bits = s.rest.bits;
    *bit_count = s.rest.count;
    return (size_t)(s.to - output);
}

// MARK: Halving

/// Sums of neighbours, wanted or not, which takes no strides; then every other pixel of them.
INLINE void halve(const uint8_t *restrict above, const uint8_t *restrict below, size_t width, size_t channels, uint8_t *restrict half) {
    enum { PIXELS = 128 };
    uint8_t means[2 * PIXELS * 3];
    const size_t pairs = width / 2;
    for (size_t first = 0; first < pairs; first += PIXELS) {
        const size_t count = pairs - first < PIXELS ? pairs - first : PIXELS, at = 2 * first * channels;
        for (size_t i = 0; i < (2 * count - 1) * channels; i++)
            means[i] = (uint8_t)((above[at + i] + above[at + i + channels] + below[at + i] + below[at + i + channels] + 2) >> 2);
        for (size_t x = 0; x < count; x++)
            for (size_t c = 0; c < channels; c++) half[(first + x) * channels + c] = means[2 * x * channels + c];
    }
    if (width % 2)
        for (size_t c = 0; c < channels; c++)
            half[pairs * channels + c] = (uint8_t)((above[2 * pairs * channels + c] + below[2 * pairs * channels + c] + 1) >> 1);
}

// MARK: Variants

#define VARIANT(name, target_attribute)                                                                                                              \
    target_attribute static void filter_##name(const uint8_t *row, const uint8_t *left, const uint8_t *above, size_t count, uint8_t *filtered) {     \
        filter(row, left, above, count, filtered);                                                                                                   \
    }                                                                                                                                                \
    target_attribute static uint32_t adler32_##name(uint32_t sum, const uint8_t *bytes, size_t count) { return adler32(sum, bytes, count); }         \
    target_attribute static void halve_##name(const uint8_t *above, const uint8_t *below, size_t width, int channels, uint8_t *half) {               \
        if (channels == 1)                                                                                                                           \
            halve(above, below, width, 1, half);                                                                                                     \
        else                                                                                                                                         \
            halve(above, below, width, 3, half);                                                                                                     \
    }
VARIANT(baseline, )
VARIANT(avx2, AVX2)

void tf_png_filter(tf_isa isa, const uint8_t *row, const uint8_t *left, const uint8_t *above, size_t count, uint8_t *filtered) {
    (isa == TF_BASELINE ? filter_baseline : filter_avx2)(row, left, above, count, filtered);
}

uint32_t tf_adler32(tf_isa isa, uint32_t sum, const uint8_t *bytes, size_t count) {
    return (isa == TF_BASELINE ? adler32_baseline : adler32_avx2)(sum, bytes, count);
}

void tf_halve(tf_isa isa, const uint8_t *above, const uint8_t *below, size_t width, int channels, uint8_t *half) {
    (isa == TF_BASELINE ? halve_baseline : halve_avx2)(above, below, width, channels, half);
}
