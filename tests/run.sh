#!/usr/bin/env bash
# Builds the release binary and runs every test: unit tests, plan snapshots, and the black-box tests
# that drive the binary on simulated hosts (these need root, and take sudo if this is not root).
# Arguments go to the test runner: tests/run.sh publish
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin

vagrant/provision.sh tests
# Real programs from the distribution's packages, once, while the compiler is busy.
mkdir -p target
programs=$PWD/target/programs-rootfs.tar
{ [ "$programs" -nt vagrant/programs-rootfs.sh ] || vagrant/programs-rootfs.sh "$programs" 2>"$programs.log"; } &
fetching=$!
cargo build --release --workspace --bins
RRUN_BIN=$(ls -d "$PWD"/target/*/release/rrun)
RRUN_PROBER=$(ls -d "$PWD"/target/*/release/prober)
RRUN_PEER=$(ls -d "$PWD"/target/*/release/peer)
RRUN_ROOTFS=$PWD/target/busybox-rootfs.tar
export RRUN_BIN RRUN_PROBER RRUN_PEER RRUN_ROOTFS
if [ ! -s "$RRUN_ROOTFS" ]; then
  vagrant/busybox-rootfs.sh >"$RRUN_ROOTFS.tmp"
  mv "$RRUN_ROOTFS.tmp" "$RRUN_ROOTFS"
fi
wait "$fetching" || {
  echo "no root file system of real programs, so their tests will fail; vagrant/programs-rootfs.sh said:" >&2
  cat "$programs.log" >&2
}

# The black-box tests make namespaces: root, with the caller's toolchain.
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo -E env "PATH=$PATH" "CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}" "RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}")
if cargo nextest --version >/dev/null 2>&1; then
  "${sudo[@]}" cargo nextest run --workspace "$@"
else
  "${sudo[@]}" cargo test --workspace --no-fail-fast "$@"
fi
