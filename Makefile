# Everything a user or a contributor types. Nothing has to be installed by hand but Python ≥ 3.11.
PYTHON ?= python3
ARGS ?=
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench docs clean

BIN := .venv/bin
USE := .venv/.installed-advise
WORK := .venv/.installed-advise,dev
FAST := not slow and not gpu
# Two processes, one torch thread each (conftest.py); work stealing, because a few tests take seconds and
# most of them milliseconds. Shapes and types are checked in the same pass (pyproject.toml).
PARALLEL := --numprocesses 2 --dist worksteal

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(USE) ## real advice on scikit-learn's handwritten digits, about 3 minutes on two cores
	$(BIN)/batchlab demo $(ARGS)
	@echo "The report: $(CURDIR)/batchlab-results/advise-digits/report.html"

test: $(WORK) ## every test that is neither slow nor in need of a GPU
	$(BIN)/python -m pytest $(PARALLEL) -m "$(FAST)" $(ARGS)

test-slow: $(WORK) ## the other tests
	$(BIN)/python -m pytest -m "not ($(FAST))" $(ARGS)

check: $(WORK) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(WORK) ## the figures behind the claims, one script after the other, into build/bench; long
	@mkdir -p build/bench; failed=0; for script in benchmarks/[!_]*.py; do \
		kept=build/bench/$$(basename "$$script" .py); rm -f "$$kept".*; \
		picture=$$(grep -q '"--picture"' "$$script" && echo "--picture $$kept.svg"); \
		echo "== $$script"; \
		$(BIN)/python "$$script" --json "$$kept.json" $$picture || failed=1; done; exit $$failed

docs: $(WORK) ## the API pages, into site/
	$(BIN)/pdoc --docformat google --math --output-directory site batchlab

clean: ## remove what the other targets made, results apart
	rm -rf .venv site build dist .pytest_cache .ruff_cache .hypothesis

# `.venv` is made once and filled again when the requirements change. Editable, so that it never lags behind.
$(USE) $(WORK): .venv/.installed-%: pyproject.toml constraints.txt
	@began=$$(date +%s) && \
	echo "Installing batchlab[$*] into .venv ..." && \
	{ test -x $(BIN)/python || $(PYTHON) -m venv .venv; } && \
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]" && \
	touch "$@" && \
	echo "Installation took $$(( $$(date +%s) - began )) s."
