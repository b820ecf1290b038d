#!/usr/bin/env bash
# Runs compose.yaml as it stands, by Docker Compose with Podman as its engine: a key that is changed comes out of nginx.
#
# The images of KeyDB and nginx cannot be had without a registry. In their place, under their names, stand Debian's nginx and
# the server that tests use; where that is not KeyDB, it is said.
set -euo pipefail
cd "$(dirname "$0")/../.."
source tests/image/engine.sh
in_own_network

dir=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    engine rm --all --force --time 0 >/dev/null 2>&1 || true
    rm -rf "$dir"
}
trap finish EXIT

compose() { DOCKER_HOST=unix://$dir/engine.sock "$work/compose/bin/docker-compose" --progress quiet "$@"; }

image_of() { compose config --format json | node -e '
    console.log(JSON.parse(require("fs").readFileSync(0, "utf8")).services[process.argv[1]].image)' "$1"; }

# The server and its client with their libraries, under the names that KeyDB's image has them by.
stand_in_for_keydb() {
    local server client
    server=$(server_program)
    client=$(dirname "$server")/keydb-cli
    [ -x "$client" ] || client=$(command -v redis-cli)
    "$server" --version | grep -q KeyDB || echo "SKIPPED: compose.yaml is tried with $server in the place of KeyDB" >&2
    mkdir -p "$dir/keydb/lib"
    cp -L "$server" "$dir/keydb/keydb-server"
    cp -L "$client" "$dir/keydb/keydb-cli"
    ldd "$server" "$client" | awk '$3 ~ "^/" { print $3 }' | grep -vE '/(libc|libm|libpthread|libdl|librt)\.so' | sort -u |
        xargs -r cp -L -t "$dir/keydb/lib"
    engine build --isolation chroot --quiet --tag "docker.io/$(image_of keydb)" --file - "$dir/keydb" >/dev/null <<'EOF'
FROM localhost/keyrelay-test/debian
COPY keydb-server keydb-cli /usr/local/bin/
COPY lib /usr/local/lib/keydb
ENV LD_LIBRARY_PATH=/usr/local/lib/keydb
VOLUME /data
EOF
}

# Debian's nginx with its files where nginx's own image has them.
stand_in_for_nginx() {
    engine build --isolation chroot --quiet --tag "docker.io/library/$(image_of nginx)" --file - "$dir" >/dev/null <<'EOF'
FROM localhost/keyrelay-test/debian
RUN rm -rf /etc/nginx/sites-enabled/* /var/lib/nginx && ln -s /var/cache/nginx /var/lib/nginx && \
    ln -sf /dev/stdout /var/log/nginx/access.log && ln -sf /dev/stderr /var/log/nginx/error.log
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
EOF
}

# What systemd does beside Podman: runs the HEALTHCHECKs.
check_health() {
    while true; do
        for container in $(engine ps --quiet); do engine healthcheck run "$container" >/dev/null 2>&1 || true; done
        sleep 0.5
    done
}

# Not through `engine`, a function: this is to be ended by its id.
podman --root "$work/store" --runroot "$work/run" system service --time 0 "unix://$dir/engine.sock" >"$dir/engine.log" 2>&1 &
started+=($!)
eventually "the engine listens" test -S "$dir/engine.sock"
compose config --quiet
stand_in_for_keydb
stand_in_for_nginx
check_health &
started+=($!)
compose up --detach --wait --wait-timeout 120 --pull never --no-build 2>"$dir/up.log" || {
    cat "$dir/up.log" "$dir/engine.log" >&2
    compose ps --all >&2
    compose logs >&2
    fail "compose.yaml does not come up"
}

curl --no-buffer --silent --show-error 'http://127.0.0.1:8080/keyrelay/events?channel=cart:42' >"$dir/stream" 2>&1 &
stream=$!
started+=("$stream")
eventually "a client of nginx gets ready" grep -q '^event: keyrelay.ready' "$dir/stream"
# As `docker compose exec keydb` does; but what that begins stays for five minutes, in an engine that is gone by then.
engine exec "$(compose ps --quiet keydb)" keydb-cli set cart:42 hello >/dev/null
eventually "a client of nginx gets the change" grep -q '"value":"hello"' "$dir/stream"

# Who the client is, nginx says: what is refused is logged with its address, which is that of the network's gateway.
curl --silent --output /dev/null 'http://127.0.0.1:8080/keyrelay/events?channel=nobody'
refused() { compose logs keyrelay 2>&1 | grep 'channels refused' | grep -q "\"address\":\"$1\""; }
eventually "the client's own address is logged" refused 172.30.74.1

# Nothing but nginx is published.
for port in 6379 7400 7401; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then fail "port $port is published"; fi
done

compose stop keyrelay 2>/dev/null
wait "$stream" || fail "the stream was cut off when keyrelay was stopped"
grep -q '^event: keyrelay.end' "$dir/stream" || fail "the client was not told of the end"
code=$(compose ps --all --format json keyrelay | node -e 'console.log(JSON.parse(require("fs").readFileSync(0, "utf8")).ExitCode)')
[ "$code" = 0 ] || fail "keyrelay ended with $code"
compose down --volumes 2>/dev/null
say "compose.yaml was run, with $("$(server_program)" --version | head -n 1)"
