# Recipes. Each is one line here and a script or a program that says more.

BIN = $${CARGO_TARGET_DIR:-target}/debug

help: ## print this
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | awk -F'\t' '{ printf "  make %-11s %s\n", $$1, $$2 }'

demo: tools ## a Service gets an address, answers on it, and survives the death of its node (root)
	@$(BIN)/lab demo

lab: tools ## bring up a cluster of three nodes, leave it running, say how to use it (root)
	@$(BIN)/lab up

test: setup ## everything that is tested; SUITES="api chart" runs some (root)
	@e2e/scripts/test.sh $(SUITES)

check: ## everything that needs no root: format, lints, unit tests, generated files, direction, links, licences
	@e2e/scripts/check.sh

bench: tools ## measure latency, memory and size of the release binaries; ONLY=alloc runs one (root)
	@$(BIN)/bench $(ONLY)

fuzz: ## feed odd configurations to what reads them, a minute for each target; TIME=600 TARGETS="manifest" says otherwise
	@TIME=$(or $(TIME),60) e2e/scripts/fuzz.sh run $(TARGETS)

gen: ## write the generated files: crds/yaml, the chart's copy of it, the chart's goldens, docs/reference
	@cargo run --quiet -p patina-crds --bin crdgen
	@mkdir -p charts/patina/files/crds && cp crds/yaml/*.yaml charts/patina/files/crds/
	@cargo build --quiet --workspace --bins
	@UPDATE_GOLDEN=1 cargo test --quiet -p patina-e2e --test chart --test docs_check

fmt: ## format the sources
	@cargo fmt --all

deny: ## licences, banned and doubled crates, sources of crates
	@. e2e/scripts/common.sh; "$$(cargo_deny)" check bans licenses sources

advisories: ## known vulnerabilities; clones the advisory database, so it needs the internet
	@. e2e/scripts/common.sh; "$$(cargo_deny)" check advisories

build: ## build the programs
	@cargo build --workspace --bins

setup: ## install the packages that are missing, and say what for
	@e2e/scripts/setup.sh

tools: setup build ## build Kubernetes' programs, etcd and Helm, once
	@$(BIN)/lab-tools >/dev/null

clean: ## remove what was built here
	@cargo clean

.PHONY: help demo lab test check bench fuzz gen fmt deny advisories build setup tools clean
SHELL = /bin/bash
.SHELLFLAGS = -euo pipefail -c
