# `make demo` and `make test`: the README's command lines in an environment of their own, .venv.
# `make docs`: the documentation as a site, build/docs/index.html. The first time all notebooks
# run, for minutes; later those alone whose text has changed.
PYTHON ?= python3

demo: .venv/run
	.venv/bin/python run.py --config=configs/demo.py

test: .venv/dev
	.venv/bin/python -m pytest

docs: .venv/docs
	.venv/bin/python -m sphinx -W --keep-going -b html docs build/docs

.venv/run: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements.txt
	touch $@

.venv/dev: requirements-dev.txt requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements-dev.txt
	touch $@

.venv/docs: requirements-docs.txt requirements-dev.txt requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -r requirements-docs.txt
	touch $@

.PHONY: demo test docs
