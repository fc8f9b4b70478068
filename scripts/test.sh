#!/usr/bin/env bash
# Passes all tests: units, snapshots, properties, whole systems in networks of their own, js-libp2p, golden traces, docs.
# Installs what is missing where it may (see needs.sh). Arguments go to the test runner:
#   scripts/test.sh                  all
#   scripts/test.sh lan_nodes        those whose name has this in it
# The simulator is built with its museum of planted bugs, which do nothing unless a scenario asks for one: one build for all.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/needs.sh
PATH="$PATH:/usr/sbin:/sbin"
export PATH

# The whole-system tests run the programs that this builds: cargo makes those of every package that has tests of its own.
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --workspace --features kinfolk-sim/museum --no-fail-fast "$@"
else
    # Two at a time: some tests run ten nodes.
    cargo test --locked --workspace --features kinfolk-sim/museum --no-fail-fast --lib --bins --tests -- --test-threads=2 "$@"
fi
if [ $# = 0 ]; then
    # With the same features, so that nothing is built twice.
    cargo test --locked --workspace --features kinfolk-sim/museum --doc
fi
