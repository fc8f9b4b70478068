#!/usr/bin/env bash
# What building and testing need beside Rust: the one list. Run as root on Debian and its kin, this installs what is
# missing; anywhere else it names it and fails.
#   scripts/needs.sh           for building and all tests
#   scripts/needs.sh --cross   for scripts/cross.sh as well: building for ARM, and running that
#   scripts/needs.sh --package for scripts/package.sh as well
set -euo pipefail

# Ordinary users often lack these, and nft lives there.
PATH="$PATH:/usr/sbin:/sbin"
export PATH

# program, the Debian package that brings it, what it is for
needs="\
cc        gcc          building SQLite and the cryptography
nft       nftables     NATs and cut lines in the test networks
ip        iproute2     addresses and routes in the test networks
tc        iproute2     queues in the test networks
strace    strace       power cuts at each write
faketime  faketime     clocks that are wrong
conntrack conntrack    NATs that forget in the test networks
miniupnpd miniupnpd-nftables  routers that map ports in the test networks
npm       npm          the js-libp2p peer
redis-server redis-server  doorways that share their records
curl      curl         a foreign client of the doorway"
cross="
aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu building for ARM
/usr/aarch64-linux-gnu/lib/crt1.o libc6-dev-arm64-cross building for ARM
qemu-aarch64 qemu-user running what is built for ARM"
package="
debootstrap debootstrap a Debian of its own, into which the package is installed
systemd-analyze systemd the unit is right, and allows what the program does
systemd-nspawn systemd-container that Debian boots, with the unit in it
pgrep procps the systemd of that Debian"
case "${1:-}" in
"") ;;
--cross) needs+=$cross ;;
--package) needs+=$package ;;
*)
    echo "usage: scripts/needs.sh [--cross|--package]" >&2
    exit 2
    ;;
esac

missing_packages() {
    while read -r program package _; do
        command -v "$program" >/dev/null || [ -e "$program" ] || echo "$package"
    done <<<"$needs" | sort -u
}

mapfile -t packages < <(missing_packages)
if [ ${#packages[@]} != 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "missing, and only root may install it: ${packages[*]}" >&2
        echo "on Debian: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
        exit 1
    fi
    echo "installing: ${packages[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
    mapfile -t packages < <(missing_packages)
    if [ ${#packages[@]} != 0 ]; then
        echo "still missing after they were installed: ${packages[*]}" >&2
        exit 1
    fi
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "missing: cargo. Rust is installed from https://rustup.rs" >&2
    exit 1
fi

arm=aarch64-unknown-linux-gnu
if [ "${1:-}" = --cross ] && [ ! -e "$(rustc --print sysroot)/lib/rustlib/$arm/lib" ]; then
    rustup target add "$arm"
fi

# The test networks are made in a user namespace, so that nobody needs to be root.
if ! unshare --user --map-root-user --net true 2>/dev/null; then
    echo "this system lets nobody make user namespaces, in which the test networks live; as root, one of:" >&2
    echo "  sysctl kernel.unprivileged_userns_clone=1                (Debian)" >&2
    echo "  sysctl kernel.apparmor_restrict_unprivileged_userns=0    (Ubuntu)" >&2
    exit 1
fi

# The js-libp2p peer, with a Node.js of its own: exactly what its lock file says.
js="$(dirname "$0")/../tests/js"
if [ ! "$js/node_modules/.package-lock.json" -nt "$js/package-lock.json" ]; then
    echo "installing the packages of tests/js"
    # Its warnings are about the Node.js that runs npm; the peer runs on the one that comes with the packages.
    (cd "$js" && npm ci --loglevel=error)
fi
if ! "$js/node_modules/.bin/node" --version >/dev/null 2>&1; then
    echo "$js/node_modules/.bin/node does not run: npm has a Node.js for x86-64 and ARM 64 only" >&2
    exit 1
fi
