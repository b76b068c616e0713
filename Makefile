# What one does with a checkout. Every target works on a clean clone with Rust installed.
# ARGS goes to the program behind a target: make load ARGS="--json"

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
RELEASE := $(TARGET)/release
ARGS ?=

.PHONY: build run load test lint fmt bench fuzz fuzz-smoke clean help

help:
	@echo "make run     build, make a configuration under ./run if there is none, and serve"
	@echo "make load    pour mail through the running server into the bundled sink"
	@echo "make test    everything: rooms, tidy, end to end, fuzz smoke"
	@echo "make lint    formatting, clippy, documentation, licences"
	@echo "make bench   small measurements of one room each"
	@echo "make fuzz    every fuzz target for a minute (SECONDS_EACH=60)"

build:
	$(CARGO) build --release --locked -p daemon -p loadtest

run/ringpost.toml: | build
	$(RELEASE)/ringpost init --directory run

run: build run/ringpost.toml
	exec $(RELEASE)/ringpost serve --config run/ringpost.toml $(ARGS)

# The sink ends by itself when nothing has come for a while: then all that was sent has arrived. Mail that was sent before there
# was a sink has the server leave it alone for a minute: it is told to try again.
load: build
	@$(RELEASE)/loadtest sink --quiet --idle 5s $(filter --json,$(ARGS)) & sink=$$!; \
	trap 'kill $$sink 2>/dev/null' INT TERM; \
	$(RELEASE)/ringpost queue retry --config run/ringpost.toml --destination hop:127.0.0.1:2600 >/dev/null 2>&1; \
	$(RELEASE)/loadtest source 127.0.0.1:2525 --domains loadtest.invalid $(ARGS) && wait $$sink || \
	{ kill $$sink 2>/dev/null; exit 1; }

test:
	tests/setup.sh
	tests/all.sh $(ARGS)

lint:
	.ci/lint

fmt:
	$(CARGO) fmt --all

bench:
	$(CARGO) bench -p bench $(ARGS)

SECONDS_EACH ?= 60
fuzz:
	tests/fuzz.sh $(SECONDS_EACH)

fuzz-smoke:
	tests/fuzz.sh smoke

clean:
	$(CARGO) clean
