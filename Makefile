# The one interface to building and checking; .ci/run calls it too. It needs Python 3.11 or later, a C compiler and Rust.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: all install test rust-test python-test format lint stubtest torture fuzz audit bench gpu docs paper clean

all: format lint rust-test python-test  ## what a change must pass

$(VENV)/installed: pyproject.toml Cargo.toml Cargo.lock $(shell find rust -name '*.rs')
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install: $(VENV)/installed  ## t2i and its tools, in .venv

test: rust-test python-test  ## both suites

rust-test:
	cargo test --quiet --locked

python-test: install
	$(BIN)/python -m pytest -q

format: install
	cargo fmt
	$(BIN)/ruff format python tests benches examples

lint: install stubtest
	cargo fmt --check
	cargo clippy --quiet --locked --all-targets --features python -- -D warnings
	$(BIN)/ruff format --check python tests benches examples
	$(BIN)/ruff check python tests benches examples
	$(BIN)/mypy

stubtest: install
	MYPYPATH=python $(BIN)/python -m mypy.stubtest t2i._native

torture: install  ## the failure tests at their full counts, written to docs/method.md (hours on two cores)
	T2I_TORTURE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m promise --promises-table docs/method.md

FUZZ_SECONDS ?= 60
fuzz:  ## cargo-fuzz on each target for FUZZ_SECONDS (needs cargo-fuzz and a nightly compiler: cargo install cargo-fuzz)
	cd fuzz && for target in tokenizer image pack; do \
		mkdir -p corpus/$$target && { [ $$target != image ] || cp ../rust/testdata/* corpus/image; } && \
		cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

audit: install  ## published advisories about what is depended on; ADVISORIES=a clone of RustSec/advisory-db where there is no network
	cargo audit $(if $(ADVISORIES),--db $(ADVISORIES) --no-fetch --stale)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --strict --skip-editable

bench: install  ## speed: the native module by criterion and pytest-benchmark, then all rows beside their rivals
	cargo bench --locked
	$(BIN)/python -m pytest -q -o addopts= -o timeout=0 benches/python/test_native.py
	$(BIN)/t2i-bench --json $(if $(PICTURES),--pictures $(PICTURES))

docs: install  ## the pages and the API reference, in build/site
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# On a machine with a card. GPU_PYTHON is any Python that has t2i (a wheel carried there will do); .venv is not made.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_FLAGS = $(if $(DATA),--data $(DATA)) $(if $(FEATURES),--features $(FEATURES)) $(if $(TEXT),--text $(TEXT)) $(if $(ONLY),--only $(ONLY))
gpu:  ## CUDA tests, benches, 600 epochs of fast and of paper: make gpu DATA=data/oxford102 FEATURES=inception.safetensors
	$(GPU_PYTHON) benches/python/gpu.py $(GPU_FLAGS)

paper: install  ## the paper in miniature: four variants, three seeds, written to docs/paper.md (hours on two cores)
	$(BIN)/python benches/python/paper.py --write docs/paper.md

clean:
	rm -rf $(VENV) target build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
