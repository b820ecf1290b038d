#!/usr/bin/env bash
# Runs three regions of examples/fly as they stand, KeyDB by start.sh and keyrelay by keyrelay.toml, each region in a network of
# its own with names and IPv6 addresses as Fly's: a write in one is seen by the clients of all, and again after a region was away.
#     tests/fly/regions.sh KEYRELAY
# Needs root and KeyDB; where one is missing, that is said.
set -euo pipefail
cd "$(dirname "$0")/../.."

keyrelay=$(realpath "${1:?the keyrelay to run}")
regions=(ams iad syd)

skip() {
    echo "SKIPPED: three regions were not run: $*" >&2
    exit 0
}
fail() {
    echo "regions: FAILED: $*" >&2
    tail -n 30 "$dir"/*.log >&2 || true
    exit 1
}
eventually() {
    local what=$1 until=$((SECONDS + 60))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then fail "not within 60 s: $what"; fi
        sleep 0.1
    done
}

server=$(command -v "${KEYRELAY_TEST_SERVER:-keydb-server}" || true)
[ -n "$server" ] && "$server" --version | grep -q KeyDB || skip "only KeyDB has active replicas; KEYRELAY_TEST_SERVER may name one"
[ "$(id -u)" -eq 0 ] || skip "networks of their own need root"
for tool in ip dnsmasq curl; do command -v "$tool" >/dev/null || skip "$tool is missing: scripts/need.sh engine"; done
if [ "${KEYRELAY_OWN_NETWORK:-}" != "$0" ]; then
    KEYRELAY_OWN_NETWORK=$0 exec unshare --net --mount "$0" "$keyrelay"
fi

dir=$(mktemp -d)
processes=()
finish() {
    for pid in "${processes[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${processes[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap finish EXIT

# Fly's private network, with its resolver at fdaa::3 and only IPv6 addresses behind the names.
ip link set lo up
ip link add fly type bridge
ip link set fly up
ip address add fdaa::3/64 dev fly nodad
printf 'nameserver fdaa::3\n' >"$dir/resolv.conf"
mount --bind "$dir/resolv.conf" /etc/resolv.conf
mount -t tmpfs none /run
names=()
for at in "${!regions[@]}"; do names+=("--host-record=${regions[$at]}.myapp-keydb.internal,fdaa::1$at"); done
dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --listen-address=fdaa::3 \
    --bind-interfaces --local=/internal/ "${names[@]}" >"$dir/dns.log" 2>&1 &
processes+=($!)

# keydb-server and keydb-cli by their names, wherever they are.
PATH=$(dirname "$(realpath "$server")"):$PATH
export KEYDB_PASSWORD=s3cret-of-all-regions KEYDB_REGIONS="${regions[*]}" FLY_APP_NAME=myapp-keydb

# In the network of a region: within REGION command … What is to be ended by its id is started by `ip` itself, which becomes it.
within() { ip netns exec "$@"; }
keydb() { within "$1" keydb-cli --no-auth-warning -a "$KEYDB_PASSWORD" "${@:2}"; }
start_keydb() {
    TMPDIR=$dir FLY_REGION=$1 KEYDB_DIR=$dir/$1 ip netns exec "$1" sh examples/fly/keydb/start.sh >>"$dir/$1-keydb.log" 2>&1 &
    processes+=($!)
    nodes[$1]=$!
}
ready() { within "$1" curl --silent --fail http://127.0.0.1:9091/readyz; }
in_step() { keydb "$1" INFO replication | grep -q 'master_global_link_status:up'; }
sees() { grep -q "\"value\":\"$2\"" "$dir/$1.stream"; }

declare -A nodes
for at in "${!regions[@]}"; do
    region=${regions[$at]}
    mkdir "$dir/$region"
    ip netns add "$region"
    ip link add "$region" type veth peer name eth0 netns "$region"
    ip link set "$region" master fly up
    within "$region" ip link set lo up
    within "$region" ip link set eth0 up
    within "$region" ip address add "fdaa::1$at/64" dev eth0 nodad
done
# One after the other, as Fly does: the first ones have to wait for names that nobody answers to yet.
for region in "${regions[@]}"; do
    start_keydb "$region"
    FLY_REGION=$region ip netns exec "$region" "$keyrelay" run examples/fly/relay/keyrelay.toml >"$dir/$region-keyrelay.log" 2>&1 &
    processes+=($!)
    eventually "keyrelay of $region is ready" ready "$region"
    ip netns exec "$region" curl --silent --no-buffer 'http://127.0.0.1:7400/keyrelay/events?channel=cart:42' >"$dir/$region.stream" &
    processes+=($!)
    eventually "a client in $region is ready" grep -q '^event: keyrelay.ready' "$dir/$region.stream"
done
for region in "${regions[@]}"; do eventually "KeyDB of $region is in step" in_step "$region"; done

for writer in "${regions[@]}"; do
    keydb "$writer" SET cart:42 "of-$writer" >/dev/null
    for region in "${regions[@]}"; do eventually "$region sees what $writer wrote" sees "$region" "of-$writer"; done
done

# A region goes away. The others go on, and are not stale for it; when it is back, each has what the other wrote meanwhile.
# (While the nodes found each other, they were: what a node is sent as a whole comes without events.)
declare -A before
for region in "${regions[@]}"; do before[$region]=$(wc -l <"$dir/$region.stream"); done
kill "${nodes[syd]}"
wait "${nodes[syd]}" 2>/dev/null || true
keydb ams SET cart:42 while-away >/dev/null
for region in ams iad; do
    eventually "$region sees what is written without syd" sees "$region" while-away
    ready "$region" >/dev/null || fail "$region is not ready while syd is away"
    if tail -n "+$((before[$region] + 1))" "$dir/$region.stream" | grep -q '^event: keyrelay.stale'; then fail "$region was stale while syd was away"; fi
done
start_keydb syd
eventually "syd sees what was written without it" sees syd while-away
eventually "syd is ready again" ready syd
keydb syd SET cart:42 back-again >/dev/null
for region in "${regions[@]}"; do eventually "$region sees what syd wrote after it" sees "$region" back-again; done
echo "regions: ${regions[*]} were run, each a KeyDB and a keyrelay; a write in one was seen in all"
