// Where an emulated launch goes: the simt backend's stream, which runs its tasks in order when somebody synchronizes.
#pragma once

#include <functional>

namespace culebra::simt {

struct Queue {
  virtual void enqueue(std::function<void()> task) = 0;

 protected:
  ~Queue() = default;
};

}  // namespace culebra::simt
