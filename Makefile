# Andiron: make run, make test, make bench. Everything else is reached from these three.
.DEFAULT_GOAL := help
SHELL := /bin/bash

DEBIAN_BUILD := libuv1-dev libhiredis-dev libcurl4-openssl-dev libssl-dev libyaml-dev libsqlite3-dev pkg-config python3 python3-venv
DEBIAN_TEST := redis-server rabbitmq-server
# Images: unpacking them, and the registry and tools their tests use.
DEBIAN_BUILD += libarchive-dev libzstd-dev zlib1g-dev libisal-dev
DEBIAN_TEST += docker-registry skopeo umoci apache2-utils zstd openssl
# The tools that must take our packages; without what they recommend, which is for desktops.
DEBIAN_TOOLS := buildah podman docker.io
DEBIAN_BENCH := nginx-light wrk
DEBIAN_FUZZ := libhttp-parser-dev
# Whole-program optimisation across the modules, and no exclusivity checks at run time: debug builds and tests
# keep them (docs/decisions/005-release-flags.md).
RELEASE := -c release --static-swift-stdlib -Xswiftc -cross-module-optimization -Xswiftc -enforce-exclusivity=unchecked -Xswiftc -Xfrontend -Xswiftc -disable-dynamic-actor-isolation
ANDIRON := .build/release/andiron
VENV := .venv
export ANDIRON_TEST_CACHE := $(CURDIR)/.build/andiron-cache

# Debian starts what it installs, some of it on all interfaces; tests start their own, on free ports of this machine. While packages
# are installed, policy-rc.d keeps their services from starting. $(1): packages; $(2): options of apt-get install.
define install
	@missing=""; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  echo "Installing$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo env DEBIAN_FRONTEND=noninteractive sh -ec 'policy=/usr/sbin/policy-rc.d; \
	    if [ ! -e $$policy ]; then trap "rm -f $$policy" EXIT; printf "#!/bin/sh\nexit 101\n" >$$policy; chmod 755 $$policy; fi; \
	    apt-get update -qq; apt-get install -y -qq $(2) "$$@" >/dev/null' sh $$missing; \
	fi
endef

.PHONY: help
help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 12

.PHONY: packages
packages:
	$(call install,$(DEBIAN_BUILD))

.PHONY: build
build: packages  ## the release binary, .build/release/andiron
	swift build $(RELEASE) --product andiron

.PHONY: run
run: build  ## install what is missing, build, start the repository's own function app
	$(ANDIRON) prepare
	exec $(ANDIRON) start $(ARGS)

$(VENV)/ready: Tests/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r Tests/requirements.txt
	touch $@

.PHONY: test
test: unit integration  ## every test, set-up included

.PHONY: unit
unit: packages lint  ## Swift tests: no network, no sleep
	swift build --build-tests
	swift test --skip-build

.PHONY: integration
integration: packages $(VENV)/ready  ## the real host, workers, Redis
	$(call install,$(DEBIAN_TEST))
	$(call install,$(DEBIAN_TOOLS),--no-install-recommends)
	swift build --product andiron
	ANDIRON=$(CURDIR)/.build/debug/andiron $(VENV)/bin/pytest -q Tests/Integration $(PYTEST)

.PHONY: lint
lint:  ## formatting
	swift format lint --strict --recursive Sources Tests Package.swift

.PHONY: bench
bench: build $(VENV)/ready  ## benchmarks beside nginx and azmlinfsrv; writes docs/reference/performance.md
	$(call install,$(DEBIAN_BENCH) $(DEBIAN_TEST))
	swift build $(RELEASE) --product amqp-load
	$(VENV)/bin/python Tests/Benchmark/servicebus.py --write
	$(VENV)/bin/python Tests/Benchmark/bench.py --write

SECONDS := 60
.PHONY: fuzz
fuzz: packages  ## every fuzz target for SECONDS seconds
	$(call install,$(DEBIAN_FUZZ))
	Tests/Fuzz/run $(SECONDS)

.PHONY: tutorial
tutorial: build $(VENV)/ready  ## train, register, package, push, create an app, start it cold from a registry, call it
	$(call install,docker-registry apache2-utils)
	$(VENV)/bin/pip install -q --disable-pip-version-check -r samples/requirements.txt
	samples/tutorial/run.sh

.PHONY: train
train: $(VENV)/ready  ## train the sample models again
	$(VENV)/bin/pip install -q --disable-pip-version-check -r samples/requirements.txt
	$(VENV)/bin/python samples/train.py

.PHONY: clean
clean:  ## remove what was built
	rm -rf .build $(VENV) .andiron
