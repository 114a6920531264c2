// What a graph needs besides memory.
#pragma once
#include <memory>

namespace culebra {

// A stream whose captures keep things until after their graph. On the host backends the recorded work holds what it needs.
class GraphKeeper {
 public:
  virtual void keep_for_graph(std::shared_ptr<void> what) = 0;

 protected:
  ~GraphKeeper() = default;
};

}  // namespace culebra
