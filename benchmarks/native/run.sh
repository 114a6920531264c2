#!/usr/bin/env bash
# The native benchmarks of this machine's cpu, in one command; the result is for committing.
#   [CULEBRA_GGML=libggml-cpu.so] benchmarks/native/run.sh [--quick | --full] [--threads N] [--only OP] [--rows M,M,...]
# Builds into build/benchmarks (BUILD=DIR for another folder) and writes benchmarks/results/<device>/native-gemm.json and .svg, and
# native-gemm-family.json: the family's other operators on the first layer.
# CULEBRA_GGML: ggml's cpu backend as a peer; README.md says how to build it.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
device=$(printf '%s' "${model:-cpu}" | tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]' '-' | sed 's/-$//')-$(nproc)c
build=${BUILD:-build/benchmarks}
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCULEBRA_BENCHMARKS=ON -DCULEBRA_CUDA=OFF >/dev/null
ninja -C "$build" -j "$(nproc)" bench_gemm >&2
commit=$(git describe --always --dirty --abbrev=12)
results=benchmarks/results/$device
mkdir -p "$results"
"$build/bench_gemm" --commit "$commit" "$@" >"$results/native-gemm.json.part"
mv "$results/native-gemm.json.part" "$results/native-gemm.json"
python3 benchmarks/plot_speedup.py "$results/native-gemm.json" "$results/native-gemm.svg"
python3 benchmarks/gemm/bench_gemm.py --backend cpu --library "$build/libculebra.so" --limits "$results/native-gemm.json" \
  --output "$results/native-gemm-family.json" --commit "$commit" --minutes 4 --quick
echo "$results/native-gemm.json"
