#!/usr/bin/env bash
# Unpacks the smallest Debian, of the release and from the mirror that this machine itself installs from, into a new folder:
#     scripts/rootfs.sh DIR
# It is made once, by debootstrap, and kept in target/rootfs; a day later it is made anew, for it has no security updates of
# its own. Needs root: it has files of several users.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -ne 1 ]; then
    echo "usage: scripts/rootfs.sh DIR" >&2
    exit 2
fi
dir=$1
if [ -e "$dir" ]; then
    echo "$dir is there already: remove it, or name another folder" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "scripts/rootfs.sh must be root, for a Debian has files of several users: sudo scripts/rootfs.sh $dir" >&2
    exit 1
fi
scripts/need.sh debootstrap

# What apt installs from: of Debian's own archives the one that has the whole release, as opposed to updates of it.
source_of_release() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Label: Debian' 'Component: main' |
        awk '$2 != "" && $2 !~ /-/ { print; exit }'
}
source=$(source_of_release)
if [ -z "$source" ]; then
    # A machine that was just made knows its mirrors, and not yet what they have.
    apt-get update -q </dev/null >&2
    source=$(source_of_release)
fi
if [ -z "$source" ]; then
    echo "apt has no list of Debian's own archive: scripts/rootfs.sh works on Debian" >&2
    exit 1
fi
read -r mirror suite <<<"$source"
base="target/rootfs/$suite-$(dpkg --print-architecture).tar"
mkdir -p target/rootfs
# Several that want it at the same time wait for the one that makes it.
exec 9>"$base.lock"
flock 9
if [ -z "$(find "$base" -mtime 0 2>/dev/null)" ]; then
    making=$(mktemp -d target/rootfs/making.XXXXXX)
    trap 'rm -rf "$making"' EXIT
    debootstrap --variant=minbase "$suite" "$making/root" "$mirror" >"$making/log" 2>&1 || {
        tail -n 20 "$making/log" "$making/root/debootstrap/debootstrap.log" 2>/dev/null >&2
        echo "debootstrap did not make a $suite from $mirror" >&2
        exit 1
    }
    rm -rf "$making"/root/var/cache/apt/archives/*.deb
    tar --numeric-owner -C "$making/root" -cf "$making/base.tar" .
    mv "$making/base.tar" "$base"
fi
mkdir -p "$dir"
tar --numeric-owner -C "$dir" -xf "$base"
