# `make demo` and `make test`: the README's command lines in an environment of their own, .venv.
PYTHON ?= python3

demo: .venv/run
	.venv/bin/python run.py --config=configs/demo.py

test: .venv/dev
	.venv/bin/python -m pytest

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements.txt
	touch $@

.venv/dev: requirements-dev.txt requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements-dev.txt
	touch $@

.PHONY: demo test
