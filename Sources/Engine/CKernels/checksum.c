#include "CKernels.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

// CRC-32C (Castagnoli): the polynomial 0x1EDC6F41, its bits reversed, as iSCSI has it (RFC 3720, appendix B.4) and SSE4.2 computes it.
#define POLYNOMIAL 0x82f63b78u

// Three sums run side by side over neighbouring blocks: the instruction takes three cycles to answer, and one can begin in every cycle.
#define BLOCK 1024

/// How eight bytes at a time are done without the instruction: tables[k][b] is what byte b does to the sum k bytes later.
static uint32_t tables[8][256];
/// after_block[k][b]: what byte k of a sum, if it is b, has become after a block of zeros. A sum is the exclusive or of what its bytes become.
static uint32_t after_block[4][256];

static inline uint32_t one_by_table(uint32_t sum, uint8_t byte) { return sum >> 8 ^ tables[0][(sum ^ byte) & 255]; }
static inline uint32_t eight_by_table(uint32_t sum, uint64_t word) {
    word ^= sum;
    sum = 0;
    for (int k = 0; k < 8; k++) sum ^= tables[7 - k][word >> 8 * k & 255];
    return sum;
}

__attribute__((constructor)) static void make_tables(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t sum = b;
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (sum & 1 ? POLYNOMIAL : 0);
        tables[0][b] = sum;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 255];
    for (int bit = 0; bit < 32; bit++) {
        uint32_t sum = 1u << bit;
        for (int i = 0; i < BLOCK; i += 8) sum = eight_by_table(sum, 0);
        for (int b = 0; b < 256; b++)
            if (b >> bit % 8 & 1) after_block[bit / 8][b] ^= sum;
    }
}

static inline uint64_t eight(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

// A value is infinite or not a number where all bits of its exponent are set: one more carries into the sign's place.
struct elements { uint64_t exponent, one, carry; size_t size; };
static const struct elements elements_of[] = {
    [TF_BYTES] = {0, 0, 0, 1},
    [TF_FLOATS] = {0x7f8000007f800000, 0x0080000000800000, 0x8000000080000000, 4},
    [TF_DOUBLES] = {0x7ff0000000000000, 0x0010000000000000, 0x8000000000000000, 8},
    [TF_HALVES] = {0x7c007c007c007c00, 0x0400040004000400, 0x8000800080008000, 2},
};

static uint32_t checksum_baseline(const uint8_t *bytes, size_t count, struct elements e, uint64_t *carries) {
    uint32_t sum = ~0u;
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint64_t word = eight(bytes + i);
        sum = eight_by_table(sum, word);
        *carries |= (word & e.exponent) + e.one;
    }
    for (; i < count; i++) sum = one_by_table(sum, bytes[i]);
    return ~sum;
}

static inline uint32_t past_block(uint32_t sum) {
    return after_block[0][sum & 255] ^ after_block[1][sum >> 8 & 255] ^ after_block[2][sum >> 16 & 255] ^ after_block[3][sum >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t checksum_sse42(const uint8_t *bytes, size_t count, struct elements e, uint64_t *carries) {
    uint64_t sum = ~0u, seen = 0;
    size_t i = 0;
    for (; i + 3 * BLOCK <= count; i += 3 * BLOCK) {
        uint64_t second = 0, third = 0;
        for (size_t k = i; k < i + BLOCK; k += 8) {
            const uint64_t a = eight(bytes + k), b = eight(bytes + BLOCK + k), c = eight(bytes + 2 * BLOCK + k);
            sum = _mm_crc32_u64(sum, a);
            second = _mm_crc32_u64(second, b);
            third = _mm_crc32_u64(third, c);
            seen |= ((a & e.exponent) + e.one) | ((b & e.exponent) + e.one) | ((c & e.exponent) + e.one);
        }
        sum = past_block(past_block((uint32_t)sum) ^ (uint32_t)second) ^ (uint32_t)third;
    }
    for (; i + 8 <= count; i += 8) {
        const uint64_t word = eight(bytes + i);
        sum = _mm_crc32_u64(sum, word);
        seen |= (word & e.exponent) + e.one;
    }
    for (; i < count; i++) sum = _mm_crc32_u8((uint32_t)sum, bytes[i]);
    *carries |= seen;
    return ~(uint32_t)sum;
}

uint32_t tf_checksum(tf_isa isa, const void *data, size_t count, tf_elements kind, int *finite) {
    const struct elements e = elements_of[kind];
    const uint8_t *bytes = data;
    uint64_t carries = 0;
    const uint32_t sum = isa == TF_BASELINE ? checksum_baseline(bytes, count, e, &carries) : checksum_sse42(bytes, count, e, &carries);
    // The last whole elements, and zeros.
    uint64_t last = 0;
    const size_t rest = count % 8 / e.size * e.size;
    if (rest > 0) memcpy(&last, bytes + count - count % 8, rest);
    carries |= (last & e.exponent) + e.one;
    *finite = !(carries & e.carry);
    return sum;
}
