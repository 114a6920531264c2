#!/usr/bin/env bash
# The JMH benchmarks in one command; the results are for committing, when the machine was quiet.
#   benchmarks/run.sh [--quick] [--backend cpu|cuda] [--results DIR]
# Writes jmh.json and two plots into benchmarks/results/<device>/. CULEBRA_LIBRARY=FILE takes a library that is built already.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
cd "$root"
need_jdk
need_packages "${build_packages[@]}"
if [ -z "${CULEBRA_LIBRARY:-}" ]; then
  ./culebra build
  CULEBRA_LIBRARY=$root/build/release/libculebra.so
fi
say "building the benchmarks"
mvn -q -B -ntp -pl benchmarks -am -Dmaven.test.skip=true package
commit=$(git describe --always --dirty --abbrev=12 --exclude='*')
exec java --sun-misc-unsafe-memory-access=allow -Dculebra.library="$CULEBRA_LIBRARY" -jar benchmarks/target/culebra-benchmarks.jar --commit "$commit" "$@"
