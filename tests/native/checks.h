// The groups of checks, each in a file of its name.
#pragma once

#include "harness.h"

// The definition's way back against finite differences of its forward.
void check_gradients(Harness& harness);

// Packing, and products without a recurrence.
void check_products(Harness& harness);

// The kernels against the definition in double, every law, option and size.
void check_agreement(Harness& harness);

// Diagonal laws: their definition, the kernels against it, and what must hold to the bit.
void check_diagonal(Harness& harness);

// What must hold to the bit: alone = in a batch = in any order = in chunks = on any threads; NaN stays in its row.
void check_bits(Harness& harness);
