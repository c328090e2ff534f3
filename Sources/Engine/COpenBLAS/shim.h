// Debian puts cblas.h on the default search path by its alternatives system, whichever BLAS is installed;
// openblas_set_num_threads and openblas_get_corename are OpenBLAS's own and stand in the same header there.
#include <cblas.h>
