#!/usr/bin/env bash
# Tries the image by itself: what it promises of its size and user, what it says, whom it hears and serves, and how it ends.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/image/engine.sh
in_own_network

image=docker.io/library/keyrelay
dir=$(mktemp -d)
started=()
finish() {
    engine rm --all --force --time 0 >/dev/null 2>&1 || true
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$dir"
}
trap finish EXIT
# The mapped folders are read by the image's user.
chmod 0755 "$dir"

fact() { engine image inspect --format "$1" "$image"; }

# Starts the image as a careful operator does: start NAME [option of `podman run` …]
start() {
    local name=$1
    shift
    engine run --detach --name "$name" --network host --read-only --read-only-tmpfs=false --cap-drop all \
        --security-opt no-new-privileges "$@" "$image" >/dev/null
}

# Ends one and holds it to an exit code: stop NAME CODE [signal]
stop() {
    engine kill --signal "${3:-TERM}" "$1" >/dev/null
    local code
    code=$(timeout 20 podman --root "$work/store" --runroot "$work/run" wait "$1") || fail "$1 does not end"
    [ "$code" = "$2" ] || fail "$1 ended with $code: $(engine logs "$1" 2>&1)"
    engine rm "$1" >/dev/null
}

log() { engine logs "$1" 2>&1; }
said() { log "$1" | grep -qF -- "$2"; }
healthy() { engine healthcheck run "$1"; }
unhealthy() { ! healthy "$1"; }
ready() { engine exec "$1" /keyrelay healthcheck --ready; }

serve() {
    "$(server_program)" --port 6379 --bind 127.0.0.1 ::1 --save '' --dir "$dir" >"$dir/server.log" 2>&1 &
    server=$!
    started+=("$server")
}

# `redis-cli` and `keydb-cli` are beside the server or not installed at all; the server's own words are plain enough.
redis() {
    exec 3<>/dev/tcp/127.0.0.1/6379
    printf '%s\r\n' "$*" >&3
    read -r -t 10 answer <&3
    exec 3>&-
    case "$answer" in -*) fail "$*: $answer" ;; esac
}

