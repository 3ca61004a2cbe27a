# rollup_ext: every way to build, test and see it. `make help` lists the targets.

PG_CONFIG ?= pg_config
export PG_CONFIG DESTDIR

.DEFAULT_GOAL := build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PG_CONFIG=/path/to/pg_config chooses the PostgreSQL (15 to 18); now: $(PG_CONFIG)"

setup: ## install what is missing to build and test: packages, cargo-pgrx (Debian 12)
	@scripts/setup

build: ## build the extension in release mode
	@scripts/build release

# Under sudo, what the user built is installed as it is: root need not have cargo.
install: $(if $(SUDO_USER),,build) ## install it into the PostgreSQL behind PG_CONFIG, below DESTDIR if set
	@scripts/install release

uninstall: ## remove it from there
	@scripts/uninstall

installcheck: ## run pg_regress and the isolation specs against the running server of PGHOST, PGPORT, PGUSER
	@scripts/installcheck

test: setup ## all tests, in private servers; SUITES="regress cluster" runs some; last line: N passed, N failed, N skipped
	@scripts/test $(SUITES)

test-citus: setup ## the tests on a cluster of a coordinator and two workers; skipped by name unless Citus is installed
	@scripts/test citus

fuzz: ## fuzz whatever reads a sketch, FUZZ_RUNS inputs for each target (10000000); installs cargo-fuzz if absent
	@scripts/fuzz $(TARGETS)

lint: ## rustfmt and clippy, warnings are errors
	@scripts/lint

demo: setup ## the clickstream workshop on a private server: load, roll up, ingest live, query, prove
	@demo/run

demo-stop: ## stop the demo's server and remove its files
	@demo/stop

bench: setup ## the published recipe against ours, on the same events in one run
	@bench/run

bench-sketches: setup ## HLL and TopN against the peers, in one run
	@bench/sketches

bench-writers: setup ## what writers notice of a rollup each second, and of the recipe's lock
	@bench/writers

bench-passing: setup ## what a rollup lacks while a writer stays open, with and without going past it
	@bench/passing

bench-citus: setup ## one server against a Citus cluster on this machine, and the recipe there, in one run
	@bench/citus

clean: demo-stop ## remove everything that was built, and the private installations
	@scripts/clean

.PHONY: help setup build install uninstall installcheck test test-citus fuzz lint demo demo-stop bench bench-sketches bench-writers bench-passing bench-citus clean
