// What may be handed to the driver as a module.
#include <elf.h>

#include <cstring>

#include "backends/cuda/module.h"

namespace culebra::cuda {
namespace {

constexpr uint16_t kElfMachineCuda = 190;
constexpr uint32_t kFatbinMagic = 0xBA55ED50;

struct FatbinHeader {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t body_bytes;
};

[[noreturn]] void cut_short(const char* what, uint64_t bytes) {
  refuse(CUL_RANGE, "cul_module_load: the %s of %llu bytes was cut short", what, static_cast<unsigned long long>(bytes));
}

bool inside(uint64_t offset, uint64_t size, uint64_t bytes) { return offset <= bytes && size <= bytes - offset; }

void check_cubin(const char* image, uint64_t bytes) {
  Elf64_Ehdr header;
  if (bytes < sizeof header) cut_short("cubin", bytes);
  std::memcpy(&header, image, sizeof header);
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kElfMachineCuda)
    refuse(CUL_RANGE, "cul_module_load: the image is an ELF file, but not a 64-bit one for NVIDIA GPUs (machine %d)",
           header.e_machine);
  if (header.e_shnum && header.e_shentsize != sizeof(Elf64_Shdr)) cut_short("cubin", bytes);
  if (header.e_phnum && header.e_phentsize != sizeof(Elf64_Phdr)) cut_short("cubin", bytes);
  if (!inside(header.e_shoff, uint64_t{header.e_shnum} * sizeof(Elf64_Shdr), bytes) ||
      !inside(header.e_phoff, uint64_t{header.e_phnum} * sizeof(Elf64_Phdr), bytes))
    cut_short("cubin", bytes);
  for (int i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, image + header.e_shoff + static_cast<uint64_t>(i) * sizeof section, sizeof section);
    if (section.sh_type != SHT_NOBITS && !inside(section.sh_offset, section.sh_size, bytes)) cut_short("cubin", bytes);
  }
}

void check_fatbin(const char* image, uint64_t bytes) {
  FatbinHeader header;
  if (bytes < sizeof header) cut_short("fatbin", bytes);
  std::memcpy(&header, image, sizeof header);
  if (!inside(header.header_bytes, header.body_bytes, bytes)) cut_short("fatbin", bytes);
}

bool is_text(const std::string& text) {
  for (unsigned char c : text)
    if (c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != '\v') return false;
  return true;
}

}  // namespace

std::string checked_image(const void* pointer, uint64_t bytes) {
  const char* image = static_cast<const char*>(pointer);
  uint32_t magic = 0;
  if (bytes >= sizeof magic) std::memcpy(&magic, image, sizeof magic);
  if (bytes >= SELFMAG && std::memcmp(image, ELFMAG, SELFMAG) == 0) {
    check_cubin(image, bytes);
    return {image, bytes};
  }
  if (magic == kFatbinMagic) {
    check_fatbin(image, bytes);
    return {image, bytes};
  }
  while (bytes && image[bytes - 1] == 0) --bytes;
  std::string text(image, bytes);
  if (text.find(".version") == std::string::npos || !is_text(text))
    refuse(CUL_RANGE, "cul_module_load: the image of %llu bytes is neither a cubin, nor a fatbin, nor PTX",
           static_cast<unsigned long long>(bytes));
  return text;  // c_str() ends it
}

}  // namespace culebra::cuda
