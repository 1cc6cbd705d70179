# `make help` says what there is.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo soak bench image e2e check test test-all compat fmt lint docs dashboard-picture crd chart reasons clean

help: ## Says what there is.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 10

demo: ## Shows the operator at work on a control plane of its own. KEEP=1 leaves it running.
	@tests/control-plane/build >/dev/null
	@cargo build --workspace --bin boltz-operator --bin demo
	@$${CARGO_TARGET_DIR:-target}/debug/demo $(if $(KEEP),--keep)

soak: ## 200 objects, random users, faults and restarts, judged all the time. MINUTES=10 OBJECTS=200 SEED=
	@tests/control-plane/build >/dev/null
	@cargo build --workspace --bin boltz-operator --bin soak
	@$${CARGO_TARGET_DIR:-target}/debug/soak

bench: ARCH = $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
bench: ## Measures the static binary against a bare loop that makes the same calls. PARTS=issue,memory,… ROUNDS=5 OBJECTS=10000 OPERATOR=
	@tests/control-plane/build >/dev/null
	@[ -n "$$OPERATOR" ] || release/binaries $(ARCH)
	@cargo build --release --package boltz-harness --bin bench
	@OPERATOR="$${OPERATOR:-dist/$(ARCH)/boltz-operator}" $${CARGO_TARGET_DIR:-target}/release/bench

image: ARCH = $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(shell uname -m)))
image: ## Builds static binaries and images of operator and emulator into dist/. ARCH="amd64 arm64" IMAGE=<name>:<tag>
	@release/binaries $(ARCH)
	@release/image $(ARCH)

e2e: ## From helm install to a workload with a working key, on a node made on the spot (as root), or KUBECONFIG= IMAGE= EMULATOR_IMAGE=
	@[ -n "$${E2E_KUBECONFIG:-$$KUBECONFIG}" ] || $(MAKE) --no-print-directory image
	@E2E_KUBECONFIG="$${E2E_KUBECONFIG:-$$KUBECONFIG}" cargo test --quiet --test node e2e:: -- --nocapture

check: ## Formatting, lints, unit tests, decisions, client, emulator: what to run while you work.
	@tests/run check

test: ## What has to pass before a change lands: check, and the lifecycle and the chart on a real API server.
	@tests/run test

test-all: ## Everything: the whole matrix, a real node, images, the model, soak, fuzzing, each defence switched off.
	@tests/run all

compat: ## The lifecycle on each older release of Kubernetes that is supported.
	@tests/run compat

fmt: ## Formats the code.
	cargo fmt --all

lint: ## Formatting and lints, warnings denied.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- --deny warnings

docs: ## Builds the documentation site into target/site and checks its links. The first time it compiles mdBook: some minutes.
	@tests/tools/docs

dashboard-picture: ## Draws docs/images/dashboard.png from what a Prometheus says of an operator in trouble. Takes some minutes.
	@PICTURE=docs/images/dashboard.png cargo test --quiet --workspace --test cluster chart::dashboard::a_picture -- --ignored --nocapture

crd: ## Generates crds/ from the types, and the chart's copy, which Helm cannot reach elsewhere.
	for name in boltzapikeys boltzaccounts; do \
		cargo run --quiet --example crdgen $$name > crds/$$name.yaml.new && mv crds/$$name.yaml.new crds/$$name.yaml || exit 1; \
		cp crds/$$name.yaml charts/boltz-operator/files/crds/; \
	done

chart: ## Renders the chart's defaults: deploy/ for kustomize and the tests, tests/cluster/chart/golden/ for what a reviewer should see; and writes the pages about its values.
	cargo run --quiet --example chartdocs
	@helm=$$(tests/control-plane/build helm)/helm && chart="boltz-operator charts/boltz-operator --namespace boltz-system" && \
		$$helm template $$chart --no-hooks > deploy/base/boltz-operator.yaml.new && \
		$$helm template $$chart --show-only templates/tests.yaml > tests/cluster/chart/golden/hooks.yaml.new && \
		$$helm install $$chart --dry-run=client | sed -n '/^NOTES:/,$$p' > tests/cluster/chart/golden/NOTES.txt.new && \
		for file in deploy/base/boltz-operator.yaml tests/cluster/chart/golden/hooks.yaml tests/cluster/chart/golden/NOTES.txt; do mv $$file.new $$file; done

reasons: ## Writes docs/runbooks/reasons.md, a section for each reason, from src/explain.
	REASONS=write cargo test --quiet --lib explain

clean: ## Removes what was built here; the control plane's cache outside the tree stays.
	cargo clean
