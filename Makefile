# `make` lists the targets. PYTHON=... names an interpreter, TESTS=... hands arguments to pytest.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-servers test-versions test-warehouses test-orchestrators mutation docs-faults \
	servers lint format coverage bench limits docs requirements audit sbom clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WAREHOUSES := .venv-warehouses/.installed
BIGQUERY := .venv-bigquery/.installed
ORCHESTRATORS := .venv-orchestrators/.installed
UV := .venv-uv/bin/uv
AUDIT := .venv-audit/.installed

PYTHON ?=
TESTS ?=
# Tests wait about as long as they work.
WORKERS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))

# What is imported is compiled then: a third of the time saved.
PIP_INSTALL = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# As constraints too: pip before 23.3 takes the newest of `coverage[toml]`, which has no hash here, where `coverage` is
# pinned only.
INSTALL_PINS = $(PIP_INSTALL) --require-hashes --requirement $< --constraint $<

# The first interpreter that runs, is new enough and can make environments. Running it is the test: a version
# manager's shim can be on PATH and still start nothing.
FIND_PYTHON = \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3.10 python3); do \
		if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; \
		then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.10 or newer with its venv module is needed: $(if $(PYTHON),$(PYTHON) is not,none is on PATH)." >&2; \
		exit 1; \
	fi

# The emulator runs on 3.13 only. pyenv has one that its shims may hide.
FIND_PYTHON313 = \
	for python in python3.13 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.13*/bin/python3.13; do \
		if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then break; fi; \
		python=; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.13 is needed for the emulator of BigQuery." >&2; exit 1; fi

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Load a simulated LeadBoxer into a local DuckDB file
	$(BIN)/python pipelines/demo.py

test: $(INSTALLED) ## Run the tests, with branch coverage at the end
	$(BIN)/python -W "ignore:Unable to activate pytest:RuntimeWarning" -m slipcover -m pytest -n $(WORKERS) -m "not slow and not servers and not warehouses and not orchestrators" $(TESTS)

test-servers: $(INSTALLED) ## Run the tests that need PostgreSQL, Redis or a browser (`make servers` installs them)
	$(BIN)/python -m pytest -n $(WORKERS) -m servers $(TESTS)

test-warehouses: $(WAREHOUSES) $(BIGQUERY) ## Run the tests that need BigQuery, Snowflake, Delta Lake and Iceberg
	.venv-warehouses/bin/python -m pytest -n $(WORKERS) --dist loadgroup -m warehouses tests/test_destinations.py $(TESTS)

test-orchestrators: $(INSTALLED) $(ORCHESTRATORS) ## Run the examples in Airflow, Dagster, Prefect, cron and elsewhere
	$(BIN)/python -m pytest -n $(WORKERS) -m orchestrators -o faulthandler_timeout=900 $(TESTS)

servers: ## Install PostgreSQL, Redis and Chromium from Debian's packages, where they are missing
	@for package in postgresql redis-server chromium; do \
		dpkg -s $$package >/dev/null 2>&1 || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi

# What depends on versions: dlt's interfaces, the command line, types, and a whole load.
VERSION_TESTS = tests/test_plain_dlt.py tests/test_bad_input.py tests/test_check.py tests/test_profile.py \
	tests/test_schema.py tests/test_typed.py tests/test_resume.py tests/test_package.py

test-versions: .venv-3.10/.installed .venv-3.13/.installed ## Run tests on the lowest and on the newest versions
	.venv-3.10/bin/python -m pytest -n $(WORKERS) -m "not slow and not servers" $(or $(TESTS),$(VERSION_TESTS))
	.venv-3.13/bin/python -m pytest -n $(WORKERS) -m "not slow and not servers" $(or $(TESTS),$(VERSION_TESTS))

test-slow: $(INSTALLED) ## Run the long searches and full-size loads
	$(BIN)/python -m pytest -n $(WORKERS) -m slow -o faulthandler_timeout=900 $(TESTS)

mutation: $(INSTALLED) ## Measure how many small bugs the tests of the core find (about 10 minutes)
	rm -rf mutants
	$(BIN)/mutmut run
	@$(BIN)/mutmut results --all true | awk -F'[.: ]+' \
		'$$2 == "leadboxer_source" { all[$$3]++; if ($$NF == "survived" || $$NF ~ /no.tests|tests$$/) alive[$$3]++ } \
		END { for (module in all) printf "%-12s %4d mutants, %5.1f %% found\n", module, all[module], \
			100 * (1 - alive[module] / all[module]) }'

docs-faults: $(INSTALLED) ## Write docs/faults.md anew from what the tests see
	rm -f docs/faults.md
	LEADBOXER_WRITE_DOCS=1 $(BIN)/python -m pytest -q -n 0 tests/test_faults.py

lint: $(INSTALLED) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

