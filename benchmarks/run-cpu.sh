#!/usr/bin/env bash
# The families' benchmarks on this machine's cpu, in one command: at most 20 minutes; the results are for committing, when the machine was quiet.
#   [PYTHON=python3] [BUILD=build/benchmarks] [CULEBRA_LIBRARY=FILE] benchmarks/run-cpu.sh [OUT] [--quick] [--only FAMILY]
# OUT: benchmarks/results/<device> if not given. FAMILY: attention, sparse_attention, kv_cache, linear_attention or moe. Python needs numpy, and
# torch for the peers (the cpu's: pip install torch). CULEBRA_LIBRARY: one that is built already. Leaves a JSON a family, the plots, and families.md with every row; fails if any step did.
set -uo pipefail
cd "$(dirname "$0")/.."
out= quick= only=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=--quick ;;
    --only) only=$2; shift ;;
    *) out=$1 ;;
  esac
  shift
done
model=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)
device=$(printf '%s' "${model:-cpu}" | tr '[:upper:]' '[:lower:]' | tr -cs '[:alnum:]' '-' | sed 's/-$//')-$(nproc)c
out=${out:-benchmarks/results/$device}
build=${BUILD:-build/benchmarks} python=${PYTHON:-python3}
mkdir -p "$out"
cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCULEBRA_BENCHMARKS=ON -DCULEBRA_CUDA=OFF >/dev/null || exit 1
targets=(bench_limits)
[ -n "${CULEBRA_LIBRARY:-}" ] || targets+=(culebra)
ninja -C "$build" -j "$(nproc)" "${targets[@]}" >&2 || exit 1
library=${CULEBRA_LIBRARY:-$build/libculebra.so}
"$python" -c 'import torch' 2>/dev/null || echo "run-cpu.sh: $python has no torch: no peers" >&2
commit=$(git describe --always --dirty --abbrev=12 --exclude='*')
failed=0

family() {  # family NAME MINUTES OPTIONS...: benchmarks/NAME/bench_NAME.py
  local name=$1 minutes=$2
  shift 2
  [ -z "$only" ] || [ "$only" = "$name" ] || return 0
  "$python" "benchmarks/$name/bench_$name.py" --device cpu --library "$library" --limits "$build/bench_limits" --commit "$commit" \
    --minutes "$minutes" --output "$out/$name.json.part" $quick "$@" && mv "$out/$name.json.part" "$out/$name.json" || { failed=1; echo "failed: $name" >&2; }
}

plot() {  # plot FAMILY JSON...: benchmarks/FAMILY/plot.py, where all of the results are there
  local name=$1 json files=()
  shift
  for json in "$@"; do
    [ -f "$out/$json.json" ] || return 0
    files+=("$out/$json.json")
  done
  "$python" "benchmarks/$name/plot.py" "${files[@]}" "$out/$name.svg" || failed=1
}

family attention 3
family sparse_attention 3.5 --flex
family kv_cache 3
family linear_attention 4
family moe 6
[ -n "$only" ] || "$python" benchmarks/gemm/quantization_error.py --library "$library" --check >/dev/null || failed=1
plot attention attention sparse_attention kv_cache
plot linear_attention linear_attention
plot moe moe
"$python" benchmarks/common/table.py $(for name in attention sparse_attention kv_cache linear_attention moe; do
  [ -f "$out/$name.json" ] && echo "$out/$name.json"; done) >"$out/families.md" || failed=1
exit $failed
