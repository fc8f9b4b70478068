#!/usr/bin/env bash
# That decisions are the same on ARM 64: the core's tests, the golden traces and the hashes of simulated runs, all of them made
# on x86-64, under qemu. Arguments go to the tests' runner. Needs rustup, and as root on Debian installs the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

# program, the Debian package that brings it
needs="\
aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
qemu-aarch64 qemu-user"
packages=$(while read -r program package; do command -v "$program" >/dev/null || echo "$package"; done <<<"$needs")
if [ -n "$packages" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
        echo "missing, and only root may install it: $packages libc6-dev-arm64-cross" >&2
        exit 1
    fi
    apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages libc6-dev-arm64-cross
fi
rustup target add "$target"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
cargo test --locked --target "$target" -p kinfolk-core --lib --test named_situations --test logs_converge \
    --test a_peer_lives_by_the_state_table "$@"
cargo test --locked --target "$target" -p kinfolk-sim --test golden --test the_same_seed_is_the_same_run "$@"
