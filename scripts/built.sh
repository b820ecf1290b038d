#!/usr/bin/env bash
# Runs the keyrelay that `cargo build` left, in place of this shell, so that Ctrl-C reaches it and nobody else.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${CARGO_TARGET_DIR:-target}/debug/keyrelay" "$@"
