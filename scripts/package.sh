#!/usr/bin/env bash
# Makes the Debian package of kinfolk-embedded in target/debian, and prints where it lies: for this machine, or for
# aarch64-unknown-linux-gnu, a Raspberry Pi.
#   scripts/package.sh [TARGET]
#   scripts/package.sh --check    makes it, looks at its unit, installs it in a Debian of its own, boots that with its systemd,
#                                 and there stops, kills, upgrades, removes and purges it (root, Debian's archive)
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
    within "$@"
}

# The same unsaid: in the folder, or beside the systemd that was started there.
within() {
    if [ -z "$machine" ]; then
        chroot "$root" "$@"
    else
        nsenter --target "$(pgrep --parent "$machine")" --all -- "$@"
    fi
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

# For a network namespace: a home network in which there is nobody else.
home='ip link set lo up && ip link add home type veth peer name router && ip link set router up &&
    ip address add 192.168.1.2/24 dev home && ip link set home up && ip route add default via 192.168.1.1'

# The node as its unit starts it: its user, its folder, its settings. It answers, makes no system call that the unit
# forbids, and ends in order when it is told to.
runs() {
    local unit="$root/lib/systemd/system/kinfolk-embedded.service" node pid tries=0 forbidden
    install -d -m 700 -o "$(chroot "$root" id -u kinfolk)" -g "$(chroot "$root" id -g kinfolk)" "$root/var/lib/kinfolk"
    # shellcheck disable=SC2046 # The unit's command line, in words.
    unshare --net sh -c "$home && exec \"\$@\"" sh strace -f -o "$root/calls" chroot "$root" \
        setpriv --reuid kinfolk --regid kinfolk --clear-groups --no-new-privs --bounding-set -all $(sed -n 's/^ExecStart=//p' "$unit") &
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

# Starts the other Debian, without a network.
boot() {
    local apart=(--register=no)
    # Without a systemd here, nobody gives the machine a unit of its own.
    [ -d /run/systemd/system ] || apart+=(--keep-unit)
    echo "+ systemd-nspawn --boot"
    systemd-nspawn --quiet --settings=no --directory="$root" --machine=kinfolk-check --boot "${apart[@]}" --private-network \
        --link-journal=no --console=pipe </dev/null >"$root.log" 2>&1 &
    machine=$!
    eventually booted
}

booted() {
    [[ $(within systemctl is-system-running) =~ ^(running|degraded)$ ]]
}

# Waits until something is so, for half a minute.
eventually() {
    local tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries = 60 ]; then
            echo "half a minute later it is not so: $*" >&2
            within journalctl --no-pager --boot --lines 40 >&2 || cat "$root.log" >&2
            return 1
        fi
        sleep 0.5
    done
}

property() {
    within systemctl show --value --property "$1" kinfolk-embedded
}

has() {
    [ "$(property "$1")" = "$2" ]
}

# The unit runs, and systemd has started it anew so many times.
runs_after() {
    has ActiveState active && has SubState running && has NRestarts "$1"
}

answers_as() {
    [ "$(within kinfolk-embedded id)" = "$1" ] && [[ $(within kinfolk-embedded status --json) == *"\"pid\":$(property MainPID),"* ]]
}

listens_on() {
    [[ $(within kinfolk-embedded id --addresses) == */"$1"/* ]]
}

# What the unit takes from the node is taken from it.
confined() {
    local pid folder line
    pid=$(property MainPID)
    for line in "Uid:.$(within id -u kinfolk)" 'NoNewPrivs:.1' 'Seccomp:.2' 'CapEff:.0+' 'CapBnd:.0+'; do
        if ! within grep -E "^$line\b" "/proc/$pid/status"; then
            echo "the node's process lacks: $line" >&2
            return 1
        fi
    done
    for folder in / /etc /usr/bin /var /home /root /dev /sys/fs/cgroup; do
        if within nsenter --target "$pid" --mount -- touch "$folder/there" 2>/dev/null; then
            echo "the node could write to $folder" >&2
            return 1
        fi
    done
    within nsenter --target "$pid" --mount -- touch /var/lib/kinfolk/there
    within rm /var/lib/kinfolk/there
    has MemoryMax $((128 << 20))
    has WatchdogUSec 5min
}

# With systemd as it is on a Raspberry Pi: whatever happens to the node, it is there again, as the same.
boots() {
    local id pid drop=/run/systemd/system/kinfolk-embedded.service.d
    boot
    inside dpkg -i /first.deb
    eventually runs_after 0
    id=$(within kinfolk-embedded id)
    answers_as "$id"
    confined
    nsenter --target "$(pgrep --parent "$machine")" --net sh -c "$home"
    eventually listens_on 192.168.1.2
    echo "it is started with its installation, confined, and notices the network"

    inside systemctl kill --kill-whom main --signal KILL kinfolk-embedded
    eventually runs_after 1
    eventually answers_as "$id"

    # Five minutes are long.
    within mkdir -p "$drop"
    printf '[Service]\nWatchdogSec=4s\n' | within tee "$drop/watchdog.conf" >/dev/null
    within systemctl daemon-reload
    inside systemctl restart kinfolk-embedded
    sleep 10
    runs_after 0
    inside systemctl kill --kill-whom main --signal STOP kinfolk-embedded
    eventually runs_after 1
    eventually answers_as "$id"
    within journalctl --unit kinfolk-embedded | grep 'Watchdog timeout'
    within rm -r "$drop"
    within systemctl daemon-reload
    echo "killed, it comes back; without an answer, too; with one, it stays"

    inside systemctl stop kinfolk-embedded
    has Result success
    has ExecMainStatus 0
    within sed -i 's/^power = .*/power = "none"/' /etc/kinfolk/config.toml
    if inside systemctl start kinfolk-embedded; then return 1; fi
    has ActiveState failed
    has ExecMainStatus 2
    within sed -i 's/^power = .*/power = "normal"/' /etc/kinfolk/config.toml
    inside systemctl start kinfolk-embedded
    answers_as "$id"
    echo "it ends in order, and is not started again and again with settings that are wrong"

    pid=$(property MainPID)
    inside dpkg -i /second.deb
    runs_after 0
    [ "$pid" != "$(property MainPID)" ]
    answers_as "$id"
    within grep -q '^power = "normal"' /etc/kinfolk/config.toml
    echo "an upgrade starts it anew, with its identity and settings"

    halt
    boot
    eventually runs_after 0
    answers_as "$id"
    echo "it is there after the next boot"

    inside dpkg -r kinfolk-embedded
    within sh -c '! cat /proc/[0-9]*/comm 2>/dev/null | grep kinfolk'
    [ -n "$(ls "$root/var/lib/kinfolk")" ]
    inside dpkg -P kinfolk-embedded
    gone
    has LoadState not-found
    echo "removed, it leaves its data; purged, nothing"
    halt
}

gone() {
    [ ! -e "$root/var/lib/kinfolk" ]
    [ ! -e "$root/etc/kinfolk" ]
    [ -z "$(find "$root/etc/systemd" "$root/var/lib/systemd" -name '*kinfolk*')" ]
    if grep kinfolk "$root/etc/passwd" "$root/etc/group"; then exit 1; fi
}

# Shuts the other Debian down, in order.
halt() {
    if [ -n "$machine" ]; then
        kill "$machine" || true
        wait "$machine" || true
        machine=
    fi
}

check() {
    scripts/needs.sh --package
    root=$(mktemp -d)
    machine=
    # Its users are others than root.
    chmod 755 "$root"
    trap 'halt; rm -rf "$root" "$root.log"' EXIT
    set -E
    trap 'echo "failed, line $LINENO: $BASH_COMMAND" >&2' ERR
    debootstrap --variant=minbase --include=adduser,systemd "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$root.log" ||
        { cat "$root.log" >&2; exit 1; }
    cp "$(package | tail -1)" "$root/first.deb"
    # The same once more, as a newer one.
    package --no-build --fast --deb-revision 2 --output "$root/second.deb"

    inside dpkg -i /first.deb
    inside systemd-analyze verify kinfolk-embedded.service
    inside systemd-analyze security --offline=true --threshold=20 --no-pager kinfolk-embedded.service | tail -1
    runs
    inside dpkg -P kinfolk-embedded
    gone
    boots
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
