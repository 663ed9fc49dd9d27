# shellcheck shell=bash
# A host for a script in a mount and network namespace of its own, with $RRUN_ROOTFS as image busybox; sourced
# at the root of the tree. The script's end takes everything with it.
mount --make-rprivate /
dir=$(mktemp -d)
mount -t tmpfs host "$dir"
trap 'umount -l "$dir"; rmdir "$dir"' EXIT
export RRUN_ROOT=$dir/root RRUN_STATE=$dir/state RRUN_CONFIG=$dir/none.toml
ip link set lo up
"$RRUN_BIN" import "$RRUN_ROOTFS" busybox >/dev/null
