#!/usr/bin/env bash
# Makes the Debian package of kinfolk-embedded in target/debian, and prints where it lies: for this machine, or for
# aarch64-unknown-linux-gnu, a Raspberry Pi.
#   scripts/package.sh [TARGET]
#   scripts/package.sh --check    makes it, looks at its unit, installs it in a Debian of its own, and there runs, upgrades,
#                                 removes and purges it (root, Debian's archive)
set -euo pipefail
cd "$(dirname "$0")/.."

package() {
    cargo deb --version >/dev/null 2>&1 || cargo install --locked --debug cargo-deb@^3 >&2
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    cargo deb --locked -p kinfolk-embedded --profile small "$@"
}

# A step in the other Debian, said before it is done.
inside() {
    echo "+ $*"
    chroot "$root" "$@"
}

# The system calls of a group such as @system-service.
calls() {
    local name
    systemd-analyze syscall-filter "$1" | sed -n 's/^ *\([@a-z][a-z0-9_-]*\)$/\1/p' | while read -r name; do
        case "$name" in
        "$1") ;;
        @*) calls "$name" ;;
        *) echo "$name" ;;
        esac
    done
}

# The node as its unit starts it: its user, its folder, its settings. It answers, makes no system call that the unit
# forbids, and ends in order when it is told to.
runs() {
    local unit="$root/lib/systemd/system/kinfolk-embedded.service" node pid tries=0 forbidden
    install -d -m 700 -o "$(chroot "$root" id -u kinfolk)" -g "$(chroot "$root" id -g kinfolk)" "$root/var/lib/kinfolk"
    # shellcheck disable=SC2046 # The unit's command line, in words.
    strace -f -o "$root/calls" chroot "$root" setpriv --reuid kinfolk --regid kinfolk --clear-groups --no-new-privs \
        --bounding-set -all $(sed -n 's/^ExecStart=//p' "$unit") &
    node=$!
    until chroot "$root" kinfolk-embedded status 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries = 60 ]; then
            echo "it does not answer" >&2
            return 1
        fi
        sleep 0.5
    done
    pid=$(chroot "$root" kinfolk-embedded status --json | sed -n 's/.*"pid":\([0-9]*\).*/\1/p')
    kill -TERM "$pid"
    wait "$node"
    grep -qx 'SystemCallFilter=@system-service' "$unit"
    grep -qx 'SystemCallFilter=~@privileged @resources' "$unit"
    forbidden=$(comm -23 <(sed -n '/execve("\/usr\/bin\/kinfolk/,$p' "$root/calls" | sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' | sort -u) \
        <(comm -23 <(calls @system-service | sort -u) <({ calls @privileged && calls @resources; } | sort -u)))
    if [ -n "$forbidden" ] || grep -q 'PROT_WRITE|PROT_EXEC' "$root/calls"; then
        echo "the unit forbids what it does: $forbidden" >&2
        return 1
    fi
}

check() {
    scripts/needs.sh --package
    local id
    root=$(mktemp -d)
    # Its users are others than root.
    chmod 755 "$root"
    trap 'rm -rf "$root" "$root.log"' EXIT
    debootstrap --variant=minbase --include=adduser,systemd "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$root.log" ||
        { cat "$root.log" >&2; exit 1; }
    cp "$(package | tail -1)" "$root/first.deb"
    # The same once more, as a newer one.
    package --no-build --fast --deb-revision 2 --output "$root/second.deb"

    inside dpkg -i /first.deb
    inside systemd-analyze verify kinfolk-embedded.service
    inside systemd-analyze security --offline=true --threshold=20 --no-pager kinfolk-embedded.service | tail -1
    runs
    id=$(chroot "$root" kinfolk-embedded id)
    sed -i 's/^power = "low"/power = "normal"/' "$root/etc/kinfolk/config.toml"

    inside dpkg -i /second.deb
    runs
    [ "$id" = "$(chroot "$root" kinfolk-embedded id)" ]
    grep -q '^power = "normal"' "$root/etc/kinfolk/config.toml"
    echo "an upgrade keeps identity and settings"

    inside dpkg -r kinfolk-embedded
    [ -n "$(ls "$root/var/lib/kinfolk")" ]
    inside dpkg -P kinfolk-embedded
    [ ! -e "$root/var/lib/kinfolk" ]
    [ ! -e "$root/etc/kinfolk" ]
    if chroot "$root" getent passwd kinfolk; then exit 1; fi
    echo "removed, it leaves its data; purged, nothing"
}

case "${1:-}" in
--check) check ;;
-*)
    echo "usage: scripts/package.sh [TARGET | --check]" >&2
    exit 2
    ;;
"") package ;;
*) package --target "$1" ;;
esac
