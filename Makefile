# The one interface to building and checking, which CI calls too. Needs Python 3.11 or later, a C compiler and Rust.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)

.PHONY: all help install test rust-test python-test coverage format lint stubtest torture fuzz audit bench speedrun gpu card docs paper clean

all: format lint test  ## format, lint and test: what a change must pass

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*  ## (.*)/\1|\2/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

$(VENV)/installed: pyproject.toml Cargo.toml Cargo.lock $(shell find rust -name '*.rs')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/installed  ## t2i with its development tools, in .venv

test: rust-test python-test  ## both test suites

rust-test:  ## cargo test
	cargo test --quiet --locked

PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile  # empty: one process
python-test: install  ## pytest, a file to a process
	$(BIN)/python -m pytest -q --doctest-modules --doctest-ignore-import-errors python/t2i
	$(BIN)/python -m pytest -q $(PARALLEL)

coverage: install  ## pytest with line and branch coverage of the Python package; HTML in build/coverage
	$(BIN)/python -m pytest -q --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

format: install  ## cargo fmt, ruff format
	cargo fmt
	$(BIN)/ruff format python tests benches examples

lint: install stubtest  ## formatting, clippy, ruff, mypy, the stub of the native module
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets --features python -- -D warnings
	$(BIN)/ruff format --check python tests benches examples
	$(BIN)/ruff check python tests benches examples
	$(BIN)/mypy

stubtest: install  ## mypy.stubtest: _native.pyi against the module
	MYPYPATH=python $(BIN)/python -m mypy.stubtest t2i._native

torture: install  ## failure tests at their full counts, written to docs/method.md (hours on two cores)
	T2I_TORTURE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m promise --promises-table=docs/method.md

FUZZ_SECONDS ?= 60
fuzz:  ## cargo-fuzz on each target for FUZZ_SECONDS (needs cargo-fuzz and nightly Rust)
	cd fuzz && for target in tokenizer image pack; do \
		mkdir -p corpus/$$target && { [ $$target != image ] || cp ../rust/testdata/* corpus/image; } && \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

audit: install  ## known vulnerabilities of the dependencies; offline: ADVISORIES=a clone of RustSec/advisory-db
	cargo audit $(if $(ADVISORIES),--db $(ADVISORIES) --no-fetch --stale)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --strict --skip-editable

bench: install  ## speed: criterion and pytest-benchmark on the native module, then t2i-bench
	cargo bench --locked
	$(BIN)/python -m pytest -q -o addopts= -o timeout=0 benches/python/test_native.py
	$(BIN)/t2i-bench --json $(if $(PICTURES),--pictures $(PICTURES))

speedrun: install  ## judge a model by docs/speedrun.md: DATA=data/oxford102 MODEL=runs/flowers
	OMP_NUM_THREADS=1 $(BIN)/python benches/python/speedrun.py --data $(DATA) --model $(MODEL)

docs: install  ## the documentation and API reference, in build/site
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# On a machine with a GPU. GPU_PYTHON is any Python that has t2i (an installed wheel will do); .venv is not made.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_FLAGS = $(if $(DATA),--data $(DATA)) $(if $(FEATURES),--features $(FEATURES)) $(if $(TEXT),--text $(TEXT)) \
	$(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT)) $(if $(MINUTES),--minutes $(MINUTES))
gpu:  ## on a GPU, in pieces of 9 minutes (exit code 75: call it again): tests, benches, 600 epochs of fast and paper: DATA=data/oxford102 FEATURES=inception.safetensors OUT=results
	$(GPU_PYTHON) benches/python/gpu.py $(GPU_FLAGS)

card: install  ## what a machine without a GPU can show of one, in full: needs torch's CUDA build, gcc and ../shared/nullcard
	T2I_CARD=1 $(BIN)/python -m pytest -q -p no:cacheprovider -o timeout=3600 tests/card

paper: install  ## the ablation of GAN, -CLS, -INT and -INT-CLS, written to docs/paper.md (hours on two cores)
	$(BIN)/python benches/python/paper.py --write docs/paper.md

clean:  ## remove the environment and everything built
	rm -rf $(VENV) target build dist .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
