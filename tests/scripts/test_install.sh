#!/usr/bin/env bash
# What is installed stands by itself: the program runs from there, and the examples are built and run as their heads say.
source "$(dirname "$0")/common.sh"
build=$(dirname "$aspis") prefix=$work/installed

cmake --install "$build" --prefix "$prefix" >install.txt || fail "cmake --install: $(tail -3 install.txt)"
lib=$(dirname "$(find "$prefix" -name libaspis.so)")
"$prefix/bin/aspis" train small.yaml --quiet --out run --set train.steps=5 >/dev/null
if [[ $(ldd "$lib/libaspis.so") == *asan* ]]; then
  echo "ok: installed (a program without the sanitizers cannot use a library with them)"
  exit
fi
cd "$prefix/share/aspis/examples"
$(sed -n 's/.*Build: \(cc .*\) \*\//\1/p' streaming_state.c) -I"$prefix/include" -L"$lib" -o "$work/streaming_state" ||
  fail "the example is not built as its head says"
cd "$work"
export LD_LIBRARY_PATH=$lib
[ -n "$(./streaming_state run stream.h5 "the king")" ] || fail "streaming_state says nothing"
if command -v python3 >/dev/null; then
  python3 "$prefix/share/aspis/examples/hidden_states.py" "$lib/libaspis.so" run "the king" >hidden.txt || fail "hidden_states.py"
fi
echo "ok: installed"
