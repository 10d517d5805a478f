# Everything that is done with this repository starts here. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

include make/platform.mk
include make/chart.mk

HELM = $(shell tools/build --print helm)/helm
BIN := target/bin
INSTANCE ?= demo
EXAMPLE ?= shop
RUNS ?= 20

.PHONY: help demo demo-down demo-time test build images chart generate bench verify-generated check-layers lint unit gitops gitops-generate e2e crash shop-kills bad-input newcomer upgrade clean conformance book

## help: this list
help:
	@sed -n 's/^## \([a-z0-9-]*: .*\)/\1/p' $(MAKEFILE_LIST) | sort | awk -F': ' '{ printf "  %-18s %s\n", $$1, $$2 }'

## demo: a shop on three Debian servers, on a Kubernetes of your own (root; 20 minutes once, then 2); EXAMPLE=first for two and Redis
demo: build
	scripts/demo $(INSTANCE) $(EXAMPLE)

## demo-down: take the demo down in reverse order, whichever it is, and stop its Kubernetes
demo-down:
	scripts/demo-down $(INSTANCE)

## demo-time: the demo on an instance of its own, which fails where it takes longer than it may, and down again (root)
demo-time: build
	scripts/demo-time

## build: binaries, embedded Kubernetes and images, all cached per user; leaves target/bin/provisioning
build: packages
	scripts/step "embedded Kubernetes" tools/build
	scripts/step "binaries" scripts/build-binaries $(BIN)
	scripts/step "server image" images/server/build $(BIN)/provisioning
	scripts/step "images" scripts/build-images $(BIN)

## test: everything that CI runs (root)
test: packages
	scripts/step "generated files" $(MAKE) verify-generated
	scripts/step "layers" $(MAKE) check-layers
	scripts/step "lint" $(MAKE) lint
	scripts/step "unit tests" $(MAKE) unit
	scripts/step "GitOps" $(MAKE) gitops
	$(MAKE) build
	scripts/step "chart" $(MAKE) chart-lint chart-test
	scripts/step "platform" $(MAKE) platform-test
	scripts/step "end to end" $(MAKE) e2e
	scripts/step "demo in its time" scripts/demo-time

## unit: tests without a cluster
unit:
	cargo test --workspace --exclude provisioning-e2e

## gitops: kstatus, Argo CD's Lua and Flux's CEL judge recorded objects
gitops:
	cd tools/gitops && GOFLAGS= GOWORK=off go test -count=1 ./...

## gitops-generate: write anew what kstatus and the others are shown, and the ConfigMap of Argo CD's scripts
gitops-generate:
	GOLDEN=write cargo test -q --workspace --exclude provisioning-e2e --lib recorded
	cd tools/gitops && GOFLAGS= GOWORK=off GOLDEN=write go test -count=1 -run ConfigMap ./...

## conformance: providers against their contract, printed as tables (part of `make unit`)
conformance:
	cargo test --workspace --exclude provisioning-e2e --test conformance -- --nocapture

## e2e: the whole on a real Kubernetes with real servers (root)
e2e:
	scripts/e2e

## upgrade: the chart's life, upgraded in mid-run from the operator of an earlier commit: make upgrade FROM=COMMIT (root; 8 minutes)
upgrade:
	scripts/previous '$(FROM)' target/previous
	$(MAKE) build
	PREVIOUS=target/previous scripts/e2e chart

## crash: only faults in mid-run: kills, reboots, restarts (root; 10 minutes)
crash:
	scripts/e2e crash

## shop-kills: RUNS shops (20), three at a time, their operator killed at random (root; 7 minutes each three); SHOP_SEED=N once more
shop-kills:
	SHOP_RUNS='$(RUNS)' SHOP_SEED='$(SHOP_SEED)' scripts/e2e shop-kills

## bad-input: only the cases of bad input, printed as a table (root)
bad-input:
	scripts/e2e bad_input

## generate: write what is made from the sources: CRDs, bundles, golden files
generate:
	cargo run -q -p provisioning-api --example generate-crds crds
	scripts/share-library
	cargo run -q -p provisioning-extensions --example bundle-configmaps -- taskservs $(CHART)/files/extensions
	$(MAKE) chart-generate

## verify-generated: fail where a generated file is not what `generate` writes
verify-generated:
	scripts/verify-generated

## check-layers: fail on a dependency between crates that the architecture forbids
check-layers:
	scripts/check-layers

## lint: format, clippy, sizes of files, shell scripts' syntax
lint:
	scripts/lint

## newcomer: do what the README says in an empty folder with an empty HOME and cache (root; long)
newcomer:
	scripts/newcomer

## bench: the figures of docs/figures.md, on a Kubernetes with a stand-in for the kubelet (root; 15 minutes); OPTIONS=--help tells how to have a smaller one
bench: build
	scripts/step "bench" scripts/build-binaries $(BIN) bench
	scripts/bench $(OPTIONS)

## book: the documentation in HTML, target/book/index.html (builds mdBook once)
book:
	scripts/book target/book

## clean: remove this checkout's outputs; the user's cache stays
clean:
	rm -rf target
