// What a test driver knows of a module: its kernels and their parameters, read from a cubin or from PTX text.
#pragma once
#include <string>
#include <vector>

namespace fake {

struct Parameter {
  size_t offset, bytes;
};

struct Kernel {
  std::string name;
  std::vector<Parameter> parameters;
  int static_shared_bytes = 0;
  int registers = 32;
};

struct Image {
  int architecture = 0;  // 80 for sm_80
  bool exact = false;    // a cubin runs on its own major version alone; PTX on what is newer, too
  std::vector<Kernel> kernels;
};

// False if it is no such image; *log says why, for PTX.
bool read_cubin(const char* elf, Image& out);
bool read_ptx(const std::string& text, Image& out, std::string& log);

}  // namespace fake
