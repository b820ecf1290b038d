#!/usr/bin/env bash
# Tries the Debian package: builds it, has lintian judge it, and installs, upgrades, removes and purges it on a Debian that has
# nothing else on it. Needs root, for that Debian is a folder that it changes into.
#     scripts/try-package.sh [PROFILE]
# PROFILE is cargo's: `dev`, whose program the tests have built anyway, unless another is named.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then exec sudo -n --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR "$0" "$@"; fi
    echo "scripts/try-package.sh must be root, for it installs a package: sudo scripts/try-package.sh" >&2
    exit 1
fi
scripts/need.sh cargo package man
deb=$(scripts/package.sh "${1:-dev}")

work=$(mktemp -d)
root=$work/root
service=""
finish() {
    if [ -n "$service" ]; then kill -KILL "$service" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

step() { echo "package: $1"; }
fail() {
    echo "package: FAILED: $1" >&2
    exit 1
}
within() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
# All files, but what the package manager and the programs that make users note for themselves, and what a boot takes away.
files() {
    (cd "$root" && find . -xdev \( -path ./var/lib/dpkg -o -path ./var/lib/apt -o -path ./var/cache -o -path ./var/log -o -path ./run \) -prune -o -print |
        grep -v -e '^./etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' | sort)
}

step "lintian"
lintian --fail-on error,warning "$deb"

step "a Debian with nothing on it"
scripts/rootfs.sh "$root"
# What the package depends on and the smallest Debian has not got is there before, so that it can be told apart.
within apt-get update -q >"$work/log" 2>&1 </dev/null || { cat "$work/log"; fail "apt-get update"; }
within apt-get install -qy --no-install-recommends adduser >"$work/log" 2>&1 </dev/null || { cat "$work/log"; fail "adduser"; }
files >"$work/before"

step "install"
cp "$deb" "$root/root/keyrelay.deb"
within apt-get install -qy --no-install-recommends /root/keyrelay.deb >"$work/log" 2>&1 </dev/null || { cat "$work/log"; fail "it is not installed"; }
rm "$root/root/keyrelay.deb"
version=$(within dpkg-query -W -f '${Version}' keyrelay)
[ "$(within keyrelay --version)" = "keyrelay ${version%-*}" ] || fail "keyrelay --version"
[ -z "$(within dpkg --verify keyrelay)" ] || fail "files are not as they were packed"
within dpkg-query -W -f '${Conffiles}' keyrelay | grep -q ' /etc/keyrelay/keyrelay.toml ' || fail "the config is no conffile"
[ "$(within stat -c '%U:%G %a' /etc/keyrelay/keyrelay.toml)" = "root:root 644" ] || fail "the config's owner"
within getent passwd keyrelay | grep -q ':/nonexistent:/usr/sbin/nologin$' || fail "the user can log in, or there is none"
[ "$(within id -u keyrelay)" -lt 1000 ] || fail "the user is no system user"
within getent group keyrelay >/dev/null || fail "there is no group"
[ -L "$root/etc/systemd/system/multi-user.target.wants/keyrelay.service" ] || fail "the service is not enabled"
[ -z "$(find "$root/etc/systemd" -name keyrelay.socket)" ] || fail "the socket is enabled"
within keyrelay check /etc/keyrelay/keyrelay.toml >/dev/null || fail "the config that comes with it is not right"

step "manual and completions"
for page in "$root"/usr/share/man/man1/keyrelay*.1.gz; do
    warnings=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -l "$page" 2>&1 >"$work/page")
    [ -z "$warnings" ] || fail "$page: $warnings"
    grep -q '^NAME' "$work/page" && grep -q '^SYNOPSIS' "$work/page" || fail "$page lacks a section"
