# The few commands a person types; everything else is plain CMake (see CMakePresets.json).
.PHONY: help setup configure build quickstart test gpu-test sanitize bench format tidy clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## install missing packages (apt)
	@sh scripts/setup.sh

configure: setup
	@cmake --preset release >build.log 2>&1 || { cat build.log; exit 1; }

build: configure ## optimised build into build/
	@cmake --build --preset release

quickstart: configure ## train a small Mamba-3 to the end, score it, write its report: under a minute
	@cmake --build --preset release --target aspis_program
	@sh scripts/quickstart.sh

test: build ## every test
	@ctest --preset release

gpu-test: ## on a machine with a GPU: parity, training, timings, peers (tests/gpu/run.sh)
	@bash tests/gpu/run.sh

sanitize: setup ## every test under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset sanitize >build-sanitize.log 2>&1 || { cat build-sanitize.log; exit 1; }
	@cmake --build --preset sanitize
	@ctest --preset sanitize

bench: build ## time this machine and write the tables of docs/performance.md; BENCH="--quick" for a short look
	@command -v python3 >/dev/null || { echo "make bench: python3 is missing, which writes the tables; build/aspis bench does without"; exit 1; }
	@python3 tests/bench/run.py $(BENCH)

format: ## clang-format over our sources
	@git ls-files '*.c' '*.h' | xargs clang-format -i

tidy: build ## clang-tidy over our sources
	@git ls-files '*.c' | grep -v '^tests/' | xargs clang-tidy -p build --quiet

clean: ## remove what was built
	@rm -rf build build-debug build-cuda build-gpu build-sanitize build.log build-sanitize.log
