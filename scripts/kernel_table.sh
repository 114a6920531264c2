#!/usr/bin/env bash
# What the compiler made of every kernel, as a Markdown table: registers, local memory (spills), shared memory, instructions.
#   scripts/kernel_table.sh BUILD_FOLDER > native/kernels-sm_90a.md
# BUILD_FOLDER: one compiled for a single architecture (preset simt). Needs cuobjdump and nvdisasm of the CUDA toolkit on PATH.
set -euo pipefail
build=$1
command -v cuobjdump >/dev/null || { echo "kernel_table.sh: cuobjdump was not found; it comes with the CUDA toolkit" >&2; exit 1; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
objects=$(find "$build/CMakeFiles/culebra_objects.dir/native/ops" -name '*.cu.o' | sort | while IFS= read -r object; do
  source=${object#*culebra_objects.dir/}
  [ -e "$root/${source%.o}" ] && echo "$object"  # the build folder may hold what is left of a file that has moved
done)
architecture=$(for object in $objects; do cuobjdump -lelf "$object"; done | grep -oE 'sm_[0-9a-z]+' | sort -u | paste -sd' ')
compiler=$("$(sed -nE "s/^(CULEBRA_NVCC|CMAKE_CUDA_COMPILER):[^=]*=//p" "$build/CMakeCache.txt" | head -n 1)" --version | sed -n "s/.*release.*, V//p")

cat <<END
# The code of the kernels

$architecture, nvcc $compiler; written by \`scripts/kernel_table.sh\`, do not edit. Counts are of the whole kernel, loops once.
**Blocks** an SM could hold by registers alone (65,536 of them); shared memory given at launch may allow fewer. **Local** bytes are spills or
indexed arrays. **Tensor** instructions: HMMA (mma.sync, 16 bits), IMMA (8-bit integers), HGMMA, QGMMA, IGMMA (wgmma). **Copies** to shared memory:
LDGSTS (cp.async; all 16 bytes wide unless a smaller one is named), UBLKCP (bulk), UTMALDG (tensor map).
END
for object in $objects; do
  name=${object#*culebra_objects.dir/}
  printf '\n## `%s`\n\n' "${name%.o}"
  echo '| kernel | registers | threads | blocks | local | static shared | instructions | tensor | copies | LDG.128 | LDS.128 | other LDS | LDSM |'
  echo '|---|---|---|---|---|---|---|---|---|---|---|---|---|'
  {
    cuobjdump --dump-resource-usage "$object" 2>/dev/null
    echo ==threads
    cuobjdump -elf "$object" 2>/dev/null | grep -aE '^\.nv\.info\._|EIATTR_MAX_THREADS|^	Value:' | grep -aA1 -E '^\.nv\.info|MAX_THREADS' || true
    echo ==sass
    cuobjdump -sass "$object" 2>/dev/null
  } | awk '
    /^==threads/ { part = 1 }
    /^==sass/ { part = 2 }
    part == 0 && /Function/ { sub(/:$/, "", $2); name = $2 }
    part == 0 && /REG:/ {
      for (i = 1; i <= NF; i++) { split($i, kv, ":"); use[name, kv[1]] = kv[2] }
      order[++kernels] = name
    }
    part == 1 && /^\.nv\.info\._/ { name = $1; sub(/^\.nv\.info\./, "", name); wanted = 0 }
    part == 1 && /MAX_THREADS/ { wanted = 1 }
    part == 1 && /Value:/ { if (wanted) threads[name] = hex($2); wanted = 0 }
    part == 2 && /Function :/ { name = $3 }
    part == 2 && match($0, /^ +\/\*[0-9a-f]+\*\/ +(@!?U?P[0-9T]+ +)?[A-Z]/) {
      opcode = $2; if (opcode ~ /^@/) opcode = $3
      sub(/;$/, "", opcode)
      if (opcode == "NOP") next
      count[name]++
      split(opcode, parts, ".")
      base = parts[1]
      if (base ~ /^([HQI]G?MMA|BMMA)$/) { tensor[name, base]++; seen_tensor[base] }
      if (base == "LDGSTS") { wide = opcode ~ /128/ ? "LDGSTS" : "LDGSTS.narrow"; copy[name, wide]++ }
      if (base == "UBLKCP" || base == "UTMALDG") copy[name, base]++
      if (base == "LDG" && opcode ~ /128/) ldg[name]++
      if (base == "LDS") { if (opcode ~ /128/) lds[name]++; else narrow[name]++ }
      if (base == "LDSM") ldsm[name]++
    }
    function hex(text,   value, i) {
      for (i = 3; i <= length(text); i++) value = 16 * value + index("0123456789abcdef", substr(text, i, 1)) - 1
      return value
    }
    function listed(table, name, keys,   n, list, i, text) {
      n = split(keys, list, " ")
      for (i = 1; i <= n; i++) if ((name, list[i]) in table) text = text (text == "" ? "" : ", ") table[name, list[i]] " " list[i]
      return text == "" ? "-" : text
    }
    END {
      for (i = 1; i <= kernels; i++) {
        name = order[i]
        registers = use[name, "REG"]; t = threads[name]
        blocks = t ? int(65536 / (int((registers + 7) / 8) * 8 * t)) : "-"
        if (t && blocks * t > 2048) blocks = int(2048 / t)
        printf "%s\t%s\t%s\t%s\t%d\t%s\t%d\t%s\t%s\t%d\t%d\t%d\t%d\n", name, registers, t ? t : "-", blocks, use[name, "STACK"] + use[name, "LOCAL"], \
          use[name, "SHARED"], count[name], listed(tensor, name, "HMMA IMMA BMMA HGMMA QGMMA IGMMA"), \
          listed(copy, name, "LDGSTS LDGSTS.narrow UBLKCP UTMALDG"), ldg[name], lds[name], narrow[name], ldsm[name]
      }
    }' | c++filt | sed -E 's/culebra::cuda:://g; s/culebra:://g; s/\(anonymous namespace\):://g; s/^void //; s/^([^\t]*)\((NS|[^\t])*\)\t/\1\t/' |
    sort | awk -F'\t' '{ printf "| `%s`", $1; for (i = 2; i <= NF; i++) printf " | %s", $i; print " |" }'
done
