# Programs, images and build results that outlive a clone are in this one folder.
export MINIMALIMAGE_CACHE ?= $(HOME)/.cache/minimalimage
PLUGIN_DIR ?= $(HOME)/.local/bin
export CARGO_TARGET_DIR ?= $(MINIMALIMAGE_CACHE)/target

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-cluster lint fmt generate check-generated image install plugin bench-cluster bench-artifact fuzz clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## From nothing to a running image: cluster, operator, example
	@tests/demo

test: ## Everything that CI runs, with the time of each part
	@tests/all lint check-generated test-fast test-cluster demo

test-fast: ## The tests that need no cluster
	@tests/setup
	cargo test

test-cluster: ## The tests on a cluster: starts or uses one, installs the operator
	@tests/on-cluster

lint: ## Formatting, clippy, scripts, chart, manifests, licences
	@tests/lint

fmt: ## Format Rust and Go
	cargo fmt
	gofmt -w tests examples

generate: ## Write the CRD, the chart's copy of it, deploy/ and docs/reference.md
	@tests/generate

check-generated: ## Fail if `make generate` would change something
	@tests/generate --check

include tests/cluster/cluster.mk

image: ## Build the operator's image and push it to the cluster's registry
	@tests/image

install: ## Install the operator of this tree on the cluster, or update it
	@tests/install

plugin: ## Build the program and put it on the PATH, as minimalimage and as kubectl's plugin
	cargo build --release
	install -D "$(CARGO_TARGET_DIR)/release/minimalimage" "$(PLUGIN_DIR)/minimalimage"
	ln -sf minimalimage "$(PLUGIN_DIR)/kubectl-minimalimage"

bench-cluster: ## Time from apply to Ready beside bare Jobs, on the cluster
	@tests/bench/cluster

bench-artifact: ## Time and memory from a large tree to a layer, beside crane and buildah
	@tests/bench/artifact

fuzz: ## Fuzz the parsers, a minute each (tests/fuzz SECONDS for longer)
	@tests/fuzz

clean: ## Remove what Cargo built; the other caches stay
	cargo clean
