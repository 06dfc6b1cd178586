# `make demo` runs the main job on the embedded icons, and `make serve` searches them on a page. `make test` lints, checks
# types and runs every test. `make quick` lints and runs the tests without the marker `slow`, for a loop of work. Each
# makes the environment itself, in .venv.
PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: demo serve test quick docs clean
demo: .venv/ready
	$(BIN)/cig demo --out build/demo

serve: .venv/ready
	$(BIN)/cig serve icons --imagine --generator sdxl/icons

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 20

quick: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -q -m "not slow"

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf .venv build
