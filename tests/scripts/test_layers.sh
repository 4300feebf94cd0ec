#!/usr/bin/env bash
# Includes point one way only, and only from the repository's root:
#   train -> models -> nn -> autograd -> tensor;  optim -> nn, tensor;  data -> tensor
# Usage: test_layers.sh PROGRAM SOURCE_DIR [FOLDER_TO_CHECK]  (the third argument is for the test of this test)
set -euo pipefail
root=${3:-$2}

declare -A forbidden=(
  [tensor]='autograd|nn|models|optim|data|train'
  [autograd]='nn|models|optim|data|train'
  [nn]='models|optim|data|train'
  [models]='optim|data|train'
  [optim]='autograd|models|data|train'
  [data]='autograd|nn|models|optim|train'
)
bad=0
for room in "${!forbidden[@]}"; do
  if [ -d "$root/$room" ] && grep -rnE --include='*.[chu]*' --include='*.def' "^ *# *include *\"(${forbidden[$room]})/" "$root/$room"; then
    echo "$room: an include against the direction of the layers (above)"
    bad=1
  fi
  # a quoted include without a folder hides its layer
  if [ -d "$root/$room" ] && grep -rnE --include='*.[chu]*' '^ *# *include *"[^/"]+"' "$root/$room"; then
    echo "$room: an include that is not from the repository's root (above)"
    bad=1
  fi
done
if grep -rnlE --include='*.[ch]' '# *include *[<"]hdf5' "$root"/{autograd,nn,models,optim,data,train} 2>/dev/null; then
  echo "only tensor/h5 calls HDF5"
  bad=1
fi

# The test refuses what it should: a planted include is found.
if [ $# -lt 3 ]; then
  plant=$(mktemp -d)
  trap 'rm -rf "$plant"' EXIT
  mkdir -p "$plant/tensor"
  echo '#include "nn/params.h"' >"$plant/tensor/planted.c"
  if bash "$0" "$1" "$2" "$plant" >/dev/null; then
    echo "a planted include from tensor to nn was not refused"
    bad=1
  fi
fi
exit $bad
