# Everything runs in a virtual environment of its own (.venv), made from the locked requirements.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA ?= ../shared/data/eval
READY := $(VENV)/.ready

.PHONY: run test coverage check format lint types floors bench evaluate soak clean lock

run: $(READY)  ## carry out the bundled example and show what came of it
	$(RUN) -m phase21 run examples/first-run --state phase21_state --outputs phase21_outputs

test: $(READY)  ## the tests
	$(RUN) -m pytest -n auto

coverage: $(READY)  ## the tests, with the branches that they reach: 95 % in all, every one in the pure rooms
	rm -f .coverage*
	$(RUN) -m pytest -n auto --cov=phase21 --cov-branch --cov-report=
	$(RUN) -m coverage report --skip-covered --fail-under=95
	$(RUN) -m coverage report --include='phase21/domain/*,phase21/planning/*,phase21/evaluation/*,phase21/gates.py' --fail-under=100

check: lint types floors test  ## all that must hold before a change lands

format: $(READY)  ## lay the code out
	$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

lint: $(READY)  ## layout, lint, unused and missing dependencies
	$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check . && $(VENV)/bin/deptry phase21

types: $(READY)  ## types, strictly
	$(VENV)/bin/mypy

floors: $(READY)  ## who may import whom
	$(VENV)/bin/lint-imports

bench: $(READY)  ## the project's own benchmark
	$(RUN) -m phase21 bench

evaluate: $(READY)  ## forecasts, strategies and monitor over recorded outcomes of real agents, in DATA
	$(RUN) scripts/evaluate $(DATA)

soak: $(READY)  ## kill -9 at random moments, and see that the promises hold
	$(RUN) scripts/soak --kills 50
	$(RUN) scripts/soak --workflows --kills 50

clean:  ## remove what the targets above made
	rm -rf $(VENV) phase21_state phase21_outputs .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage* dist build

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

lock:  ## resolve the dependencies anew (needs pip-tools)
	CUSTOM_COMPILE_COMMAND="make lock" $(PYTHON) -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra optimize --extra workflows --extra llm --extra perf --extra dev -o requirements.txt pyproject.toml
