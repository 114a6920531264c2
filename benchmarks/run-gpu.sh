#!/usr/bin/env bash
# Everything that needs a GPU, in one call: run it from the repository's root on the GPU machine.
#   [PART=tests|benchmarks] [MINUTES=4] [FAMILIES="gemm moe"] [MARLIN=FOLDER] [SANITIZE="gemm w4a16_gemm"] benchmarks/run-gpu.sh BUNDLE.tar.xz RESULTS_FOLDER
# PART: one half alone, for machines whose calls are limited. MINUTES: for the rows of each family; what does not fit is left out, and listed:
# all seven steps of the benchmarks and JMH take six to nine times as long. FAMILIES: these alone, of gemm gemm-invariant linear-attention attention
# sparse-attention kv-cache moe jmh. MARLIN: a folder with the built package of github.com/IST-DASLab/marlin, a peer of the matrix products beside
# torch's cuBLAS. SANITIZE: operators whose cases run under compute-sanitizer, where there is one.
# Leaves one JSON a step, a log and a summary; commit them under benchmarks/results/<device>/. Fails if any step failed.
set -uo pipefail
bundle=$1
results=$2
mkdir -p "$results"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xJf "$bundle" || exit 1
culebra=$work/culebra-bundle/bin/culebra
export CULEBRA_HOME=$PWD
library=$work/culebra-bundle/lib/libculebra.so
commit=$(git describe --always --dirty --abbrev=12 --exclude="*" 2>/dev/null || echo unknown)
failed=0

step() {  # step NAME SECONDS COMMAND...
  local name=$1 seconds=$2 started rc
  shift 2
  started=$SECONDS
  timeout "$seconds" "$@" >"$results/$name.log" 2>&1
  rc=$?
  printf '%-18s rc %-3d %4d s\n' "$name" "$rc" $((SECONDS - started)) | tee -a "$results/summary.txt"
  [ "$rc" -eq 0 ] || { failed=1; tail -n 15 "$results/$name.log"; }
}

run_tests() {
  step probes 60 sh -c "'$culebra' probes >'$results/probes.txt'"
  step verify 180 "$culebra" verify --backend cuda --json "$results/verify.json" tests/cases
  step tests 180 "$culebra" test --json "$results/tests.json"
  command -v compute-sanitizer >/dev/null || return 0
  local cases=() operator
  for operator in ${SANITIZE:-w4a16_gemm gemm}; do cases+=("tests/cases/$operator"); done
  step memcheck 180 compute-sanitizer --error-exitcode 9 "$culebra" verify --backend cuda "${cases[@]}"
  step racecheck 180 compute-sanitizer --tool racecheck --error-exitcode 9 "$culebra" verify --backend cuda "${cases[@]}"
}

minutes=${MINUTES:-4}
limit=$(awk "BEGIN {print int($minutes * 60 + 90)}")  # the last row and the start of Python are not in a family's minutes
wanted() { [ -z "${FAMILIES:-}" ] || [[ " $FAMILIES " == *" $1 "* ]]; }
family() {  # family NAME SCRIPT [OPTION]...: benchmarks/SCRIPT
  local name=$1 script=$2
  shift 2
  wanted "$name" || return 0
  step "$name" "$limit" python3 "benchmarks/$script" --library "$library" --output "$results/${name//-/_}.json" --minutes "$minutes" \
    --commit "$commit" "$@"
}
plot() {  # plot NAME SCRIPT RESULT...: where all results are there
  local name=$1 script=$2 result files=()
  shift 2
  for result in "$@"; do
    [ -f "$results/$result.json" ] || return 0
    files+=("$results/$result.json")
  done
  step "$name-plot" 30 python3 "benchmarks/$script" "${files[@]}" "$results/$name.svg"
}

run_benchmarks() {
  family gemm gemm/bench_gemm.py ${MARLIN:+--marlin "$MARLIN"}
  family gemm-invariant gemm/bench_gemm.py --batch-invariant
  family linear-attention linear_attention/bench_linear_attention.py
  family attention attention/bench_attention.py
  family sparse-attention sparse_attention/bench_sparse_attention.py
  family kv-cache kv_cache/bench_kv_cache.py
  family moe moe/bench_moe.py
  plot gemm plot_speedup.py gemm
  plot linear_attention linear_attention/plot.py linear_attention
  plot attention attention/plot.py attention sparse_attention kv_cache
  plot moe moe/plot.py moe
  wanted jmh || return 0
  step bench 120 "$culebra" bench --backend cuda --json
  step jmh 240 "$work/culebra-bundle/runtime/bin/java" --sun-misc-unsafe-memory-access=allow \
    -Dculebra.library="$library" -jar "$(find "$work/culebra-bundle" -name "*benchmarks.jar")" \
    --quick --backend cuda --results "$results" --commit "$commit"
}

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$results/gpu.csv" 2>&1
step doctor 60 "$culebra" doctor --json
case ${PART:-all} in
  tests) run_tests ;;
  benchmarks) run_benchmarks ;;
  *) run_tests; run_benchmarks ;;
esac
cat "$results/summary.txt"
exit $failed
