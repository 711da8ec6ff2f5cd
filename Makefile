# The verbs of development. CI calls `make test`; the README shows `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: venv demo test test-all check bench vectors docs lock bundle fuzz site clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt tools/make_venv.sh
	PYTHON="$(PYTHON)" VENV="$(VENV)" sh tools/make_venv.sh
	touch $(STAMP)

# DATA=FOLDER sends those files too.
demo: venv
	$(BIN)/python -m tools.demo $(DATA)

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.:core $(BIN)/lint-imports

test: check
	$(BIN)/pytest

test-all: check
	sh tools/install_peers.sh
	$(BIN)/pytest -m ""

bench: venv
	$(BIN)/python -m benchmarks

# The only writer of the golden vectors.
vectors: venv
	$(BIN)/python -m tools.make_vectors

# The generated parts of the documentation; a test says when they are stale.
docs: venv
	$(BIN)/python -m tools.make_conformance
	$(BIN)/python -m tools.make_settings_doc
	$(BIN)/python -m tools.make_logging_doc
	$(BIN)/python -m tools.make_metrics_doc
	$(BIN)/python -m tools.make_dashboard
	$(BIN)/dicom-node config schema > config/dicom-node.schema.json

# The manual as pages, in site/.
site: venv
	$(BIN)/mkdocs build --strict --quiet

lock: venv
	$(BIN)/pip-compile --quiet --strip-extras --extra dev --extra fuzz --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --output-file constraints.txt pyproject.toml

# Everything that an installation without a network needs, in dist/; EXTRA=cpu adds TensorFlow.
bundle: venv
	PYTHON=$(BIN)/python sh packaging/make_bundle.sh $(EXTRA)

# Coverage-guided fuzzing of what strangers' bytes go through; SECONDS for each of the targets.
fuzz: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	PYTHONPATH=.:core $(BIN)/python -m tests.fuzz all --seconds $(or $(SECONDS),60)

clean:
	rm -rf $(VENV) build dist site fuzz-out demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
