#include "image.h"

#include <elf.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>
#include <sstream>

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

// One ".param .u64 x" or ".param .align 4 .b8 x[16]", at the next offset that suits it.
static Parameter read_parameter(const std::string& text, size_t end_of_last) {
  std::istringstream words(text);
  size_t bytes = 0, alignment = 0;
  for (std::string word; words >> word;) {
    if (word == ".align") words >> alignment;
    else if (word.size() > 2 && word[0] == '.' && std::isdigit(word[2])) bytes = std::stoul(word.substr(2)) / 8;
    else if (const size_t count = word.find('['); count != std::string::npos) bytes *= std::stoul(word.substr(count + 1));
    if (!alignment) alignment = bytes;
  }
  const size_t offset = (end_of_last + alignment - 1) / alignment * alignment;
  return {offset, bytes};
}

bool read_ptx(const std::string& text, Image& out, std::string& log) {
  const size_t target = text.find(".target sm_");
  if (target == std::string::npos) {
    log = "ptxas fatal : Missing .target directive";
    return false;
  }
  out.architecture = std::atoi(text.c_str() + target + std::strlen(".target sm_"));
  if (const size_t bad = text.find("bogus"); bad != std::string::npos) {
    log = "ptxas error : Not a name of any known instruction: '" + text.substr(bad, text.find('\n', bad) - bad) + "'";
    return false;
  }
  const std::string entry = ".entry ";
  for (size_t at = text.find(entry); at != std::string::npos; at = text.find(entry, at + 1)) {
    const size_t name = at + entry.size(), open = text.find('(', name), close = text.find(')', open);
    if (close == std::string::npos) break;
    Kernel kernel{text.substr(name, open - name), {}, 0, 32};
    std::istringstream list(text.substr(open + 1, close - open - 1));
    size_t end = 0;
    for (std::string each; std::getline(list, each, ',');) {
      if (each.find(".param") == std::string::npos) continue;  // an empty list
      kernel.parameters.push_back(read_parameter(each, end));
      end = kernel.parameters.back().offset + kernel.parameters.back().bytes;
    }
    out.kernels.push_back(std::move(kernel));
  }
  return true;
}

}  // namespace fake
