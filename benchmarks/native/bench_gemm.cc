// Times the matrix products on the cpu through the C ABI, beside the limits that memory and arithmetic set and beside other libraries.
// Without an option on the first model's layers; --quick: on the first layer alone; --full: on every layer.
//   bench_gemm [--quick | --full] [--threads N] [--only OP] [--rows M,M,...] [--commit TEXT]
// Prints one JSON object on standard output. Weights rotate over 256 MB; every result is checked before it is timed.
#include <cstdio>
#include <cstdlib>

#include "families.h"

namespace {

using namespace bench;

std::vector<int64_t> numbers(const char* list) {
  std::vector<int64_t> values;
  for (char* end; *list; list = *end ? end + 1 : end) values.push_back(std::strtoll(list, &end, 10));
  return values;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--quick") options.quick = true;
    else if (argument == "--full") options.full = true;
    else if (argument == "--threads" && i + 1 < argc) options.threads = std::atoi(argv[++i]);
    else if (argument == "--only" && i + 1 < argc) options.only = argv[++i];
    else if (argument == "--rows" && i + 1 < argc) options.rows = numbers(argv[++i]);
    else if (argument == "--commit" && i + 1 < argc) options.commit = argv[++i];
    else {
      std::fprintf(stderr, "usage: bench_gemm [--quick | --full] [--threads N] [--only OP] [--rows M,M,...] [--commit TEXT]\n");
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  Device device(options.threads);
  const PeerLibraries libraries(device.threads());
  // In memory of the library's own, whose pages are those of the operands.
  const auto bandwidth = [&device] {
    const Matrix memory(device, kU8, {int64_t{512} << 20});
    return read_bandwidth_gb_s(device.threads(), memory.data(), memory.bytes());
  };
  const Limits limits{bandwidth(), arithmetic_peak(device.threads())};
  Row head;
  head.text("benchmark", "gemm").text("commit", options.commit).text("device", device.info().name);
  head.text("instruction_set", device.info().detail).integer("threads", device.threads());
  head.number("read_bandwidth_gb_s", limits.bandwidth_gb_s);
  head.number("f32_peak_gflop_s", limits.peak.f32_gflop_s).number("i16_peak_gop_s", limits.peak.i16_gop_s);
  head.text("openblas", libraries.openblas.found() ? libraries.openblas.name() : "none");
  head.text("ggml", libraries.ggml.found() ? libraries.ggml.name() : "none");
  const std::string fields = head.json();
  std::printf("%s,\n  \"rows\": [\n", fields.substr(0, fields.size() - 1).c_str());

  const std::vector<Layer> layers = read_layers();
  for (const Layer& layer : layers) {
    const bool target = &layer == &layers.front();
    if (!target && !options.full && (options.quick || layer.model != layers.front().model)) continue;
    Bench bench(device, options, limits, libraries, layer);
    bench_packed(bench);
    bench_dense(bench);
  }
  // Other work on the machine would show here.
  std::printf("\n  ],\n  \"read_bandwidth_after_gb_s\": %.5g}\n", bandwidth());
  return 0;
}
