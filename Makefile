# The front door. `make` alone says what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
RUN := $(VENV)/bin/python
TOOLS := $(RUN) -m docs._tools
export OMP_WAIT_POLICY = PASSIVE

.PHONY: help serve test site check run budget exercise mutation new stamp lint clean

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/installed: pyproject.toml constraints.txt docs/_tools/install.py
	@$(PYTHON) docs/_tools/install.py $(VENV)

serve: $(VENV)/installed ## install, build both languages, serve; notebooks run behind (PORT=8000)
	@$(TOOLS) serve --port $(PORT)

test: $(VENV)/installed lint ## install, lint, run every notebook and every test
	@SECONDS=0; $(TOOLS) site && $(RUN) -m pytest -n auto --dist=loadgroup -q && \
	echo "$$SECONDS" > build/last-test-seconds

site: $(VENV)/installed ## run everything, stop on the first fault, build site/
	@$(TOOLS) site

check: $(VENV)/installed ## check the sources; nothing runs
	@$(TOOLS) check

run: $(VENV)/installed ## run the page P= (cached or not), or what is not in the cache
	@$(TOOLS) run $(P)

budget: $(VENV)/installed ## print weights and times against their budgets
	@$(TOOLS) budget

$(VENV)/extra-%: $(VENV)/installed
	@$(PYTHON) docs/_tools/install.py $(VENV) $*

exercise: $(VENV)/extra-exercise ## open the exercise of a page: P=gqa (IN=en for English)
	@book=$$($(TOOLS) exercise $(P) --language $(or $(IN),zh)) && $(RUN) -m jupyterlab $$book

mutation: $(VENV)/extra-mutation ## change each line of snippets/ and see a test fail: OF=decoding/gqa
	@$(RUN) -m tests.mutation $(OF)

new: $(VENV)/installed ## make the files of a new page: KIND=question STEM=basics/why_scale
	@$(TOOLS) new $(KIND) $(STEM)

stamp: $(VENV)/installed ## say that translations are up to date: P=questions/basics/why_scale
	@$(TOOLS) stamp $(P)

lint: $(VENV)/installed
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean: ## remove what can be made again
	rm -rf build site $(VENV) .pytest_cache .ruff_cache .hypothesis
