# The commands of this project. `make demo` and `make test` need Python 3.11+ and make, nothing else.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready

.PHONY: demo test test-localstack check fix bench bench-docker lock clean help

help:
	@echo "make demo    the whole pipeline on this machine, then the page at http://127.0.0.1:8000"
	@echo "make test    the tests"
	@echo "make test-localstack   the tests against LocalStack and MiniStack, which it installs"
	@echo "make check   format, lint, types, import rules"
	@echo "make fix     format and repair what can be repaired"
	@echo "make bench   what it costs, written to benchmarks/results and docs/performance.md"
	@echo "make bench-docker   the same for Docker, beside the SageMaker SDK's local mode, which it installs"
	@echo "make lock    work out requirements.lock anew (needs uv)"
	@echo "make clean   remove what was built or downloaded, and the demo's state"

demo: $(READY)
	$(BIN)/sentiment run $(ARGS)
	$(BIN)/sentiment web

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# Two real servers from PyPI, installed outside of the project at the first time.
test-localstack: $(READY)
	scripts/localstack.sh install
	scripts/ministack.sh install
	GREENROOM_REQUIRE=localstack,ministack $(BIN)/python -m pytest -k "localstack or ministack" $(ARGS)

# The programs in containers/ also run on SageMaker's prebuilt image, whose Python is 3.10.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd containers/sentiment && for program in contract.py codec.py app.py script.py train serve; do \
		MYPYPATH=.:../.. $(abspath $(BIN))/mypy --python-version 3.10 --cache-dir ../../.mypy_cache --config-file ../../pyproject.toml $$program || exit 1; \
	done
	$(BIN)/lint-imports

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks.run $(ARGS)

# Needs a Docker engine (scripts/docker-engine.sh) and the base image (scripts/base-image.sh makes a stand-in).
bench-docker: $(READY)
	scripts/sdk.sh sdk2 install
	scripts/sdk.sh sdk3 install
	scripts/compose.sh
	$(BIN)/python -m benchmarks.run --suite docker-figures

lock:
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --extra dev pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --python-version 3.11 -c requirements.lock \
		containers/sentiment/requirements.txt -o containers/sentiment/requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --extra all -c requirements.lock pyproject.toml \
		-o containers/greenroom/requirements.lock
	for venv in localstack ministack sdk2 sdk3; do \
		uv pip compile -q --universal --generate-hashes --no-emit-index-url scripts/$$venv.in -o scripts/$$venv.lock || exit 1; \
	done

clean:
	if [ -x $(BIN)/sentiment ]; then $(BIN)/sentiment destroy --yes; fi
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Every package is pinned and checked by its hash; uv does it in seconds where it is installed.
$(READY): requirements.lock pyproject.toml
	@if command -v uv >/dev/null; then \
		set -e; uv venv -q --allow-existing --python $(PYTHON) $(VENV); \
		uv pip sync -q --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock; \
		uv pip install -q --no-deps --python $(BIN)/python -e .; \
	else \
		set -e; $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install -q --require-hashes -r requirements.lock; \
		$(BIN)/python -m pip install -q --no-deps -e .; \
	fi
	@touch $@
