#!/bin/sh
# Regenerates the Java bindings from the C headers with jextract; the result is committed.
#   regenerate.sh           writes src/main/java/dev/culebra/bindings/generated
#   regenerate.sh --check   writes to a temporary directory and fails where the committed files differ
# jextract (https://jdk.java.net/jextract/) is taken from $JEXTRACT, or else from PATH. Its output can change between its
# versions; the committed one is of github.com/openjdk/jextract at f9866df.
set -eu

package=dev.culebra.bindings.generated
here=$(cd "$(dirname "$0")" && pwd)
include=$(cd "$here/../native/include" && pwd)
committed=$here/src/main/java/$(echo $package | tr . /)

fail() {
  echo "regenerate.sh: $*" >&2
  exit 1
}

mode=${1-}
case $mode in
  '' | --check) ;;
  *) fail "unknown option $mode; usage: regenerate.sh [--check]" ;;
esac

jextract=${JEXTRACT:-jextract}
command -v "$jextract" >/dev/null || fail "'$jextract' was not found. Install jextract for JDK 25 from" \
  "https://jdk.java.net/jextract/ and put it on PATH, or name it in JEXTRACT."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# culebra.h first, so that what the families share is declared before them.
set -- "$include/culebra/culebra.h"
for header in "$include"/culebra/*.h; do
  [ "$header" = "$1" ] || set -- "$@" "$header"
done

generate() {
  # jextract warns of each opaque handle that it has no struct for; such a handle travels as an address.
  "$jextract" --include-dir "$include" --header-class-name culebra_h "$@" 2>"$work/log" || {
    cat "$work/log" >&2
    fail "jextract failed"
  }
  grep -v 'Skipping .*(type .*is not supported)' "$work/log" >&2 || true
}

# Everything that our headers declare, nothing that the system's do: neither theirs nor our include guards.
generate --dump-includes "$work/all" "$@"
sed -E -n 's/^(--include-[a-z]+ +(cul_|CUL_)[A-Za-z0-9_]+).*/\1/p' "$work/all" | grep -v ' CUL_API$' >"$work/ours"
generate --target-package $package --output "$work/out" "@$work/ours" "$@"

generated=$work/out/$(echo $package | tr . /)
if [ "$mode" = --check ]; then
  diff -r "$committed" "$generated" || fail "the committed bindings differ from the headers: run bindings/regenerate.sh"
else
  rm -rf "$committed"
  mkdir -p "$(dirname "$committed")"
  cp -R "$generated" "$committed"
fi
