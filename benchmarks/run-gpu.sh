#!/usr/bin/env bash
# Everything that needs a GPU, in one call of at most ten minutes: run it from the repository's root on the GPU machine.
#   benchmarks/run-gpu.sh BUNDLE.tar.xz RESULTS_FOLDER
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

nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv >"$results/gpu.csv" 2>&1
step doctor 60 "$culebra" doctor --json
step probes 60 sh -c "'$culebra' probes >'$results/probes.txt'"
step verify 180 "$culebra" verify --backend cuda --json "$results/verify.json" tests/cases
step tests 180 "$culebra" test --json "$results/tests.json"
step bench 120 "$culebra" bench --backend cuda --json
step jmh 240 "$work/culebra-bundle/runtime/bin/java" --sun-misc-unsafe-memory-access=allow \
  -Dculebra.library="$work/culebra-bundle/lib/libculebra.so" -jar "$(find "$work/culebra-bundle" -name "*benchmarks.jar")" \
  --quick --backend cuda --results "$results" --commit "$(git describe --always --dirty --abbrev=12 --exclude="*" 2>/dev/null || echo unknown)"
if command -v compute-sanitizer >/dev/null; then
  step memcheck 180 compute-sanitizer --error-exitcode 9 "$culebra" verify --backend cuda tests/cases/w4a16_gemm tests/cases/gemm
  step racecheck 180 compute-sanitizer --tool racecheck --error-exitcode 9 "$culebra" verify --backend cuda tests/cases/w4a16_gemm
fi
cat "$results/summary.txt"
exit $failed
