#!/usr/bin/env bash
# tests/gpu/pack.sh [ARCHITECTURE [FILE]]: makes FILE (default: build-pack/pack.tar.xz), a folder `pack` with all that
# tests/gpu/run.sh needs on a machine that has a GPU of this architecture (default: 90), its driver and cuBLASLt (a CUDA toolkit,
# or PyTorch), but no compiler, packages or network: program, plug-in, tests and the libraries that they use. There, beside
# this repository:
#   tar xf pack.tar.xz && bash tests/gpu/run.sh --build pack --seconds 540
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
architecture=${1:-90} build=$source_dir/build-pack
file=${2:-$build/pack.tar.xz}
cmake -S "$source_dir" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="$architecture"
cmake --build "$build" --target aspis_program aspis_cuda test_simt test_simt_plain test_simt_scan
rm -rf "$build/pack"
mkdir -p "$build/pack/tests" "$build/pack/lib"
cp "$build/aspis" "$build/libaspis_cuda.so" "$build/pack/"
cp "$build"/tests/test_simt{,_plain,_scan} "$build/pack/tests/"
ln -s ../libaspis_cuda.so "$build/pack/tests/" # the tests look beside themselves
# All libraries but the system's own, which every machine has, and cuBLASLt, which is larger than all the rest.
ldd "$build/aspis" "$build/libaspis_cuda.so" "$build"/tests/test_simt{,_plain,_scan} | awk '$3 ~ /^\// { print $3 }' | sort -u |
  grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libstdc\+\+|libgcc_s|libcublasLt)\.so' | xargs -I{} cp -L {} "$build/pack/lib/"
strip --strip-debug "$build/pack/aspis" "$build/pack"/*.so "$build/pack/lib"/*.so* "$build/pack/tests"/test_*
tar -C "$build" -cJf "$file" pack
ls -l "$file"
