# Each target works by itself on a fresh clone with Python >= 3.11: it makes .venv and installs what it needs.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.PHONY: install demo test test-oldest lint gauntlet fuzz audit docs clean
install: .venv/installed

# torch first and by its pin, so that nothing else chooses another. On Linux without a GPU, point pip at a CPU
# build of torch (see pytorch.org) beforehand: the default one brings gigabytes of CUDA libraries.
.venv/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	$(PYTHON) -m venv --upgrade-deps .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: install
	$(BIN)/cosdd demo -o demo --overwrite

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: lint
	$(BIN)/pytest

# The oldest version of everything that pyproject.toml admits, in an environment of its own: do the numbers agree?
# Python 3.11, as older libraries know no newer one. As with torch above, point pip at a CPU build beforehand.
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest -W default tests/test_numbers.py tests/test_checkpoint.py

.venv-oldest/installed: pyproject.toml
	python3.11 -m venv --upgrade-deps .venv-oldest
	sed -n '/^dependencies = \[/,/^\]/s/^ *"\([a-z0-9-]*\)>=\([0-9.]*\).*/\1==\2/p' pyproject.toml > .venv-oldest/oldest.txt
	.venv-oldest/bin/python -m pip install --quiet --no-cache-dir -r .venv-oldest/oldest.txt pytest hypothesis beartype
	.venv-oldest/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

# Known vulnerabilities in the pinned versions, which asks the database of PyPI, and what bandit finds in the source.
# Where nothing can be asked, benchmarks/audit.py reads copies of such databases.
audit: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check bandit pip-audit
	$(BIN)/bandit -q -c pyproject.toml -r src
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

gauntlet: install
	COSDD_GAUNTLET=full $(BIN)/python -m pytest tests/gauntlet tests/test_numbers.py

# The site, in site/: open site/index.html.
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	$(BIN)/zensical build --clean --strict

# Guided by coverage where atheris can be installed, else by chance. Half an hour.
fuzz: install
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	PYTHONPATH=tests:. $(BIN)/python -m gauntlet.fuzz

clean:
	rm -rf .venv .venv-oldest demo site
