#!/usr/bin/env bash
# From a fresh clone to the first container: installs what is missing, builds rrun, installs it as
# /usr/local/bin/rrun, gets an image and runs it.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)
say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }

vagrant/provision.sh
say "building rrun (one static binary)"
cargo build --release -p rrun
"${sudo[@]}" install -m 0755 target/*/release/rrun /usr/local/bin/rrun

image=alpine
if ! "${sudo[@]}" rrun image inspect "$image" >/dev/null 2>&1; then
  say "rrun pull $image"
  if ! "${sudo[@]}" rrun pull "$image"; then
    image=busybox:local
    say "Docker Hub cannot be reached: using an image made here from the distribution's own busybox ($image)"
    vagrant/busybox-rootfs.sh | "${sudo[@]}" rrun import --change 'CMD ["sh"]' - "$image"
  fi
fi

say "rrun run --rm --network none $image ip link show      (a network namespace of its own: only lo)"
"${sudo[@]}" rrun run --rm --network none "$image" ip link show
say "rrun run --rm $image ip addr                          (the default bridge: eth0 with an address)"
"${sudo[@]}" rrun run --rm "$image" ip addr
