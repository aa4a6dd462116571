#include "avx512-inl.h"

#include "kernels-inl.h"

const segue::Primitives segue::avx512_primitives = SEGUE_PRIMITIVES;
