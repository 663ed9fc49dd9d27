#!/usr/bin/env bash
# One table: how long things take with rrun, and with docker, podman, runc and crun where they are
# installed (and, for docker, where its daemon answers). Asserts nothing; run it on a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
vagrant/provision.sh tests
cargo build --release --workspace --bins
RRUN_BIN=$(ls -d "$PWD"/target/*/release/rrun)
RRUN_PEER=$(ls -d "$PWD"/target/*/release/peer)
RRUN_ROOTFS=$PWD/target/busybox-rootfs.tar
export RRUN_BIN RRUN_PEER RRUN_ROOTFS
[ -s "$RRUN_ROOTFS" ] || vagrant/busybox-rootfs.sh >"$RRUN_ROOTFS"
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo -E)
exec "${sudo[@]}" "$(ls -d target/*/release/bench)" "$@"
