#!/usr/bin/env bash
# Writes cli/startup.order anew: the functions that a start runs, which the linker then lays side by side
# (cli/build.rs). Worth a run when starts have come to touch more pages, or with another compiler: the names in
# the list end in hashes that depend on it. Takes root and some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
map=$PWD/target/rrun.map
RRUN_LINK_MAP=$map cargo build --release -p rrun
cargo build --release -p rrun-tests --bin footprint
bin=${CARGO_TARGET_DIR:-target}
RRUN_BIN=$(ls -d "$bin"/*/release/rrun)
FOOTPRINT=$(ls -d "$bin"/*/release/footprint)
RRUN_ROOTFS=${RRUN_ROOTFS:-$PWD/target/busybox-rootfs.tar}
export RRUN_BIN FOOTPRINT RRUN_ROOTFS map out=$PWD/cli/startup.order

# In a mount and network namespace of its own; its end takes everything with it.
exec unshare -mn bash -euo pipefail <<'INSIDE'
. tests/gates/host.sh
# The first run makes the bridge and the firewall table.
"$RRUN_BIN" run --rm -p 8080:80 busybox true
sleep 0.2
"$FOOTPRINT" "$map" "$out" "$RRUN_BIN" run --rm -p 8080:80 busybox true
sleep 0.2
INSIDE