promises() {
    local size
    size=$(fact '{{.Size}}')
    [ "$size" -lt 15000000 ] || fail "the image has $size bytes; 15 MB are promised"
    say "it has $size bytes"
    [ "$(fact '{{.Config.User}}')" = 65532:65532 ] || fail "its user is $(fact '{{.Config.User}}')"
    [ "$(fact '{{json .Config.ExposedPorts}}')" = '{"7400/tcp":{}}' ] || fail "it exposes $(fact '{{json .Config.ExposedPorts}}')"
    local label
    for label in title description licenses version revision created; do
        [ -n "$(fact "{{index .Config.Labels \"org.opencontainers.image.$label\"}}")" ] || fail "it has no label $label"
    done
    [ "$(fact '{{index .Config.Labels "org.opencontainers.image.version"}}')" = "$(engine run --rm "$image" --version | sed 's/.* //')" ] ||
        fail "its label has another version than its program"
}

# Nothing mounted: it runs, is healthy while it lives, says in its log that nothing is open, and is ready once there is a server.
as_it_comes() {
    start bare
    eventually "it says that there is no mapping" said bare 'no mapping'
    eventually "it says that it has no server" said bare 'cannot connect to 127.0.0.1:6379'
    eventually "it is healthy without a server" healthy bare
    if ready bare 2>/dev/null; then fail "it is ready without a server"; fi
    engine kill --signal STOP bare >/dev/null
    eventually "it is unhealthy while it does not answer" unhealthy bare
    engine kill --signal CONT bare >/dev/null
    eventually "it is healthy again" healthy bare
    serve
    eventually "it is ready with a server" ready bare
    local pid
    pid=$(engine inspect --format '{{.State.Pid}}' bare)
    grep -q '^Uid:[[:space:]]65532[[:space:]]65532[[:space:]]65532' "/proc/$pid/status" || fail "its user is not 65532"
    grep -q '^CapEff:[[:space:]]0*$' "/proc/$pid/status" || fail "it has capabilities"
    engine logs bare 2>&1 >/dev/null | node -e '
        const lines = require("fs").readFileSync(0, "utf8").trim().split("\n");
        if (lines.length < 2) throw new Error("hardly a line");
        for (const line of lines) if (!JSON.parse(line).timestamp) throw new Error(line);' || fail "its log is not JSON"
    stop bare 0
}

# Mappings in conf.d; clients over IPv4 and IPv6; the end of their streams at SIGTERM.
serves() {
    mkdir -p "$dir/conf.d"
    printf '[[mapping]]\nkey = "cart:{user}"\naccess = "public"\n' >"$dir/conf.d/carts.toml"
    local signal family
    for signal in TERM INT; do
        start serving --volume "$dir/conf.d:/etc/keyrelay/conf.d:ro"
        eventually "it is ready" ready serving
        redis DEL cart:42
        local clients=()
        for family in 4 6; do
            curl -"$family" --no-buffer --silent --show-error --header 'Accept: text/event-stream' \
                'http://localhost:7400/events?channel=cart:42' >"$dir/stream$family" 2>&1 &
            clients+=($!)
            started+=($!)
        done
        for family in 4 6; do
            eventually "IPv$family gets ready" grep -q '^event: keyrelay.ready' "$dir/stream$family"
        done
        redis SET cart:42 "hello-$signal"
        for family in 4 6; do
            eventually "IPv$family gets the change" grep -q "\"value\":\"hello-$signal\"" "$dir/stream$family"
        done
        stop serving 0 "$signal"
        # curl is content only with a body that came to its end.
        for client in "${clients[@]}"; do wait "$client" || fail "a stream was cut off at SIG$signal"; done
        for family in 4 6; do
            grep -q '^event: keyrelay.end' "$dir/stream$family" || fail "IPv$family was not told of the end"
        done
    done
}

# Mappings that come into the folder while it runs count after SIGHUP.
reloads() {
    mkdir -p "$dir/later"
    start later --volume "$dir/later:/etc/keyrelay/conf.d:ro"
    eventually "it is ready" ready later
    local channel='http://localhost:7400/channels/cart:43'
    if curl --silent --fail "$channel" >/dev/null; then fail "a channel is open without a mapping"; fi
    cp "$dir/conf.d/carts.toml" "$dir/later/"
    engine kill --signal HUP later >/dev/null
    eventually "a new mapping counts" curl --silent --fail "$channel"
    stop later 0
}

# A config that cannot be used is explained, and the exit code says that starting again is no use.
explains() {
    printf '[server]\nlisten = "7400"\n' >"$dir/wrong.toml"
    start wrong --volume "$dir/wrong.toml:/etc/keyrelay/keyrelay.toml:ro"
    eventually "a wrong config is explained" said wrong '/etc/keyrelay/keyrelay.toml:2'
    [ "$(engine wait wrong)" = 78 ] || fail "a wrong config does not end with 78"
    engine rm wrong >/dev/null
}

# A static program has no libraries to look names up with: /etc/hosts and DNS are asked all the same, DNS for names that have
# only an IPv6 address too, as those of Fly's private network.
resolves() {
    dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts --listen-address=127.0.0.1 \
        --bind-interfaces --host-record=keydb-of-dns.internal,::1 --address=/#/ >"$dir/dns.log" 2>&1 &
    started+=($!)
    start hosts --dns 127.0.0.1 --add-host keydb-of-hosts:127.0.0.1 --env REDIS_URL=redis://keydb-of-hosts:6379
    eventually "a name in /etc/hosts is found, which DNS denies" ready hosts
    stop hosts 0
    start dns --dns 127.0.0.1 --env REDIS_URL=redis://keydb-of-dns.internal:6379
    eventually "a name in DNS is found" ready dns
    stop dns 0
    start nowhere --dns 127.0.0.1 --env REDIS_URL=redis://nowhere.internal:6379
    eventually "a name that does not exist is named" said nowhere nowhere.internal
    stop nowhere 0
}

# The authorities in the image are read: one that is not among them is refused, and believed once it is.
trusts() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE -keyout "$dir/tls.key" -out "$dir/tls.pem" 2>"$dir/openssl.log"
    "$(server_program)" --port 0 --tls-port 6380 --tls-cert-file "$dir/tls.pem" --tls-key-file "$dir/tls.key" \
        --tls-ca-cert-file "$dir/tls.pem" --tls-auth-clients no --bind 127.0.0.1 --save '' --dir "$dir" >"$dir/tls.log" 2>&1 &
    local tls=$!
    started+=("$tls")
    listens_or_ended() { (exec 3<>/dev/tcp/127.0.0.1/6380) 2>/dev/null || ! kill -0 "$tls" 2>/dev/null; }
    eventually "the server listens, or has no TLS" listens_or_ended
    if ! kill -0 "$tls" 2>/dev/null; then
        echo "SKIPPED: this server has no TLS, so the image's authorities are not tried: $(tail -n 1 "$dir/tls.log")" >&2
        return
    fi
    start stranger --env REDIS_URL=rediss://localhost:6380
    eventually "a certificate of nobody is refused" said stranger "not from an authority that is trusted"
    stop stranger 0
    local name=/etc/ssl/certs/ca-certificates.crt
    start friend --env REDIS_URL=rediss://localhost:6380 --volume "$dir/tls.pem:$name:ro"
    eventually "a certificate of an authority in $name is believed" ready friend
    stop friend 0
}

promises
as_it_comes
serves
reloads
explains
resolves
trusts
say "it was run alone: read-only, as 65532, over IPv4 and IPv6, to its end"
