# `make check` is the gate that every change passes. All of it runs through uv, in the project's
# own environment, and offline once `uv sync` has run.

.DEFAULT_GOAL := help
.PHONY: help check lint test coverage wheel docs format migration crash bench audit reliability load soak suite conformance

SUITE = tests/conformance/node_modules/.package-lock.json

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

check: lint coverage ## Run the whole gate: lint, docs, tests with coverage, the wheel

lint: ## Check format, style, types, import direction, and that generated pages are fresh
	uv run ruff format --check
	uv run ruff check
	uv run mypy
	PYTHONPATH=typings uv run lint-imports --no-logo
	uv run python -m persona_mcp.server.reference --check

test: ## Run the tests
	uv run pytest

coverage: ## Run the tests, the wheel's too, and ask for 95 % of all branches
	uv run coverage erase
	uv run pytest --cov --cov-report=term

wheel: ## Build sdist and wheel in a temporary folder, and check what is in them and that they run
	uv run pytest -n 0 -m wheel

docs: ## Write the pages that are made from the code
	uv run python -m persona_mcp.server.reference

format: ## Bring sources into the common format
	uv run ruff format
	uv run ruff check --fix

migration: ## Write the next schema revision from the tables: make migration name="add a nickname"
	@test -n "$(name)" || { echo 'name it: make migration name="add a nickname"'; exit 1; }
	uv run python -m persona_mcp.migrations.new "$(name)"
	uv run ruff format migrations/versions

bench: ## Measure an exchange, a batch, each door, the start, upkeep and relationships; prints ratios to a baseline
	uv run python -m benchmarks.exchange
	uv run python -m benchmarks.batch
	uv run python -m benchmarks.doors
	uv run python -m benchmarks.start
	uv run python -m benchmarks.upkeep
	uv run python -m benchmarks.relationships

crash: ## Kill processes that talk, write memories, update relationships or run batches; look for losses
	uv run python -m benchmarks.crash --rounds 100
	uv run python -m benchmarks.crash_memory --rounds 50
	uv run python -m benchmarks.crash_relationships --rounds 50
	uv run python -m benchmarks.crash_batch --rounds 30

audit: ## Ask the advisory databases about every locked package: needs a network
	mkdir -p build
	uv export --quiet --locked --all-extras --no-dev --no-emit-project --output-file build/locked.txt
	uvx pip-audit --disable-pip --requirement build/locked.txt

reliability: ## Break the server under load in every known way, and write docs/reliability.md: about an hour
	uv run python -m benchmarks.reliability --write

load: ## Talk in 500 sessions at once for ten minutes: errors, processor time, memory
	uv run python -m benchmarks.load

soak: ## Talk 20,000 exchanges long, and look what grows
	uv run python -m benchmarks.soak

suite: $(SUITE) ## Fetch the official MCP conformance suite, the Inspector and their Node: needs npm and a network

# Not `npm ci`: it refuses a lock file that names an optional package (vite's, for Windows) which a
# registry may lack. The versions are those of the lock file all the same.
$(SUITE): tests/conformance/package-lock.json
	cd tests/conformance && npm install --no-save --loglevel=error
	touch $@

conformance: suite ## Run the official MCP conformance suite and Inspector against `persona serve`
	uv run python -m tests.conformance.run
