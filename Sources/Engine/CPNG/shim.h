// libpng reports an error by longjmp, which must not cross a Swift frame. So every call that can fail stands here behind
// its own setjmp and answers with a bool; the reason waits in the stream's `message` and `error_number`.
//
// A longjmp needs its setjmp's function still running (C11, 7.13.2.1): each function below sets the jump buffer anew and
// returns only after libpng has. After a failure a stream may only be closed.

#ifndef CPNG_SHIM_H
#define CPNG_SHIM_H

#include <errno.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <png.h>
#include <zlib.h>

// A function that calls setjmp must keep a frame of its own.
#define CPNG_CALL static inline __attribute__((noinline))

// Declared by the system's headers only for _GNU_SOURCE, which comes too late here.
int syncfs(int descriptor);
int sync_file_range(int descriptor, __off64_t offset, __off64_t count, unsigned int flags);
int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags);
#ifndef SYNC_FILE_RANGE_WRITE
#define SYNC_FILE_RANGE_WRITE 2
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

typedef struct {
    png_structp png;
    png_infop info;
    FILE *file;
    int error_number;    // errno at the failure; 0 when the file itself is at fault
    char message[160];   // libpng's words
} cpng_stream;

typedef struct {
    png_uint_32 width, height;
    int bit_depth, color_type;   // as stored: depth 1 to 16, PNG_COLOR_TYPE_*
    bool interlaced;
} cpng_header;

static inline void cpng_note(cpng_stream *stream, const char *message) {
    stream->error_number = errno;
    strncpy(stream->message, message, sizeof stream->message - 1);
}

static inline void cpng_on_error(png_structp png, png_const_charp message) {
    cpng_note((cpng_stream *)png_get_error_ptr(png), message);
    png_longjmp(png, 1);
}

// libpng would print warnings on stderr, which belongs to the program's log.
static inline void cpng_on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static inline void cpng_close(cpng_stream *stream) {
    if (stream == NULL) return;
    if (stream->png != NULL) {
        png_destroy_read_struct(&stream->png, &stream->info, NULL);
    }
    if (stream->file != NULL) fclose(stream->file);
    free(stream);
}

// Takes over the descriptor, which is closed here when there is no memory (NULL).
static inline cpng_stream *cpng_open(int descriptor) {
    cpng_stream *stream = (cpng_stream *)calloc(1, sizeof(cpng_stream));
    FILE *file = fdopen(descriptor, "rb");
    if (file == NULL) close(descriptor);
    if (stream == NULL || file == NULL) {
        if (file != NULL) fclose(file);
        free(stream);
        return NULL;
    }
    setvbuf(file, NULL, _IOFBF, 1 << 18);
    stream->file = file;
    stream->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, stream, cpng_on_error, cpng_on_warning);
    stream->info = stream->png != NULL ? png_create_info_struct(stream->png) : NULL;
    if (stream->info == NULL) {
        cpng_close(stream);
        return NULL;
    }
    return stream;
}

// Whether reading stopped because the file ended.
static inline bool cpng_at_end(cpng_stream *stream) {
    return feof(stream->file) != 0;
}

// Reads up to the pixels. Allocates nothing that grows with the image.
CPNG_CALL bool cpng_read_header(cpng_stream *stream, cpng_header *header) {
    png_structp png = stream->png;
    errno = 0;
    if (setjmp(png_jmpbuf(png))) return false;
    png_init_io(png, stream->file);
    // libpng refuses more than a million pixels a side unless told otherwise; rows are read one at a time, and the
    // caller has limits of its own.
    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    // Colour profiles, gamma, text and the like are not used; a broken one shall not cost the picture.
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(png, stream->info);
    header->width = png_get_image_width(png, stream->info);
    header->height = png_get_image_height(png, stream->info);
    header->bit_depth = png_get_bit_depth(png, stream->info);
    header->color_type = png_get_color_type(png, stream->info);
    header->interlaced = png_get_interlace_type(png, stream->info) != PNG_INTERLACE_NONE;
    return true;
}

// Asks for rows of 8 or 16 bits (big endian) in 1 to 4 channels: palettes, small greys and tRNS expanded.
CPNG_CALL bool cpng_start_rows(cpng_stream *stream, int *channels, int *bit_depth, size_t *row_bytes) {
    png_structp png = stream->png;
    errno = 0;
    if (setjmp(png_jmpbuf(png))) return false;
    png_set_expand(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, stream->info);
    *channels = png_get_channels(png, stream->info);
    *bit_depth = png_get_bit_depth(png, stream->info);
    *row_bytes = png_get_rowbytes(png, stream->info);
    return true;
}

// Reads `rows` rows of a sequential image, or all passes of an interlaced one, whose `rows` must be its height.
CPNG_CALL bool cpng_read_rows(cpng_stream *stream, unsigned char *pixels, size_t capacity, size_t rows, bool interlaced) {
    png_structp png = stream->png;
    size_t row_bytes = png_get_rowbytes(png, stream->info);
    errno = 0;
    if (setjmp(png_jmpbuf(png))) return false;
    if (row_bytes == 0 || rows > capacity / row_bytes) png_error(png, "row buffer too small");
    for (int pass = 0; pass < (interlaced ? 7 : 1); pass += 1) {
        for (size_t y = 0; y < rows; y += 1) png_read_row(png, pixels + y * row_bytes, NULL);
    }
    return true;
}

// Reads what follows the pixels, so that a cut tail is found.
CPNG_CALL bool cpng_read_end(cpng_stream *stream) {
    errno = 0;
    if (setjmp(png_jmpbuf(stream->png))) return false;
    png_read_end(stream->png, NULL);
    return true;
}

#endif
