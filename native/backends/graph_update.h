// Streams that can hand their capture over to a graph that exists. Every backend's stream is one.
#pragma once
#include "backends/backend.h"

namespace culebra {

class GraphUpdater {
 public:
  virtual ~GraphUpdater() = default;
  // Ends the capture; true if the instantiated graph was kept. If it throws, the graph is as before.
  virtual bool end_capture_into(Graph& graph) = 0;
};

}  // namespace culebra
