#!/usr/bin/env bash
# Runs the targets of fuzz/targets.txt: `smoke` replays the corpus and some thousand inputs each, a number is seconds
# for each, and more words are the targets to run instead of all.
#
# cargo-fuzz is not needed: a target is a program that libFuzzer drives, and what cargo-fuzz adds are flags.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

much=${1:?smoke, or seconds for each target}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(grep -v '^\s*\(#\|$\)' targets.txt)

# Coverage is what libFuzzer is led by; the flags are those of LLVM and stable.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on"
triple=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-../target}/fuzz
# With --target the flags reach our code and not the build scripts, which have no libFuzzer to call.
cargo build --release --locked --target "$triple" --target-dir "$target_dir" "${targets[@]/#/--bin=}"

for target in "${targets[@]}"; do
    mkdir -p "corpus/$target" "artifacts/$target"
    bound=(-max_total_time="$much")
    [ "$much" != smoke ] || bound=(-runs=20000 -max_total_time=15)
    printf '%-24s' "$target"
    log=$(mktemp)
    # New inputs of a smoke run are thrown away; a longer run keeps them.
    corpus=("corpus/$target")
    scratch=$(mktemp -d)
    [ "$much" != smoke ] || corpus=("$scratch" "corpus/$target")
    if "$target_dir/$triple/release/$target" "${bound[@]}" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="artifacts/$target/" "${corpus[@]}" >"$log" 2>&1; then
        grep -oE '^Done [0-9]+ runs in [0-9]+ second' "$log" | sed 's/$/s/'
    else
        echo 'FAILED'
        tail -n 40 "$log"
        exit 1
    fi
    rm -rf "$scratch" "$log"
done
