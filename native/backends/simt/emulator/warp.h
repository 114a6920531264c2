// The meeting of a warp's lanes, for the instructions that are built on it. Internal to the emulator.
#pragma once

#include "backends/simt/emulator/state.h"

namespace culebra::simt {

// Waits until every lane of the mask has called with the same mask and instruction (and, if aligned, from the same place); the
// last one runs `compute` on everybody's arguments.
void meet(Thread& self, uint32_t mask, bool aligned, void* argument, void (*compute)(Meeting&, Block&),
          const Site& site);

}  // namespace culebra::simt
