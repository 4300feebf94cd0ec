#!/bin/sh
# ptxas_report.sh OBJECT COMMAND...: runs a compiler; what ptxas tells of registers and shared memory goes into
# OBJECT.ptxas, for scripts/kernel_budget.sh, and not onto the terminal.
set -u
object=$1
shift
"$@" 2>"$object.err"
code=$?
mine='^ptxas info|bytes stack frame, .* spill|^$'
grep -E "$mine" "$object.err" >"$object.ptxas"
grep -vE "$mine" "$object.err" >&2
rm -f "$object.err"
exit $code
