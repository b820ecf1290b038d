#!/usr/bin/env bash
# Makes sure that the named things are installed, with Debian's packages where they are missing and it may:
#     scripts/need.sh cargo server node chromium ruby
# What it may not install, it prints the line for.
set -euo pipefail

# Whether any of the named programs is on PATH.
any() {
    local program
    for program in "$@"; do
        if command -v "$program" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

packages=()
for thing in "$@"; do
    case "$thing" in
        cargo)
            any cargo || {
                echo "cargo is not on PATH: install Rust (https://rustup.rs), then come back" >&2
                exit 1
            }
            # Some dependency builds C or links through the C compiler.
            any cc || packages+=(gcc libc6-dev)
            ;;
        # What a fuzzer is made of.
        c++) any c++ || packages+=(g++) ;;
        server) any "${KEYRELAY_TEST_SERVER:-keydb-server}" valkey-server redis-server || packages+=(redis-server) ;;
        # What counts instructions and system calls.
        measuring)
            any valgrind || packages+=(valgrind)
            any strace || packages+=(strace)
            ;;
        node)
            any node || packages+=(nodejs)
            any npm || packages+=(npm)
            ;;
        ruby)
            any ruby || packages+=(ruby)
            # The libraries have no program of their own.
            ruby -e 'require "logger"; require "active_support"; require "jwt"' 2>/dev/null ||
                packages+=(ruby-activesupport ruby-jwt)
            ;;
        # Makes the smallest Debian in a folder.
        debootstrap) any debootstrap || packages+=(debootstrap) ;;
        # What makes a package, and what judges it.
        package)
            any dpkg-shlibdeps || packages+=(dpkg-dev)
            any lintian || packages+=(lintian)
            ;;
        # Shows manual pages.
        man) any man || packages+=(man-db) ;;
        # What tries the units: systemd need not run, and strace sees what keyrelay asks of the system.
        systemd)
            any systemd-analyze || packages+=(systemd)
            any strace || packages+=(strace)
            ;;
        # What reads the manual pages and the completions of the shells.
        pages)
            any groff || packages+=(groff-base)
            any bash || packages+=(bash)
            any zsh || packages+=(zsh)
            any fish || packages+=(fish)
            ;;
        # Builds and runs container images, in networks of their own.
        engine)
            any podman || packages+=(podman)
            any runc || packages+=(runc)
            any ip || packages+=(iproute2)
            any curl || packages+=(curl)
            any openssl || packages+=(openssl)
            any dnsmasq || packages+=(dnsmasq-base)
            any /usr/lib/podman/netavark || packages+=(netavark)
            any /usr/lib/podman/aardvark-dns || packages+=(aardvark-dns)
            ;;
        # Docker Compose comes from PyPI, into an environment of its own.
        compose) python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv) ;;
        # What apps stand behind, in production.
        proxies)
            # Debian's nginx is in /usr/sbin, which users have no PATH to.
            any nginx /usr/sbin/nginx || packages+=(nginx-light)
            any caddy || packages+=(caddy)
            any openssl || packages+=(openssl)
            ;;
        rails)
            any puma || packages+=(puma)
            ruby -e 'require "rails"; require "redis"' 2>/dev/null || packages+=(ruby-rails ruby-redis)
            ;;
        # The libraries with which apps test themselves.
        suites)
            # Debian's packages are for Debian's Python, and another one may come first on PATH.
            python3 -c 'import pytest, redis' 2>/dev/null || /usr/bin/python3 -c 'import pytest, redis' 2>/dev/null ||
                packages+=(python3-pytest python3-redis)
            ruby -e 'require "minitest"; require "redis"' 2>/dev/null || packages+=(ruby ruby-minitest ruby-redis)
            ;;
        chromium) any "${KEYRELAY_TEST_CHROMIUM:-chromium}" chromium-browser google-chrome || packages+=(chromium) ;;
        pngquant) any pngquant || packages+=(pngquant) ;;
        # The first fonts that the demo's page asks for: its pictures are to look the same wherever they are taken.
        fonts)
            families=$(fc-list : family 2>/dev/null || true)
            [[ $families == *Inter* && $families == *"JetBrains Mono"* ]] ||
                packages+=(fontconfig fonts-inter fonts-jetbrains-mono)
            ;;
        promtool) any promtool || packages+=(prometheus) ;;
        *)
            echo "need.sh does not know '$thing': say cargo, c++, server, node, ruby, debootstrap, package, man, systemd, pages, engine, compose, proxies, rails, suites, promtool, chromium, pngquant or fonts" >&2
            exit 2
            ;;
    esac
done
if [ "${#packages[@]}" -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
line="apt-get install -y --no-install-recommends ${packages[*]}"
if ! any apt-get; then
    echo "missing, and there is no apt-get to install it with: ${packages[*]}" >&2
    exit 1
fi
if ! "${as_root[@]}" true 2>/dev/null; then
    echo "missing: ${packages[*]}; type this and come back:" >&2
    echo "    sudo apt-get update && sudo $line" >&2
    exit 1
fi
echo "installing ${packages[*]}"
# sudo does not pass the environment on.
"${as_root[@]}" apt-get update -q </dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $line </dev/null
