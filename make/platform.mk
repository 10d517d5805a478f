# The local platform: its programs, packages and images. See operator/platform and tools/build.
CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/provisioning
CARGO_TARGET_DIR ?= $(CACHE)/target
export CARGO_TARGET_DIR
# Another checkout may have built there last.
ifneq ($(filter-out help clean,$(MAKECMDGOALS)),)
CLAIM := $(shell scripts/claim-target "$(CARGO_TARGET_DIR)" >&2 || echo failed)
$(if $(CLAIM),$(error scripts/claim-target failed))
endif
PROVISIONING ?= $(CARGO_TARGET_DIR)/debug/provisioning

.PHONY: packages kubernetes server-image platform-test provisioning

## packages: install the Debian packages that are missing (root)
packages:
	tools/install-packages

## kubernetes: build Kubernetes, etcd, containerd, helm, nu and pause into the cache; 10 minutes once, then nothing
kubernetes:
	tools/build

## provisioning: build the command line
provisioning:
	cargo build -p provisioning-cli

## server-image: build the Debian that servers of the Local provider boot
server-image: provisioning
	images/server/build $(PROVISIONING)

## platform-test: start, kill, stop and purge real instances (root; about a minute)
platform-test: kubernetes
	PROVISIONING_PLATFORM_TESTS=1 cargo test -p provisioning-platform --test instance -- --ignored --nocapture
