# Two commands on a fresh machine: `make demo` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
# torch comes first, in a version of your choice, so that nothing pulls another build in
TORCH ?= torch==2.13.0
PIP = .venv/bin/pip install --quiet --disable-pip-version-check -c .ci/constraints.txt
DEMO = demo

.PHONY: demo install test slow check bench docs clean

demo: .venv/core
	@rm -rf $(DEMO)
	@.venv/bin/curate sample $(DEMO)/sample
	@.venv/bin/curate run web -i $(DEMO)/sample/crawl -o $(DEMO)/run
	@.venv/bin/curate verify $(DEMO)/run

install: .venv/all

test: .venv/all
	.venv/bin/pytest -n auto --dist loadfile

slow: .venv/all
	.venv/bin/pytest -m slow

check: .venv/all
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: .venv/all
	.venv/bin/python benchmarks/ingest.py

docs: .venv/core
	.venv/bin/python docs/generate.py

clean:
	rm -rf .venv $(DEMO) build *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core: pyproject.toml .ci/constraints.txt | .venv/bin/python
	$(PIP) -e .
	@.venv/bin/python -m compileall -q curate
	@touch $@

.venv/all: pyproject.toml .ci/constraints.txt | .venv/bin/python
	$(PIP) $(TORCH)
	$(PIP) -e '.[all]'
	@.venv/bin/python -m compileall -q curate
	@touch $@ .venv/core
