# make demo   train all three stages on drawn scenes, measure them, and write runs/demo/report.html
# make test   ruff, mypy and the tests
# make env    the set-up that both do by themselves: .venv with the pinned packages

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/ready

# Nothing is ever downloaded but the packages themselves.
export HF_HUB_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: env demo test

env: $(READY)

$(READY): pyproject.toml constraints.txt orderer/torchvision_operators.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PY) orderer/torchvision_operators.py
	touch $(READY)

demo: $(READY)
	$(PY) -m recipes.demo

test: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest --numprocesses 2 --dist loadfile