done
[ -e "$root/usr/share/man/man1/keyrelay-run.1.gz" ] || fail "there is no page of keyrelay run"
offered=$(within bash -c 'source /usr/share/bash-completion/completions/keyrelay && complete -p keyrelay >/dev/null &&
    COMP_WORDS=(keyrelay ch) COMP_CWORD=1 && _keyrelay keyrelay ch keyrelay && echo "${COMPREPLY[@]}"')
[ "$offered" = check ] || fail "bash completes 'keyrelay ch' to '$offered'"
[ "$(head -n 1 "$root/usr/share/zsh/vendor-completions/_keyrelay")" = "#compdef keyrelay" ] || fail "no completion for zsh"
grep -q 'complete -c keyrelay' "$root/usr/share/fish/vendor_completions.d/keyrelay.fish" || fail "no completion for fish"
doc=$root/usr/share/doc/keyrelay
for file in copyright changelog.Debian.gz README.md docs/systemd.md docs/grafana.json examples/node/server.js; do
    [ -s "$doc/$file" ] || fail "there is no $file"
done
[ -z "$(find "$doc" -name node_modules)" ] || fail "what tests have installed is packed too"
# Whatever its documents point at is there.
while IFS=: read -r file link; do
    [ -e "$(dirname "$file")/$link" ] || fail "${file#"$doc/"} points at $link, which is not there"
done < <(grep -rEo --include='*.md' '(\]\(|src(set)?=")[^]):"#]+[)"#]' "$doc" | sed -E 's/:(\]\(|src(set)?=")(.*).$/:\3/')

step "start, as the unit does"
# With any free ports: those of the config may be taken on this machine. It is what an operator would change, too.
sed -i -e 's/"127.0.0.1:7400"/"127.0.0.1:0"/' -e 's/"127.0.0.1:7401"/"127.0.0.1:0"/' "$root/etc/keyrelay/keyrelay.toml"
command=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/keyrelay.service")
user=$(sed -n 's/^User=//p' "$root/usr/lib/systemd/system/keyrelay.service")
# $command is several words.
# shellcheck disable=SC2086
chroot --userspec="$user:$user" "$root" /usr/bin/env -i $command >"$work/out" 2>"$work/err" </dev/null &
service=$!
port=""
for _ in $(seq 300); do
    port=$(sed -n 's|^admin http://127.0.0.1:\([0-9]*\)$|\1|p' "$work/out")
    if [ -n "$port" ] && grep -q '^listening http://127.0.0.1:' "$work/out"; then break; fi
    kill -0 "$service" 2>/dev/null || { cat "$work/err"; fail "it has ended"; }
    sleep 0.1
done
[ -n "$port" ] || { cat "$work/out" "$work/err"; fail "it does not listen"; }
exec 3<>"/dev/tcp/127.0.0.1/$port"
printf 'GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
grep -q '^alive' <&3 || fail "it does not answer"
exec 3<&- 3>&-
kill -TERM "$service"
wait "$service" || fail "it did not end well"
service=""

step "upgrade"
# A later package whose config differs in a line.
dpkg-deb -R "$deb" "$work/later"
sed -i "s/^Version: .*/Version: $version.1/" "$work/later/DEBIAN/control"
echo '# Of the later version.' >>"$work/later/etc/keyrelay/keyrelay.toml"
dpkg-deb --root-owner-group -b "$work/later" "$root/root/later.deb" >/dev/null
# What `systemctl disable` does.
rm "$root/etc/systemd/system/multi-user.target.wants/keyrelay.service"
within dpkg --force-confdef --force-confold -i /root/later.deb >"$work/log" 2>&1 || { cat "$work/log"; fail "it is not upgraded"; }
[ "$(within dpkg-query -W -f '${Version}' keyrelay)" = "$version.1" ] || fail "it is not upgraded"
grep -q '"127.0.0.1:0"' "$root/etc/keyrelay/keyrelay.toml" || fail "the config that was changed is not kept"
grep -q 'Of the later version' "$root/etc/keyrelay/keyrelay.toml.dpkg-dist" || fail "the later config is not offered"
[ ! -e "$root/etc/systemd/system/multi-user.target.wants/keyrelay.service" ] || fail "an upgrade enables what was disabled"
rm "$root/root/later.deb"

step "remove"
within dpkg -r keyrelay >"$work/log" 2>&1 || { cat "$work/log"; fail "it is not removed"; }
[ ! -e "$root/usr/bin/keyrelay" ] && [ ! -e "$root/usr/share/doc/keyrelay" ] || fail "something stays after the removal"
grep -q '"127.0.0.1:0"' "$root/etc/keyrelay/keyrelay.toml" || fail "a removal takes the config with it"

step "purge"
within dpkg -P keyrelay >"$work/log" 2>&1 || { cat "$work/log"; fail "it is not purged"; }
files >"$work/after"
diff "$work/before" "$work/after" || fail "the purge leaves files, or takes some that are not its own"
! grep -r keyrelay "$root/etc/passwd" "$root/etc/group" || fail "the user stays"
step "all is well"
