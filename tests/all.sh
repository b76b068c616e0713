#!/usr/bin/env bash
# Every test: those of the rooms, the tidy test, end to end, and a short run of each fuzz target.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step 'the program, for the tests that start it'
cargo build --locked -p daemon -p loadtest

step 'rooms and house'
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast "$@"
else
    cargo test --workspace --locked --no-fail-fast --quiet "$@"
fi

step 'fuzz targets, shortly'
tests/fuzz.sh smoke
