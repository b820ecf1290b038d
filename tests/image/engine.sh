# What the trials of the image stand on: Podman with a store of its own in target/image, a network of its own, and waiting
# for conditions. To be sourced, from the top of the tree.

work=$PWD/target/image
export CONTAINERS_CONF=$work/containers.conf

engine() {
    # Without systemd nothing runs HEALTHCHECKs by itself; the trials do, and need not be told.
    podman --root "$work/store" --runroot "$work/run" "$@" 2> >(grep -v 'systemd connection' >&2)
}

# The limits are those that may be set by whoever has no more rights than a container; the engine's own would be refused.
configure_engine() {
    mkdir -p "$work/tmp"
    cat >"$CONTAINERS_CONF" <<EOF
[containers]
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
EOF
}

# Runs the calling script anew in a network of its own, where all ports are free and nobody else is reached.
in_own_network() {
    if [ "${KEYRELAY_OWN_NETWORK:-}" != "$0" ]; then
        KEYRELAY_OWN_NETWORK=$0 exec unshare --net "$0"
    fi
    ip link set lo up
}

say() { echo "image: $*"; }

fail() {
    echo "image: FAILED: $*" >&2
    exit 1
}

# Tries a command until it succeeds: eventually "what it is" command …
eventually() {
    local what=$1 until=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then fail "not within 60 s: $what"; fi
        sleep 0.1
    done
}

# The server to try with, which `scripts/need.sh server` has seen to.
server_program() {
    command -v "${KEYRELAY_TEST_SERVER:-keydb-server}" || command -v valkey-server || command -v redis-server
}
