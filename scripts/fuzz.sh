#!/usr/bin/env bash
# Runs every fuzz target, or those that are named, for FUZZ_SECONDS each (600 unless set), two at a time:
#     FUZZ_SECONDS=60 scripts/fuzz.sh wire templates
# FUZZ_SEED makes a run try the same in the same order; without it each run tries something else.
# What is found new stays in fuzz/corpus, where the next run goes on; an input that fails is kept in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

export FUZZ_SECONDS="${FUZZ_SECONDS:-600}"
# 0 is none.
export FUZZ_SEED="${FUZZ_SEED:-0}"
# A compiler that is no nightly must let a fuzzer's build flags pass.
export RUSTC_BOOTSTRAP=1
export CARGO_INCREMENTAL=0

command -v cargo-fuzz >/dev/null 2>&1 || cargo install cargo-fuzz --locked

targets=("$@")
if [ "${#targets[@]}" -eq 0 ]; then
    for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# Without a sanitizer: keyrelay forbids unsafe code, and so twice as much is tried in the same time.
cargo fuzz build --sanitizer none

# One target; its last words, or all of them if it failed.
run() {
    local target="$1" log="target/$1.log"
    mkdir -p target "corpus/$target"
    if cargo fuzz run --sanitizer none "$target" "corpus/$target" "seeds/$target" -- \
        -seed="$FUZZ_SEED" -max_total_time="$FUZZ_SECONDS" -timeout=10 -rss_limit_mb=1024 >"$log" 2>&1 </dev/null; then
        echo "$target: $(grep -a '^Done ' "$log"), $(grep -ao 'cov: [0-9]*' "$log" | tail -1)"
    else
        cat "$log"
        echo "$target failed: see the input above; when it is mended, put the input into fuzz/seeds/$target" >&2
        return 255
    fi
}
export -f run

printf '%s\n' "${targets[@]}" | xargs -P 2 -I '{}' bash -c 'run {}'
