#!/usr/bin/env bash
# The documents hold what they promise: relative links and paths in backticks exist, the README's support table is what
# `culebra ops` prints for a library with every backend (CULEBRA_LIBRARY), and its Java example compiles and runs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/scripts/setup.sh"
cd "$root"
need_jdk
bad=0
complain() { say "$*"; bad=1; }

while IFS= read -r file; do
  dir=$(dirname "$file")
  # [text](target): not a URL, without its #anchor.
  while IFS= read -r target; do
    [ -e "$dir/$target" ] || complain "$file: the link to $target leads nowhere"
  done < <(grep -oE '\]\([^)# ]+' "$file" | sed 's/^](//' | grep -vE '^[a-z]+:' || true)
  # `path/of/the/repository`: first part is an entry of the top level; no placeholders or globs.
  while IFS= read -r path; do
    [ -e "$path" ] || [ -e "$dir/$path" ] || complain "$file: there is no $path"
  done < <(grep -oE '`[A-Za-z.][A-Za-z0-9_.-]*/[A-Za-z0-9_./-]*`' "$file" | tr -d '`' | while IFS= read -r p; do
             [ -e "${p%%/*}" ] && [ "${p%%/*}" != build ] && printf '%s\n' "${p%/}"; done | grep -v '/target' || true)
done < <(git ls-files -co --exclude-standard '*.md')

# The table is that of a library with all backends; where nvcc is missing (CULEBRA_CUDA=OFF) the cuda column is not compared.
columns() { if [ "${CULEBRA_CUDA:-ON}" = OFF ]; then cut -d'|' -f1-5,7-; else cat; fi; }
if ! diff <(sed -n '/<!-- ops -->/,/<!-- \/ops -->/p' README.md | sed '1d;$d' | columns) <(./culebra ops --markdown | columns); then
  complain "README.md: the support table is not what the code says; replace it by the output of ./culebra ops --markdown"
fi

example=$(mktemp -d)
trap 'rm -rf "$example"' EXIT
for file in README.md docs/quantized-weights.md docs/triton.md docs/interop.md docs/expert-parallel.md; do
  awk '/^```java example/ {on = 1; next} /^```/ {on = 0} on' "$file" >"$example/Example.java"
  if [ ! -s "$example/Example.java" ]; then
    complain "$file: no Java example found"
  else
    java --enable-native-access=dev.culebra.bindings -Dculebra.library="${CULEBRA_LIBRARY:-$root/build/release/libculebra.so}" \
      --module-path cli/target/lib --add-modules ALL-MODULE-PATH "$example/Example.java" || complain "$file: the Java example fails"
  fi
done
exit $bad
