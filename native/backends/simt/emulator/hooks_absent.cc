// Linked where kernels are compiled without the hooks.
#include "backends/simt/emulator/config.h"

namespace culebra::simt {
bool hooks_linked() { return false; }
}  // namespace culebra::simt
