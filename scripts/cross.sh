#!/usr/bin/env bash
# Builds for a 64-bit ARM machine, a Raspberry Pi, and runs that under qemu beside the same on this x86-64 machine:
#   scripts/cross.sh quick    golden traces replay there, and simulated runs have the same hashes
#   scripts/cross.sh tests    the core's tests, and those of the simulator that run in one process
#   scripts/cross.sh release  golden traces and hashes again, from release builds
#   scripts/cross.sh node     kinfolk-embedded, as it is packaged, connects to an x86-64 node, and the traces of both replay on both
#   scripts/cross.sh          all
# Continuous integration does the first; the others are for the night.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/needs.sh --cross

arm=aarch64-unknown-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
qemu=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${qemu[*]}"
target="${CARGO_TARGET_DIR:-target}"

# same_runs FOLDER SCENARIO…: of the programs that lie in it, for here and for ARM.
same_runs() {
    local folder="$1" scenario here there hash='s/.*"hash":"\([0-9a-f]*\)".*/\1/p'
    local x86=("$target/$1/kinfolk-sim") pi=("${qemu[@]}" "$target/$arm/$1/kinfolk-sim")
    shift
    printf '%s\0' tests/traces/*.jsonl | xargs -0 -n 1 -P "$(nproc)" "${pi[@]}" replay >/dev/null
    echo "all golden traces replay on ARM, $folder"
    for scenario in "$@"; do
        here=$("${x86[@]}" run "$scenario" --seed 7 --json | sed -n "$hash")
        there=$("${pi[@]}" run "$scenario" --seed 7 --json | sed -n "$hash")
        echo "$scenario, $folder: $here on x86-64, $there on ARM"
        if [ -z "$here" ] || [ "$here" != "$there" ]; then
            echo "the same seed is not the same run on ARM" >&2
            exit 1
        fi
        hashes+="$scenario $here"$'\n'
    done
}
hashes=""

# For what runs on ARM here, optimising would take longer than it saves.
simulator_for_arm() {
    CARGO_PROFILE_DEV_DEBUG=false cargo build --locked --target "$arm" -p kinfolk-sim \
        --config 'profile.dev.package.kinfolk-core.opt-level=0' --config 'profile.dev.package.kinfolk-sim.opt-level=0'
}

# An x86-64 program: the one that scripts/test.sh has built, unless its sources are newer.
program() {
    local path="$target/debug/$1"
    shift
    if [ ! -x "$path" ] || [ -n "$(find Cargo.lock core "$@" -newer "$path" -print -quit)" ]; then
        cargo build --locked -p "$(basename "$path")"
    fi
}

quick() {
    simulator_for_arm
    program kinfolk-sim sim
    same_runs debug lan-of-five two-homes-and-a-server
}

tests() {
    # Under qemu a case takes ten times as long. A test's own program, started by its path, would not run by qemu.
    PROPTEST_CASES=20 cargo test --locked --target "$arm" -p kinfolk-core --tests
    cargo test --locked --target "$arm" -p kinfolk-sim --lib --test a_trace_replays_bit_for_bit --test golden \
        --test the_same_seed_is_the_same_run -- --skip in_another_process
}

release() {
    cargo build --locked --release -p kinfolk-sim
    cargo build --locked --release -p kinfolk-sim --target "$arm"
    same_runs release lan-of-five two-homes-and-a-server family-of-eight
}

node() {
    simulator_for_arm
    program kinfolk-sim sim
    program kinfolk shell host runtime-tokio
    cargo build --locked --profile small -p kinfolk-embedded --target "$arm"
    local folder side peer transport at
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # The folder of now.
    trap "kill \$(jobs -p) 2>/dev/null || true; wait; rm -rf '$folder'" EXIT
    # qemu-user tells little of interfaces: addresses by hand.
    local alone=(--json --no-mdns --listen /ip4/127.0.0.1/udp/0/quic-v1 --listen /ip4/127.0.0.1/tcp/0)
    export HOME="$folder"
    "$target/debug/kinfolk" up "${alone[@]}" --data-dir "$folder/server" >"$folder/server.log" 2>&1 &
    "${qemu[@]}" "$target/$arm/small/kinfolk-embedded" up "${alone[@]}" --data-dir "$folder/pi" >"$folder/pi.log" 2>&1 &
    for side in server pi; do
        patiently "$target/debug/kinfolk" status --data-dir "$folder/$side"
    done
    peer=$("$target/debug/kinfolk" id --data-dir "$folder/server")
    # By TCP first: once the other is known, QUIC is what is taken.
    for transport in 'tcp/[1-9][0-9]*' 'udp/[1-9][0-9]*/quic-v1'; do
        at=$("$target/debug/kinfolk" status --json --data-dir "$folder/server" | grep -o "/ip4/127.0.0.1/$transport" | head -1)
        "$target/debug/kinfolk" connect "$at/p2p/$peer" --data-dir "$folder/pi"
        "$target/debug/kinfolk" peers --data-dir "$folder/pi" | tee "$folder/peers"
        case "$transport" in
        tcp*) grep -q 'local TCP' "$folder/peers" ;;
        udp*) grep -q 'local QUIC' "$folder/peers" ;;
        esac
        "$target/debug/kinfolk" disconnect "$peer" --data-dir "$folder/pi"
    done
    for side in server pi; do
        "$target/debug/kinfolk" trace export "$folder/$side.jsonl" --data-dir "$folder/$side"
        "$target/debug/kinfolk-sim" replay "$folder/$side.jsonl"
        "${qemu[@]}" "$target/$arm/debug/kinfolk-sim" replay "$folder/$side.jsonl"
    done
}

patiently() {
    for _ in $(seq 120); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    echo "in vain: $*" >&2
    exit 1
}

case "${1:-all}" in
quick | tests | release | node) "$1" ;;
all)
    quick
    tests
    release
    # Of each of the three scenarios one hash, whatever built it.
    if [ "$(sort -u <<<"$hashes" | grep -c .)" != 3 ]; then
        echo "the same seed is another run in another profile: $hashes" >&2
        exit 1
    fi
    node
    ;;
*)
    echo "usage: scripts/cross.sh [quick|tests|release|node]" >&2
    exit 2
    ;;
esac
