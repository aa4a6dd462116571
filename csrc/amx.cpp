// AVX-512, and AMX for products in half precision.
#include "avx512-inl.h"

#include "kernels-inl.h"

const segue::Primitives segue::amx_primitives = SEGUE_PRIMITIVES;
