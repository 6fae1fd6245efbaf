# One command per intent, the same on a laptop and in CI. `make` alone lists them.
# The environment lives in .venv and is made from the lock files. Run as root on Debian, a target installs the Debian
# packages that it needs; otherwise it says which are missing (tools/packages).

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := .venv/bin
NODE := tests/peers/node
RED := tests/bench/peers/node-red
TB := build/bench/peers/tb
SNAP7 := build/peers/snap7
CYCLONEDX := build/peers/cyclonedx
ANSIBLE := build/ansible
COLLECTIONS := build/collections
SITE ?= site.yaml
ARGS ?=
SCENARIO ?=
COMPILER := gcc libc6-dev pkg-config libmodbus-dev
TEST_PACKAGES := python3-venv $(COMPILER) curl mosquitto mosquitto-clients openssl e2fsprogs nodejs npm \
	strace faketime util-linux libcoap3-bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header pyproject.toml build.in --extra all

.PHONY: help demo test check bench bench-peers profile long run docs release-api molecule lint-ansible lock clean packages image bundle bundle-key

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo '  More arguments: make demo outage=20 for=60, make test ARGS="-k journal"'

demo: .venv/.demo ## a simulated plant, a broker, the gateway and a consumer; shows data arriving (outage=S, for=S)
	@tools/packages --optional mosquitto
	@$(BIN)/holdfast demo $(if $(outage),--outage $(outage)) $(if $(for),--for $(for)) $(ARGS)

test: packages .venv/.dev $(NODE)/node_modules/.made $(SNAP7)/.made $(CYCLONEDX)/.made ## every test, with real peers; three runs side by side, one with ARGS
	$(BIN)/python -m tests $(ARGS)

check: .venv/.dev ## lint, format, types, import directions, generated documents, the API against the released one
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.reference --check
	$(BIN)/python tools/client.py --check
	$(BIN)/python tools/release_api.py --check
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_docs.py

bench: .venv/.dev ## speed, measured (ten minutes)
	@tools/packages $(COMPILER) mosquitto
	$(BIN)/python -m tests.bench $(ARGS)

bench-peers: packages .venv/.dev $(RED)/node_modules/.made $(TB)/.made ## the same loads on other gateways, side by side (25 minutes)
	$(BIN)/python -m tests.bench.peers $(ARGS)

profile: .venv/.dev ## where the gateway's time goes at full speed (a minute)
	@tools/packages $(COMPILER) mosquitto
	$(BIN)/python -m tests.bench.profile $(ARGS)

long: packages .venv/.dev $(NODE)/node_modules/.made $(SNAP7)/.made $(CYCLONEDX)/.made ## the campaigns with their large figures (hours)
	HOLDFAST_CAMPAIGN=long $(BIN)/python -m pytest -rP $(or $(ARGS),tests/faults tests/fuzz)

run: .venv/.demo ## the gateway with your own document: make run SITE=site.yaml
	$(BIN)/holdfast run $(SITE) $(ARGS)

docs: .venv/.dev ## write the generated pages again
	$(BIN)/python -m tools.reference
	$(BIN)/python tools/client.py

release-api: .venv/.dev ## today's API becomes the released one, which later ones are held against
	$(BIN)/python tools/release_api.py $(ARGS)

molecule: packages .venv/.dev $(ANSIBLE)/.made ## the roles on real Debian hosts: make molecule SCENARIO=default, or all (an hour, as root)
	@tools/packages mmdebstrap systemd-container iproute2 openssh-client
	PATH="$(CURDIR)/$(ANSIBLE)/bin:$$PATH" $(BIN)/python -m tools.molecule $(SCENARIO)

lint-ansible: $(ANSIBLE)/.made ## ansible-lint of the collection and its scenarios, offline
	ANSIBLE_COLLECTIONS_PATH=$(CURDIR)/$(COLLECTIONS) PATH="$(CURDIR)/$(ANSIBLE)/bin:$$PATH" ansible-lint --config-file .config/ansible-lint.yml --strict ansible molecule

lock: .venv/.dev ## resolve the dependencies anew
	$(COMPILE) --upgrade -o requirements.lock
	$(COMPILE) --upgrade --group dev -c requirements.lock -o requirements-dev.lock
	$(subst pyproject.toml build.in --extra all,molecule/requirements.in,$(COMPILE)) --upgrade -o molecule/requirements.lock

bundle: .venv/.dev ## everything for a site without internet, in one signed file: make bundle KEY=private.pem
	@test -n "$(KEY)" || { echo 'Which key signs? make bundle KEY=private.pem (make bundle-key KEY=private.pem makes one)' >&2; exit 1; }
	@$(BIN)/python -m tools.bundle make --key "$(KEY)" $(ARGS)

image: .venv/.dev ## the container: built, tested and kept in build/image (as root on Debian; BASE=image@digest)
	@tools/packages podman runc netavark aardvark-dns iptables mmdebstrap mosquitto
	HOLDFAST_IMAGE=1 BASE="$(BASE)" $(BIN)/python -m pytest -v -x tests/images $(ARGS)

bundle-key: .venv/.dev ## the key pair that bundles are signed with: make bundle-key KEY=private.pem
	@test -n "$(KEY)" || { echo 'Where to? make bundle-key KEY=private.pem' >&2; exit 1; }
	@$(BIN)/python -m tools.bundle key "$(KEY)"

clean: ## remove everything that was made, data of the demo included
	rm -rf .venv build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis $(NODE)/node_modules $(RED)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@PYTHON="$(PYTHON)" tools/packages $(TEST_PACKAGES)

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: install it, or name it: make PYTHON=/path/to/python3' >&2; exit 1; }
	@PYTHON="$(PYTHON)" tools/packages python3-venv
	$(PYTHON) -m venv .venv

.venv/.demo: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: requirements-dev.lock requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) --require-hashes -r requirements-dev.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@ .venv/.demo

$(NODE)/node_modules/.made: $(NODE)/package-lock.json
	npm ci --prefix $(NODE) --no-audit --no-fund
	@touch $@

$(SNAP7)/.made: tests/peers/snap7.lock | .venv/.dev
	$(PIP) --require-hashes --no-deps --upgrade --target $(@D) -r $<
	@touch $@

$(CYCLONEDX)/.made: tests/tools/cyclonedx.lock | .venv/.dev
	$(PIP) --require-hashes --no-deps --upgrade --target $(@D) -r $<
	@touch $@

$(RED)/node_modules/.made: $(RED)/package-lock.json
	npm ci --prefix $(RED) --omit=optional --ignore-scripts --no-audit --no-fund
	@touch $@

$(TB)/.made: tests/bench/peers/thingsboard.lock | .venv/bin/python
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@

# The controller's tools have an environment of their own: they are no part of the gateway, nor is their licence.
$(ANSIBLE)/.made: molecule/requirements.lock | .venv/bin/python
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	mkdir -p $(COLLECTIONS)/ansible_collections/holdfast
	ln -sfn $(CURDIR)/ansible $(COLLECTIONS)/ansible_collections/holdfast/gateway
	@touch $@
