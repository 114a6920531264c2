#!/usr/bin/env bash
# Everything that needs a GPU, in one call: run it from the repository's root on the GPU machine.
#   [PART=tests|benchmarks] [MARLIN=FOLDER] [GEMM_MINUTES=4] [LINEAR_ATTENTION_MINUTES=4] benchmarks/run-gpu.sh BUNDLE.tar.xz RESULTS_FOLDER
# PART: one half alone, for machines whose calls are limited to ten minutes. MARLIN: a folder with the built package of
# github.com/IST-DASLab/marlin, a peer of the matrix products beside torch's cuBLAS. GEMM_MINUTES: for the matrix products' rows.
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

run_tests() {
  step probes 60 sh -c "'$culebra' probes >'$results/probes.txt'"
  step verify 180 "$culebra" verify --backend cuda --json "$results/verify.json" tests/cases
  step tests 180 "$culebra" test --json "$results/tests.json"
  command -v compute-sanitizer >/dev/null || return 0
  step memcheck 180 compute-sanitizer --error-exitcode 9 "$culebra" verify --backend cuda tests/cases/w4a16_gemm tests/cases/gemm
  step racecheck 180 compute-sanitizer --tool racecheck --error-exitcode 9 "$culebra" verify --backend cuda tests/cases/w4a16_gemm
}

run_benchmarks() {
  local library=$work/culebra-bundle/lib/libculebra.so commit
  commit=$(git describe --always --dirty --abbrev=12 --exclude="*" 2>/dev/null || echo unknown)
  step gemm 540 python3 benchmarks/gemm/bench_gemm.py --library "$library" --output "$results/gemm.json" --minutes "${GEMM_MINUTES:-4}" \
    --commit "$commit" ${MARLIN:+--marlin "$MARLIN"}
  step gemm-invariant 120 python3 benchmarks/gemm/bench_gemm.py --library "$library" --output "$results/gemm_batch_invariant.json" --batch-invariant \
    --minutes 1.5 --commit "$commit"
  [ -f "$results/gemm.json" ] && step gemm-plot 10 python3 benchmarks/plot_speedup.py "$results/gemm.json" "$results/gemm.svg"
  step linear-attention 420 python3 benchmarks/linear_attention/bench_linear_attention.py --library "$library" \
    --output "$results/linear_attention.json" --minutes "${LINEAR_ATTENTION_MINUTES:-4}" --commit "$commit"
  [ -f "$results/linear_attention.json" ] && step linear-plot 10 python3 benchmarks/linear_attention/plot.py "$results/linear_attention.json" \
    "$results/linear_attention.svg"
  step attention 330 python3 benchmarks/attention/bench_attention.py --library "$library" --output "$results/attention.json" --minutes 5 --commit "$commit"
  step sparse-attention 330 python3 benchmarks/sparse_attention/bench_sparse_attention.py --library "$library" \
    --output "$results/sparse_attention.json" --minutes 5 --commit "$commit"
  step kv-cache 330 python3 benchmarks/kv_cache/bench_kv_cache.py --library "$library" --output "$results/kv_cache.json" --minutes 5 --commit "$commit"
  [ -f "$results/attention.json" ] && [ -f "$results/sparse_attention.json" ] && [ -f "$results/kv_cache.json" ] && step attention-plot 10 \
    python3 benchmarks/attention/plot.py "$results"/{attention,sparse_attention,kv_cache}.json "$results/attention.svg"
  step moe 330 python3 benchmarks/moe/bench_moe.py --library "$library" --output "$results/moe.json" --minutes 5 --commit "$commit"
  [ -f "$results/moe.json" ] && step moe-plot 10 python3 benchmarks/moe/plot.py "$results/moe.json" "$results/moe.svg"
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
