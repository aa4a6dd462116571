// Runs the kernels on a problem, every buffer between canaries.
#pragma once

#include "cases.h"

// Which of the optional outputs of a scan are asked for.
enum Keep : unsigned {
    kGates = 1,
    kXhat = 2,  // of both norms, with rstd
    kMemory = 4,
    kChat = 8,  // with rstd_c
    kM = 16,
    kEverything = 31,
};

struct Run {
    int threads = 1;
    unsigned keep = kEverything;
    bool in_place = false;  // h_last is h0, c_last is c0; back, d is gates, du is xhat
};

// Outputs that the options do not have, or that were not asked for, are left empty. Throws Failure where something
// was written outside an output.
Result scan(const Problem& q, const Run& run = {});
Gradients scan_back(const Problem& q, const Result& k, const Run& run = {});

// W [outputs, inputs], element (o, i) at w[o * row + i * column], as pack() leaves it.
Floats pack(int64_t outputs, int64_t inputs, const Floats& w, int64_t row, int64_t column, int threads, int64_t gates,
            bool half);

// y = x W^T + b; b may be empty.
Floats affine(int64_t rows, int64_t inputs, int64_t outputs, const Floats& x, const Floats& w, const Floats& b,
              int threads, bool half);

