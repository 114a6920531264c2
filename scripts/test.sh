#!/usr/bin/env bash
# Everything that is tested without a GPU, in the order in which it fails fastest. Stops at the first failure.
# Each stage says what it is; the last line counts them. --all: the kernels under the sanitizers too, half an hour more to compile; the dev
# build's emulation checks their accesses by itself.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
cd "$root"
sanitized=asan sanitized_backends=cpu
if [ "${1:-}" = --all ]; then sanitized=asan-simt sanitized_backends="cpu and simt"; fi
need_jdk
need_packages "${build_packages[@]}" "${test_packages[@]}"

stages=0
stage() { stages=$((stages + 1)); printf '\n==> %s\n' "$*"; }
build_preset() {  # build_preset NAME OPTION...
  local preset=$1
  shift
  cmake --preset "$preset" "$@" >/dev/null
  cmake --build "build/$preset"
}

# Where nvcc is found every CUDA source is compiled too (one architecture), so that kernels never rot.
if command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then cuda=ON; else cuda=OFF; fi

stage "native library: cpu, simt with every check, cuda compiled: $cuda"
build_preset dev -DCULEBRA_CUDA=$cuda -DCULEBRA_CUDA_ARCHITECTURES=90a-real

stage "native tests"
ctest --test-dir build/dev --output-on-failure -j2

stage "Java: bindings, API, inference, command line, conformance, contract, agreement (cpu and simt must run)"
mvn -B -ntp verify -Dculebra.library="$root/build/dev/libculebra.so" -Dculebra.expected.backends=cpu,simt

stage "native tests under AddressSanitizer and UndefinedBehaviorSanitizer: $sanitized_backends"
build_preset "$sanitized"
ctest --test-dir "build/$sanitized" --output-on-failure -j2

stage "native tests under ThreadSanitizer: cpu"
build_preset tsan
ctest --test-dir build/tsan --output-on-failure -j2

# The dev build has the release's code and flags, and more beside it: one library is compiled less.
export CULEBRA_LIBRARY="$root/build/dev/libculebra.so"

stage "the main job: text from the sample checkpoint, by the README's command"
./culebra generate --prompt "In the beginning" --max-tokens 16

stage "conformance cases by the command line: cpu (the Java suites run them on every backend)"
./culebra verify --backend cpu tests/cases

stage "documents: every path and link resolves, the support table matches the code"
CULEBRA_CUDA=$cuda scripts/check_docs.sh

printf '\n%d stages passed, 0 failed\n' "$stages"
