# Every command sets itself up: a fresh clone needs Python 3.11+ and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo demo-graphs test test-fast lint up docs bench bench-detect bench-graphs bench-purify bench-retrain bench-served bench-sift bench-soak clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# torch first and pinned: a bare `torch` pulls gigabytes of CUDA (constraints.txt).
$(READY): pyproject.toml setup.py constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[api,worker,graphs,postgres,otel,embedded,demo,dev]'
	@touch $@

setup: $(READY) ## make the virtual environment

demo: $(READY) ## the whole path on real data: upload, scan, purify, serve (eight to twelve minutes)
	$(BIN)/python -m benchmarks.demo

demo-graphs: $(READY) ## the same for text-to-graph models, about eight minutes
	$(BIN)/python -m benchmarks.demo.graphs

# One thread a process: the tests' tensors are so small that further threads mostly wait for one
# another. One process more than there are cores: a fifth of the time tests wait for services.
# WORKERS=0 is one process, for a debugger.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(len(os.sched_getaffinity(0)) + 1, 8))')
SIDE_BY_SIDE = -n $(WORKERS)
test test-fast: export OMP_NUM_THREADS ?= 1

# Empty is off: without its files of bytecode each process compiles guard/ and tests/ once more.
test test-fast: export PYTHONDONTWRITEBYTECODE =
test: export COVERAGE_PROCESS_START = $(CURDIR)/pyproject.toml
test: export COVERAGE_FILE = $(CURDIR)/.coverage
test: $(READY) ## all tests, with branch coverage of guard/
	$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest tests $(SIDE_BY_SIDE)
	$(BIN)/python -m coverage combine --quiet
	@mkdir -p run; $(BIN)/python -m coverage report --fail-under=95 > run/coverage.txt; status=$$?; \
	tail -n 60 run/coverage.txt; exit $$status

test-fast: $(READY) ## the tests that need no whole stack
	$(BIN)/python -m pytest tests $(SIDE_BY_SIDE) -m 'not e2e'

lint: $(READY) ## rules, format, types, spelling, dead code, the hooks' configuration
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell $$(git ls-files '*.py' '*.md' '*.toml')
	$(BIN)/python -m tests.house.dead_code
	$(BIN)/pre-commit validate-config

up: $(READY) ## the embedded stack on loopback
	$(BIN)/guard up

docs: $(READY) ## documents that are made from code and records
	$(BIN)/python -m benchmarks.make_settings_doc
	$(BIN)/python -m benchmarks.make_error_doc
	$(BIN)/python -m benchmarks.make_forms_doc
	$(BIN)/python -m benchmarks.make_threat_doc
	$(BIN)/python -m benchmarks.make_expectations_doc
	$(BIN)/python -m benchmarks.make_access_doc
	$(BIN)/python -m benchmarks.make_api_doc
	$(BIN)/python -m benchmarks.make_evidence_doc
	$(BIN)/python -m benchmarks.make_measured
	$(BIN)/python -m benchmarks.quote

bench: $(READY) ## the benchmarks that need no zoo, into benchmarks/records/ (bench_claims, _layout, _mesa, _seeds need one)
	$(BIN)/python -m benchmarks.bench_inversion
	$(BIN)/python -m benchmarks.bench_intake
	$(BIN)/python -m benchmarks.bench_cli
	$(BIN)/python -m benchmarks.bench_overhead
	$(BIN)/python -m benchmarks.bench_ensemble
	$(BIN)/python -m benchmarks.bench_classes
	$(BIN)/python -m benchmarks.bench_repair_speed
	@if command -v $${CXX:-c++} >/dev/null; then $(BIN)/python -m benchmarks.bench_compile; \
	else echo "bench_compile is left out: torch.compile needs a C++ compiler" >&2; fi
	$(BIN)/python -m benchmarks.make_evidence_doc

bench-graphs: $(READY) ## molecules a second, in batches and one by one: make bench-graphs [ARGS="--model DIR --record"]
	$(BIN)/python -m benchmarks.bench_sampling $(ARGS)

bench-detect: $(READY) ## how often verdicts are right on a zoo: make bench-detect ZOO=DIR [ARGS="--part exam --jobs 4"]
	@test -n "$(ZOO)" || { echo "say which zoo: make bench-detect ZOO=DIR" >&2; exit 2; }
	$(BIN)/python -m benchmarks.bench_detect --zoo $(ZOO) $(ARGS)
	$(BIN)/python -m benchmarks.make_evidence_doc
	$(BIN)/python -m benchmarks.make_measured

bench-purify: $(READY) ## what each defense makes of a zoo: make bench-purify ZOO=DIR [ARGS="--only patch --jobs 2"]
	@test -n "$(ZOO)" || { echo "say which zoo: make bench-purify ZOO=DIR" >&2; exit 2; }
	$(BIN)/python -m benchmarks.bench_purify --zoo $(ZOO) $(ARGS)

bench-retrain: $(READY) ## repairs by a sift and retrainers, a run that goes on: make bench-retrain OUT=DIR [ARGS="--minutes 50"]
	@test -n "$(OUT)" || { echo "say where results are kept: make bench-retrain OUT=DIR" >&2; exit 2; }
	$(BIN)/python -m benchmarks.bench_retrain --out $(OUT) --record $(ARGS)
	$(BIN)/python -m benchmarks.make_evidence_doc

bench-sift: $(READY) ## how well training sets are sifted, some hours: make bench-sift [OUT=DIR] [ARGS="--minutes 60 --record"]
	$(BIN)/python -m benchmarks.bench_sift --out $(or $(OUT),run/bench-sift) $(ARGS)

bench-served: $(READY) ## served risk, a zoo through whole policies: make bench-served ZOO=DIR [ARGS="--policy default strict --minutes 60"]
	@test -n "$(ZOO)" || { echo "say which zoo: make bench-served ZOO=DIR" >&2; exit 2; }
	$(BIN)/python -m benchmarks.bench_served --zoo $(ZOO) $(ARGS)

bench-soak: $(READY) ## is every upload answered once, whatever dies: half an hour of an idle machine: make bench-soak [ARGS="--uploads 500 --seed 0 --record"]
	$(BIN)/python -m benchmarks.bench_soak $(ARGS)

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage*
