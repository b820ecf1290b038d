#!/usr/bin/env bash
# Builds the Debian package, with its manual pages, completions and changelog, and prints where it is:
#     scripts/package.sh [PROFILE]
# PROFILE is cargo's: `release`, unless the package is only to be tried. cargo-deb is built where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
cargo_deb=3.8.0
target="${CARGO_TARGET_DIR:-target}"
stage=target/package

scripts/need.sh package >&2
if ! command -v cargo-deb >/dev/null 2>&1; then
    export PATH="$PWD/target/tools/bin:$PATH"
fi
if ! command -v cargo-deb >/dev/null 2>&1; then
    cargo install --quiet --locked --root target/tools --version "$cargo_deb" cargo-deb >&2
fi

cargo build --quiet --locked --profile "$profile" --bin keyrelay >&2
case "$profile" in
    dev) program="$target/debug/keyrelay" ;;
    *) program="$target/$profile/keyrelay" ;;
esac

rm -rf "$stage"
mkdir -p "$stage/man" "$stage/completions" "$stage/doc"
"$program" man "$stage/man"
gzip -9n "$stage"/man/*
gzip -9nc CHANGELOG.md >"$stage/news.gz"
# The documents, and whatever they point at; not what tests have installed among the examples.
tar -c --exclude=node_modules --exclude=__pycache__ --exclude='.*' README.md SECURITY.md CONTRIBUTING.md docs examples config \
    compose.yaml benches/peers |
    tar -x -C "$stage/doc"
for shell in bash zsh fish; do
    "$program" completions "$shell" >"$stage/completions/$shell"
done

# What Debian calls a changelog is about the package, and each version of keyrelay is one of the package.
version=$(cargo pkgid --offline | sed 's/.*[#@]//')
date=$(git log -1 --format=%cD 2>/dev/null || date -R)
cat >"$stage/changelog" <<CHANGELOG
keyrelay ($version-1) stable; urgency=medium

  * Version $version; see /usr/share/doc/keyrelay/changelog.gz.

 -- The keyrelay authors <maintainers@keyrelay.invalid>  $date
CHANGELOG

CARGO_TARGET_DIR="$target" cargo deb --quiet --locked --no-build --profile "$profile" --output "$target/debian/" >&2
ls "$target/debian/keyrelay_$version-1_$(dpkg --print-architecture).deb"
