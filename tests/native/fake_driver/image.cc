#include "image.h"

#include <elf.h>

#include <algorithm>
#include <cstring>
#include <regex>

namespace fake {
namespace {

// Attributes of a .nv.info section, of which each is: format (1 byte), attribute (1), then a value (2) or a size (2) and
// as many bytes.
constexpr uint8_t kFormatSized = 4;
constexpr uint8_t kParameterInfo = 0x17;  // index (4), ordinal (2), offset (2), flags with the size from bit 18 on (4)
constexpr uint8_t kRegisterCount = 0x2f;  // symbol (4), registers (4)

template <class T>
T get(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

std::vector<Parameter> parameters_of(const char* info, size_t bytes) {
  std::vector<std::pair<unsigned, Parameter>> found;
  for (size_t at = 0; at + 4 <= bytes;) {
    const uint8_t kind = get<uint8_t>(info + at), attribute = get<uint8_t>(info + at + 1);
    const size_t size = kind == kFormatSized ? get<uint16_t>(info + at + 2) : 0;
    if (attribute == kParameterInfo && size >= 12) {
      const char* value = info + at + 4;
      found.push_back({get<uint16_t>(value + 4), {get<uint16_t>(value + 6), get<uint32_t>(value + 8) >> 18}});
    }
    at += 4 + size;
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Parameter> list;
  for (const auto& [ordinal, parameter] : found) list.push_back(parameter);
  return list;
}

}  // namespace

bool read_cubin(const char* elf, Image& out) {
  const auto header = get<Elf64_Ehdr>(elf);
  // The architecture stands in the lowest byte of the flags up to CUDA 12, in the second one since.
  out.architecture = static_cast<int>(header.e_ident[EI_ABIVERSION] >= 8 ? header.e_flags >> 8 & 0xFF : header.e_flags & 0xFF);
  out.exact = true;
  const auto section = [&](int i) { return get<Elf64_Shdr>(elf + header.e_shoff + static_cast<size_t>(i) * sizeof(Elf64_Shdr)); };
  const char* names = elf + section(header.e_shstrndx).sh_offset;
  const std::string text = ".text.", info = ".nv.info.", shared = ".nv.shared.";
  for (int i = 0; i < header.e_shnum; ++i) {
    const std::string name = names + section(i).sh_name;
    if (name.rfind(text, 0) == 0) out.kernels.push_back({name.substr(text.size()), {}, 0, static_cast<int>(section(i).sh_info >> 24)});
  }
  for (int i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr s = section(i);
    const std::string name = names + s.sh_name;
    for (Kernel& kernel : out.kernels) {
      if (name == info + kernel.name) kernel.parameters = parameters_of(elf + s.sh_offset, s.sh_size);
      if (name == shared + kernel.name) kernel.static_shared_bytes = static_cast<int>(s.sh_size);
    }
  }
  return true;
}

bool read_ptx(const std::string& text, Image& out, std::string& log) {
  std::smatch found;
  if (!std::regex_search(text, found, std::regex("\\.target\\s+sm_(\\d+)"))) {
    log = "ptxas fatal : Missing .target directive";
    return false;
  }
  out.architecture = std::stoi(found[1]);
  if (std::regex_search(text, found, std::regex("bogus[^\\n]*"))) {
    log = "ptxas error : Not a name of any known instruction: '" + found[0].str() + "'";
    return false;
  }
  const std::regex entry("\\.entry\\s+([A-Za-z_$][\\w$]*)\\s*\\(([^)]*)\\)");
  const std::regex parameter("\\.param\\s+\\.(?:align\\s+(\\d+)\\s+\\.)?([a-z])(\\d+)[^,\\[]*(?:\\[(\\d+)\\])?");
  for (std::sregex_iterator e(text.begin(), text.end(), entry), end; e != end; ++e) {
    Kernel kernel{(*e)[1], {}, 0, 32};
    const std::string list = (*e)[2];
    size_t offset = 0;
    for (std::sregex_iterator p(list.begin(), list.end(), parameter); p != end; ++p) {
      const size_t size = std::stoul((*p)[3]) / 8, count = (*p)[4].matched ? std::stoul((*p)[4]) : 1;
      const size_t alignment = (*p)[1].matched ? std::stoul((*p)[1]) : size;
      offset = (offset + alignment - 1) / alignment * alignment;
      kernel.parameters.push_back({offset, size * count});
      offset += size * count;
    }
    out.kernels.push_back(std::move(kernel));
  }
  return true;
}

}  // namespace fake
