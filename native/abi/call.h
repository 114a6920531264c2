// One operator call while it is checked: turns descriptors into views and refuses what the contract refuses. Checks are
// pure: nothing is launched, read from device memory, or changed.
#pragma once
#include <array>
#include <initializer_list>
#include <string>

#include "abi/dtype.h"
#include "abi/status.h"

namespace culebra {

inline constexpr int kMaxRank = 8;

// A checked tensor argument. Absent optional tensors are false and have a null data pointer.
struct View {
  const char* name = "";
  void* data = nullptr;
  DType dtype = DType::other;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // in elements
  bool present = false;

  explicit operator bool() const { return present; }
  int64_t operator[](int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t stride_of(int i) const { return stride[static_cast<size_t>(i)]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[static_cast<size_t>(i)];
    return n;
  }
  template <class T> T* as() const { return static_cast<T*>(data); }
};

struct DeviceCaps;  // backends/backend.h

class Call {
 public:
  Call(const char* op, const DeviceCaps& caps, const cul_op_call& call) : op_(op), caps_(caps), call_(call) {}

  const char* op() const { return op_; }
  const DeviceCaps& caps() const { return caps_; }
  bool batch_invariant() const { return call_.flags & CUL_OP_BATCH_INVARIANT; }
  bool validate() const { return call_.flags & CUL_OP_VALIDATE; }
  bool plan_only() const { return call_.flags & CUL_OP_PLAN_ONLY; }

  // Structure, device and dtype sanity; inner stride 1 and a 16-byte aligned base unless the tensor is empty.
  View required(const cul_tensor* t, const char* name) const;
  View optional(const cul_tensor* t, const char* name) const;
  // As above without the inner stride and base alignment rules (elementwise ops, any strides).
  View strided(const cul_tensor* t, const char* name) const;

  void rank(const View& v, int rank, const char* shape_text) const;
  // extents < 0 match anything; the text names the letters: "[T,D]".
  void shape(const View& v, std::initializer_list<int64_t> extents, const char* shape_text) const;
  void same_shape(const View& a, const View& b) const;
  void dtype(const View& v, std::initializer_list<DType> allowed) const;
  void same_dtype(const View& a, const View& b) const;
  // The whole tensor is one compact row-major run (for indices, scales, packed weights).
  void compact(const View& v) const;
  // No two elements of out share memory: ordered by stride, each dimension steps over the whole reach of the smaller ones.
  void distinct(const View& out) const;
  // No element of out is an element of in. same_allowed: they may also be exactly the same view.
  void disjoint(const View& out, const View& in, bool same_allowed = false) const;
  // A value outside its documented set.
  void flag(int32_t value, const char* name) const;  // 0 or 1
  void one_of(int64_t value, std::initializer_list<int64_t> allowed, const char* name) const;

  [[noreturn]] void refuse(cul_status status, const char* fmt, ...) const __attribute__((format(printf, 3, 4)));

  // The call's workspace if it is large enough; states the need. With PLAN_ONLY the result may be null.
  void* workspace(uint64_t bytes) const;
  // What cul_last_plan tells; call it only under plan_only().
  void explain(std::string text) const;

 private:
  View view(const cul_tensor* t, const char* name, bool free_strides) const;

  const char* op_;
  const DeviceCaps& caps_;
  const cul_op_call& call_;
};

// "[5120, 4096]"
std::string shape_text(const View& v);

}  // namespace culebra
