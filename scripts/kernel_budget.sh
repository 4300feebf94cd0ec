#!/usr/bin/env bash
# kernel_budget.sh BUILD [LAUNCHES]: holds every CUDA kernel of a build to scripts/kernel_budget.txt, by what ptxas reported
# when it was compiled (BUILD/.../*.cu.o.ptxas, kept by scripts/ptxas_report.sh): no spills, and registers and shared
# memory, static and asked for at launch, that leave room for the stated number of blocks on a processor of each
# architecture built. LAUNCHES: what the host's twin of CUDA tells with ASPIS_SIMT_TRAFFIC=1; no launch may be larger than
# stated. Prints a line a kernel and architecture; exit 1 when one is over, 2 where there are no reports.
set -euo pipefail
build=$1 launches=${2:-/dev/null}
table=${ASPIS_KERNEL_BUDGET:-$(dirname "$0")/kernel_budget.txt}
mapfile -t reports < <(find "$build" -name '*.cu.o.ptxas' | sort)
if [ ${#reports[@]} = 0 ]; then
  echo "kernel_budget: no report of ptxas under $build; build the target aspis_cuda there" >&2
  exit 2
fi

# file architecture registers static spilled function...
for report in "${reports[@]}"; do
  awk -v file="$(basename "$report" .o.ptxas)" '
    /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2]; arch = quoted[4]; spilled = 0 }
    /spill stores/ { spilled = $5 + $9 }
    /: Used [0-9]+ registers/ && name != "" {
      match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
      static = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
      print file, arch, registers, static, spilled, name
      name = ""
    }' "$report"
done | c++filt | awk -v table="$table" -v launches="$launches" '
  BEGIN {
    # CUDA programming guide, compute capabilities: threads, blocks and shared bytes of a processor, most of a block
    card("sm_80", 2048, 32, 164, 163); card("sm_86", 1536, 16, 100, 99); card("sm_89", 1536, 24, 100, 99)
    card("sm_90", 2048, 32, 228, 227); card("sm_100", 2048, 32, 228, 227); card("sm_120", 1536, 24, 100, 99)
    while ((getline line < table) > 0) {
      if (line ~ /^#/ || split(line, field, " ") != 5) continue
      n++
      for (i = 1; i <= 5; i++) row[n, i] = field[i]
    }
    while ((getline line < launches) > 0) {
      if (line !~ /^simt: .*\.cu: /) continue
      file = line; sub(/^simt: /, "", file); sub(/: .*/, "", file); sub(/.*\//, "", file)
      name = line; sub(/^simt: [^:]*: /, "", name); sub(/:.*/, "", name)
      match(line, /most [0-9]+ threads/); threads = substr(line, RSTART + 5) + 0
      match(line, /[0-9]+ shared$/); shared = substr(line, RSTART) + 0
      sub(/<.*/, "", name)
      at = find(file, name) # "kernel": one of several types of the first of its file
      if (threads > row[at, 3] || (row[at, 4] != "all" && shared > row[at, 4])) {
        printf "%s %s: launched with %d threads and %d bytes of shared memory, stated %d and %s\n", file, name, threads,
          shared, row[at, 3], row[at, 4]
        bad = 1
      }
    }
  }
  function card(arch, threads, blocks, shared, most) {
    most_threads[arch] = threads; most_blocks[arch] = blocks; all_shared[arch] = shared * 1024; most_shared[arch] = most * 1024
  }
  function find(file, name,   i) {
    for (i = 1; i <= n; i++)
      if ((row[i, 1] == "*" || row[i, 1] == file) && (row[i, 2] == "*" || row[i, 2] == name || name == "kernel")) return i
    return 0
  }
  function least(a, b) { return a < b ? a : b }
  {
    arch = $2; registers = $3; static = $4; spilled = $5
    name = $6 == "void" ? $7 : $6; sub(/[<(].*/, "", name)
    if (!(arch in most_threads)) { print "kernel_budget: " arch " is not known to this script"; bad = 1; next }
    at = find($1, name); threads = row[at, 3]; warps = int((threads + 31) / 32)
    shared = static + (row[at, 4] == "all" ? most_shared[arch] : row[at, 4])
    of_warp = int((registers + 7) / 8) * 8 * 32 # registers are given to a warp in runs of 256, by four schedulers
    blocks = least(most_blocks[arch], int(most_threads[arch] / (32 * warps)))
    blocks = least(blocks, int(int(16384 / of_warp) * 4 / warps))
    blocks = least(blocks, int(all_shared[arch] / (shared + 1024)))
    over = spilled > 0 || shared > most_shared[arch] || blocks < row[at, 5]
    printf "%-18s %-18s %-6s %3d registers %6d bytes %2d blocks of %d threads, stated %d%s%s\n", $1, name, arch, registers,
      shared, blocks, threads, row[at, 5], spilled ? ", SPILLS " spilled " bytes" : "", over ? ": OVER" : ""
    bad = bad || over
    seen++
  }
  END {
    if (!seen) { print "kernel_budget: no kernels in the reports"; bad = 1 }
    exit bad
  }'
