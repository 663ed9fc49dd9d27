#!/usr/bin/env bash
# What rrun needs from the distribution (Debian or Ubuntu), installed once; used by vagrant/try.sh,
# tests/run.sh, .ci/run and the VM alike.
#
#   vagrant/provision.sh            to build and run rrun
#   vagrant/provision.sh tests      also what its tests need
#   vagrant/provision.sh vm         also what vagrant/vm.sh needs to build and boot the VM
#   vagrant/provision.sh toolchain  also Rust, for this user, if there is none (several words: all of it)
#   vagrant/provision.sh print guest    installs nothing: the packages that go into the VM
set -euo pipefail

build_packages=(
  gcc libc6-dev          # a linker, and the static C library that makes rrun one static binary
)
run_packages=(
  nftables               # `nft`, which rrun calls when a network is made or removed
  iproute2               # not needed by rrun: to look at what it made
  ca-certificates        # to trust registries
)
test_packages=(
  python3-minimal        # servers and clients at both ends of a connection
  docker-registry skopeo # a real registry on loopback, and an independent reader and writer of images
  strace                 # the system-call gates
  tcpdump                # proves what did and did not cross a wire
  dnsmasq-base           # a real DHCP server on the LAN
  wireguard-tools        # `wg`: a tunnel, where the kernel has them
  iptables               # firewall rules of other programs
  util-linux procps      # unshare, nsenter, script, ps
)
rootfs_packages=(
  mmdebstrap debian-archive-keyring # root file systems from packages: of the tests' programs, of the VM
)
vm_packages=(
  qemu-system-x86 qemu-utils # named together: the first replaces a newer one of the second
  e2fsprogs              # a disk from a root file system
  kmod cpio xz-utils     # the kernel's module index, the initrd, the kernel unpacked
  openssh-client         # the way in
)
guest_packages=(
  systemd systemd-sysv dbus
  openssh-server busybox-static kmod
  apparmor               # apparmor_parser, and profiles that are enforced
)

packages=("${build_packages[@]}" "${run_packages[@]}")
toolchain=
if [ "$*" = "print guest" ]; then
  printf '%s\n' "${run_packages[@]}" "${test_packages[@]}" "${guest_packages[@]}"
  exit
fi
for what in "$@"; do
  case $what in
    tests) packages+=("${test_packages[@]}" "${rootfs_packages[@]}") ;;
    vm) packages+=("${rootfs_packages[@]}" "${vm_packages[@]}") ;;
    toolchain) toolchain=yes packages+=(curl) ;;
    *) echo "usage: $0 [tests|vm|toolchain]... | print guest" >&2; exit 2 ;;
  esac
done

sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
# Tests and VM are made of packages that are only downloaded: they need the lists, which images of
# machines tend to come without. A package may also be renamed or gone from a list that is months old.
if [ ${#missing[@]} -gt 0 ] || ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then
  "${sudo[@]}" apt-get update -qq
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing: ${missing[*]}"
  # docker-registry would start a service on port 5000: at this run level packages start nothing.
  "${sudo[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

PATH=$PATH:$HOME/.cargo/bin
if [ -n "$toolchain" ] && ! command -v cargo >/dev/null; then
  # Debian 12 has a cargo, but not one that is new enough.
  echo "installing Rust with rustup"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --quiet --profile minimal --component rustfmt,clippy
fi
command -v cargo >/dev/null || {
  echo "no Rust toolchain: install one with rustup (cargo 1.91 or newer), then run this again" >&2
  exit 1
}
