# Everything from nothing but a supported Python: `make demo`, `make test`.

SHELL := /bin/bash
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for python in python3.11 python3.10 python3.12 python3; do \
	if $$python -c '$(SUPPORTED)' 2>/dev/null; then echo $$python; break; fi; done)
VENV := .venv
TENSORFLOW := $(if $(filter Linux,$(shell uname -s)),tensorflow-cpu,tensorflow)
RUN := $(VENV)/bin

.PHONY: demo test test-all test-tf219 lint dist clean

# Images of 8x8 pixels are too small to be worth dividing: one thread per operation is faster.
demo: export TF_NUM_INTRAOP_THREADS := 1
demo: $(VENV)/.installed
	$(RUN)/larq-nas search --space bats --data digits --set space.search_channels=8 \
		--set searcher.architecture_learning_rate=0.003 --batch-size 32 --epochs 8 --train-epochs 24 \
		--seed 0 --directory runs/demo

# So small are the networks of tests too.
test test-all: export TF_NUM_INTRAOP_THREADS := 1
test: $(VENV)/.installed $(VENV)/.zoo
	$(RUN)/python -m pytest -n auto --maxprocesses 4

# And the tests marked as slow: further seeds, spaces and networks.
test-all: $(VENV)/.installed $(VENV)/.zoo
	$(RUN)/python -m pytest -n auto --maxprocesses 4 -m ""

# The newest versions that larq_nas supports, in an environment of their own.
test-tf219:
	$(MAKE) test-all VENV=.venv-tf219 PYTHON=python3.12

lint: $(VENV)/.installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

# The sdist and the wheel, for `twine upload dist/*`. REPOSITORY=https://... is where the README's
# links lead on the index; without it they are text.
dist: $(VENV)/.installed
	rm -rf build dist
	$(RUN)/python -m build
	$(RUN)/twine check --strict dist/*

$(VENV)/.installed: setup.py
	@[ -n "$(PYTHON)" ] || { echo "larq_nas needs Python 3.10 to 3.12: install one, or give PYTHON=..."; exit 1; }
	@echo "Installing TensorFlow and the rest into $(VENV): about a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN)/python -m pip install --quiet --quiet --editable '.[$(TENSORFLOW),dev]'
	@touch $@

# Without its dependencies: they pin a protobuf that makes tracing take twice as long.
$(VENV)/.zoo: $(VENV)/.installed
	@{ $(RUN)/python -m pip install --quiet --quiet 'typeguard>=4,<5' && \
		$(RUN)/python -m pip install --quiet --quiet --no-deps larq-zoo==2.4.0 zookeeper==1.4.0 && \
		touch $@; } || echo "larq-zoo could not be installed: the tests of its networks are skipped"

# The site, in site/: no page asks the internet for anything, so it can be opened as files.
.PHONY: docs
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --quiet --strict
	@echo "Open site/index.html"

$(VENV)/.docs: $(VENV)/.installed
	@$(RUN)/python -m pip install --quiet --quiet --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) .venv-tf219 runs site build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
