#!/usr/bin/env bash
# Runs the Autobahn test suite against keyrelay's WebSocket side in echo mode (feature `echo`, in no default build): how
# frames are read, put together, checked and answered. Needs Python 2.7, which the suite is written in; without it nothing
# is tested, and that is said. AUTOBAHN_PYTHON names it where it is not found by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

version=25.10.1
folder="${CARGO_TARGET_DIR:-target}/autobahn"
python=""
for candidate in "${AUTOBAHN_PYTHON:-}" python2.7 "$HOME"/.pyenv/versions/2.7.*/bin/python2.7; do
    # A name on PATH may be a stand-in of a version manager that leads nowhere.
    if [ -n "$candidate" ] && "$candidate" -c '' >/dev/null 2>&1; then
        python="$(command -v "$candidate")"
        break
    fi
done
if [ -z "$python" ]; then
    echo '############################################################################' >&2
    echo '# SKIPPED: the Autobahn suite needs Python 2.7, which is not to be found.' >&2
    echo '# Nothing of the WebSocket protocol was tested by it. To name it:' >&2
    echo '#     AUTOBAHN_PYTHON=/path/to/python2.7 make autobahn' >&2
    echo '############################################################################' >&2
    exit 0
fi

mkdir -p "$folder"
site="$PWD/$folder/site-$version"
[[ "$folder" == /* ]] && site="$folder/site-$version"
if [ ! -d "$site" ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --target "$site.new" "autobahntestsuite==$version" 2>"$folder/pip.log" ||
        { cat "$folder/pip.log" >&2; exit 1; }
    mv "$site.new" "$site"
fi

# With its own folder, so that no other build is thrown away.
cargo build --quiet --features echo --target-dir "$folder/target"
cat >"$folder/keyrelay.toml" <<TOML
[server]
listen = ["127.0.0.1:0"]
heartbeat = "5m"
write_timeout = "5m"
[limits]
message_size = "16MiB"
messages_per_second = 1_000_000
messages_burst = 1_000_000
[admin]
listen = "127.0.0.1:0"
[upstream]
url = "redis://127.0.0.1:1"
TOML
env -u REDIS_URL -u PORT "$folder/target/debug/keyrelay" run "$folder/keyrelay.toml" >"$folder/keyrelay.log" 2>&1 &
relay=$!
trap 'kill "$relay" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
    port="$(sed -n 's|.*listening http://127\.0\.0\.1:\([0-9]*\).*|\1|p' "$folder/keyrelay.log" | head -1)"
    if [ -n "$port" ]; then break; fi
    kill -0 "$relay" 2>/dev/null || { cat "$folder/keyrelay.log" >&2; exit 1; }
    sleep 0.1
done

# All cases but those about compression, which keyrelay does not offer. Those about speed (9) are among them. `raw`, because
# such a client is told nothing but messages.
cat >"$folder/fuzzingclient.json" <<JSON
{
    "outdir": "reports",
    "servers": [{"agent": "keyrelay", "url": "ws://127.0.0.1:$port/ws?raw=1"}],
    "cases": ["*"],
    "exclude-cases": ["12.*", "13.*"],
    "exclude-agent-cases": {}
}
JSON
rm -rf "$folder/reports"
(
    cd "$folder"
    "$python" -W ignore -c "import site; site.addsitedir('$site')
from autobahntestsuite.wstest import run; run()" -m fuzzingclient -s fuzzingclient.json
) >"$folder/autobahn.log" 2>&1 || { tail -50 "$folder/autobahn.log" >&2; exit 1; }

# Counts what it found of each behaviour, and fails on any that is not as it should be.
"$python" - "$folder/reports/index.json" <<'PYTHON'
import json, sys
cases = json.load(open(sys.argv[1]))["keyrelay"]
good = ("OK", "NON-STRICT", "INFORMATIONAL")
counts, wrong = {}, []
for name, case in cases.items():
    for which in ("behavior", "behaviorClose"):
        found = case[which]
        if which == "behavior":
            counts[found] = counts.get(found, 0) + 1
        if found not in good:
            wrong.append("%s: %s %s" % (name, which, found))
print("autobahn: %d cases: %s" % (len(cases), ", ".join("%d %s" % (n, b) for b, n in sorted(counts.items()))))
for line in sorted(wrong):
    print(line)
sys.exit(1 if wrong or len(cases) < 200 else 0)
PYTHON
