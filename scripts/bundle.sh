#!/usr/bin/env bash
# One archive that runs on a bare x86-64 Linux machine with only a CUDA driver (or none: the cpu backend runs anywhere):
# a Java runtime, the jars, the native library for one GPU architecture, tests, probes and benchmarks.
#   ./culebra bundle [--architecture 90a] [--output FILE]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
cd "$root"
architecture=90a
output=$root/build/culebra-bundle.tar.xz
while [ $# -gt 0 ]; do
  case $1 in
    --architecture) architecture=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    *) say "usage: ./culebra bundle [--architecture 90a] [--output FILE]"; exit 2 ;;
  esac
done
limit_bytes=$((30 * 1000 * 1000))
need_jdk
need_packages "${build_packages[@]}" xz-utils:xz

native=$root/build/bundle-native
stage=$root/build/bundle/culebra-bundle
rm -rf "$stage"
mkdir -p "$stage"/{bin,lib,tests,benchmarks}

say "native library for sm_$architecture"
cmake --preset cuda -B "$native" -DCULEBRA_CUDA_ARCHITECTURES="$architecture-real" -DCULEBRA_PROBES=ON >/dev/null
cmake --build "$native"
cmake --install "$native" --prefix "$stage/lib" --strip >/dev/null
rm -rf "$stage/lib/include"
install -s "$native/culebra_fidelity_cuda" "$stage/bin/probes"

say "jars"
mvn -q -B -ntp -DskipTests package
cp cli/target/lib/*.jar "$stage/lib/"
cp tests/target/bundle/*.jar "$stage/tests/"
cp benchmarks/target/culebra-benchmarks.jar "$stage/benchmarks/"
# Jars are stored, not compressed: the archive's own compression does better on their contents. The tokenizer's jar carries
# natives of every system; this one's are enough, without their symbols.
for jar in "$stage"/{lib,tests,benchmarks}/*.jar; do
  contents=$(mktemp -d)
  (cd "$contents" && jar --extract --file "$jar")
  find "$contents/native/lib" -mindepth 1 -maxdepth 1 -type d ! -name linux-x86_64 -exec rm -r {} + 2>/dev/null || true
  find "$contents" -name '*jnidispatch*' ! -path '*/linux-x86-64/*' -delete  # JNA's
  find "$contents" -name '*.so' -exec strip -s {} +
  manifest=$(mktemp)
  mv "$contents/META-INF/MANIFEST.MF" "$manifest"
  jar --create --no-compress --file "$jar" --manifest "$manifest" -C "$contents" .
  rm -r "$contents" "$manifest"
done

say "Java runtime"
jlink --add-modules java.base,java.compiler,java.logging,java.management,jdk.jfr,jdk.management,jdk.unsupported,jdk.zipfs \
  --strip-debug --no-header-files --no-man-pages --compress zip-0 --output "$stage/runtime"

cat >"$stage/bin/culebra" <<'LAUNCHER'
#!/bin/sh
# culebra doctor | ops | verify | bench | generate ... as in the repository; and
#   culebra test [--json FILE]   the suites tagged cuda; a skipped test is a failure
#   culebra jmh ARGUMENTS...     the JMH benchmarks
#   culebra probes               one hash per emulated instruction, from this GPU
home=$(cd "$(dirname "$0")/.." && pwd)
options="-Dculebra.library=$home/lib/libculebra.so -Dculebra.home=${CULEBRA_HOME:-$PWD}"
case ${1:-} in
  test) shift; exec "$home/runtime/bin/java" --enable-native-access=ALL-UNNAMED $options -cp "$home/tests/*:$home/lib/*" dev.culebra.tests.RunTagged cuda "$@" ;;
  jmh) shift; exec "$home/runtime/bin/java" --enable-native-access=ALL-UNNAMED $options -cp "$home/benchmarks/culebra-benchmarks.jar" org.openjdk.jmh.Main "$@" ;;
  probes) exec "$home/bin/probes" ;;
  *) exec "$home/runtime/bin/java" --enable-native-access=dev.culebra.bindings,ai.djl.tokenizers,com.sun.jna $options --module-path "$home/lib" --add-modules ALL-MODULE-PATH -m dev.culebra.cli/dev.culebra.cli.Main "$@" ;;
esac
LAUNCHER
chmod +x "$stage/bin/culebra"

say "archive"
mkdir -p "$(dirname "$output")"
tar -C "$root/build/bundle" -c culebra-bundle | xz --x86 --lzma2=preset=9e >"$output"
bytes=$(stat -c %s "$output")
say "$output: $bytes bytes"
if [ "$bytes" -gt "$limit_bytes" ]; then
  say "larger than $limit_bytes bytes:"
  du -a "$stage" | sort -rn | sed -n 1,20p >&2
  exit 1
fi
