// The barrier of a whole grid (native/device/grid.h) as the emulated device provides it.
#pragma once

#include "backends/simt/emulator/emulator.h"

namespace culebra::simt {

// How often blocks of the running grid have arrived at its barrier: a word of global memory that begins as zero. Fails where not
// all blocks of the grid can run at once.
unsigned* grid_arrivals(Here here);

}  // namespace culebra::simt
