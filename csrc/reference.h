// The definition, in plain loops: what every target must equal to the bit, and what runs where no target fits.
#pragma once

#include "kernels.h"

namespace segue::reference {

void affine(const Affine& call);
void scan_elman(const Elman& call);
void scan_lstm(const Lstm& call);
void scan_gru(const Gru& call);

}  // namespace segue::reference