coverage: $(INSTALLED) ## Run the package's tests and write coverage to htmlcov/index.html
	$(BIN)/python -m pytest -n $(WORKERS) -m "not warehouses and not orchestrators" --cov --cov-report=term-missing:skip-covered --cov-report=html $(TESTS)

bench: $(INSTALLED) ## Measure requests, makespan, rows per second and memory
	$(BIN)/python -m benchmarks

limits: $(INSTALLED) ## Write the tables of docs/limits.md anew
	$(BIN)/python -m benchmarks.limits

docs: .venv-docs/.installed ## Build the documentation to build/docs/index.html
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

PIN = UV_PYTHON_DOWNLOADS=never $(UV) pip compile --no-config --quiet --python .venv-uv/bin/python \
	--universal --generate-hashes --no-header --no-emit-index-url $(if $(UPGRADE),--upgrade)

requirements: $(UV) ## Pin again what pyproject.toml asks for (UPGRADE=1: at the newest versions)
	$(PIN) --python-version 3.10 --extra duckdb --extra postgres --extra redis --extra sandbox --group dev --group mutation \
		--output-file requirements-dev.txt pyproject.toml
	$(PIN) --python-version 3.10 --extra duckdb --extra redis --extra sandbox --extra bigquery --extra postgres --extra snowflake \
		--group warehouses --output-file requirements-warehouses.txt pyproject.toml
	$(PIN) --python-version 3.13 --group bigquery-emulator --output-file requirements-bigquery.txt
	$(PIN) --python-version 3.10 --extra duckdb --extra postgres --extra airflow --extra dagster --extra prefect \
		--group orchestrators --output-file requirements-orchestrators.txt pyproject.toml
	$(PIN) --python-version 3.10 --group docs --output-file requirements-docs.txt

audit: $(AUDIT) ## Look for known vulnerabilities in the pinned packages
	.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
		$(addprefix -r ,$(wildcard requirements-*.txt))

sbom: $(INSTALLED) $(AUDIT) ## Write what the environment is made of to dist/sbom.cdx.json (CycloneDX)
	@mkdir -p dist
	.venv-audit/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --mc-type library \
		--output-format JSON --output-file dist/sbom.cdx.json $(BIN)/python

clean: ## Remove environments, builds and caches
	rm -rf $(VENV) .venv-* build dist htmlcov mutants .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements-dev.txt pyproject.toml
$(WAREHOUSES): requirements-warehouses.txt pyproject.toml
$(ORCHESTRATORS): requirements-orchestrators.txt pyproject.toml
$(INSTALLED) $(WAREHOUSES) $(ORCHESTRATORS):
	@$(FIND_PYTHON); echo "Making $(@D) with $$python"; "$$python" -m venv --clear $(@D)
	@$(INSTALL_PINS)
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv-docs/.installed: requirements-docs.txt
	@$(FIND_PYTHON); echo "Making .venv-docs with $$python"; "$$python" -m venv --clear .venv-docs
	@$(INSTALL_PINS)
	@touch $@

# Python 3.10 gets the floor of every dependency, Python 3.13 the newest versions. pip is new enough for groups.
.venv-3.10/.installed .venv-3.13/.installed: .venv-%/.installed: pyproject.toml
	@for python in python$* "$$HOME"/.pyenv/versions/$*.*/bin/python; do \
		"$$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && break; python=; done; \
	if [ -z "$$python" ]; then echo "Python $* with its venv module is needed: python$* is not on PATH." >&2; exit 1; fi; \
	echo "Making .venv-$* with $$python"; "$$python" -m venv --clear .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@sed -n '/^dependencies = /,/^]/s/^    "\([a-z-]*\)>=\([0-9.]*\)",.*/\1==\2/p' pyproject.toml > .venv-$*/floors.txt
	@.venv-$*/bin/python -m pip install --quiet --no-compile --group dev --editable '.[duckdb,redis,sandbox]' \
		$(if $(filter 3.10,$*),--constraint .venv-$*/floors.txt)

# DuckDB's extensions are laid out as DuckDB does it itself at the home that tests give the emulator.
$(BIGQUERY): requirements-bigquery.txt
	@$(FIND_PYTHON313); echo "Making $(@D) with $$python"; "$$python" -m venv --clear $(@D)
	@$(INSTALL_PINS)
	@$(@D)/bin/python -c 'import duckdb; print(duckdb.__version__, *duckdb.sql("PRAGMA platform").fetchone())' | \
		while read -r version platform; do \
			mkdir -p $(@D)/.duckdb/extensions/v$$version/$$platform; \
			ln -sf $(CURDIR)/$(@D)/lib/python*/site-packages/duckdb_extension_*/extensions/v$$version/*.duckdb_extension \
				$(@D)/.duckdb/extensions/v$$version/$$platform/; \
		done
	@touch $@

$(UV):
	@$(FIND_PYTHON); "$$python" -m venv --clear .venv-uv
	@.venv-uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(AUDIT):
	@$(FIND_PYTHON); "$$python" -m venv --clear .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom
	@touch $@
