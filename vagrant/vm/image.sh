#!/usr/bin/env bash
# Builds what the VM boots into a directory, from the distribution's packages alone, if it is not there yet:
#
#   kernel, initrd   the stock cloud kernel, and a few hundred KB that mount the disk
#   root.ext4        a Debian with systemd, the kernel's modules and what the tests call
#   key              the SSH key that opens it
#
#   vagrant/vm/image.sh target/vm
set -euo pipefail
out=$(realpath -m "${1:?usage: $0 DIRECTORY}")
cd "$(dirname "$0")"
. ../debian.sh

# Anything that goes into the image makes another image.
stamp=$(cat image.sh init guest.sh ../debian.sh ../provision.sh | sha256sum | cut -c1-16)
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9 # two runs at once: one builds, the other waits
[ "$(cat "$out/stamp" 2>/dev/null)" != "$stamp" ] || exit 0

# The files of a root file system belong to root.
[ "$(id -u)" = 0 ] || exec sudo env "PATH=$PATH" "$PWD/image.sh" "$out"
echo "building the VM's image in $out (once; 1 to 3 minutes)"
rm -f "$out/stamp"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"
root=$work/root

# The kernel is unpacked and not installed: no boot loader and no initramfs tools in the VM.
mkdir -m 0777 "$work/deb" # apt downloads as a user of its own
kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
[ -n "$kernel" ] || { echo "no package linux-image-cloud-amd64: run apt-get update" >&2; exit 1; }
(cd "$work/deb" && apt-get download -qq "$kernel" && dpkg -x ./*.deb ../kernel)

packages=$(../provision.sh print guest | paste -sd,)
debian_rootfs "$work" "$packages" "$root" --format=directory >"$out/image.log" 2>&1 \
  || { tail -n 30 "$out/image.log" >&2; exit 1; }

version=$(ls "$work/kernel/lib/modules")
mkdir -p "$root/usr/lib/modules"
mv "$work/kernel/lib/modules/$version" "$root/usr/lib/modules/"
PATH=$PATH:/usr/sbin depmod -b "$root" "$version"
rm -f "$out/key" "$out/key.pub"
ssh-keygen -q -t ed25519 -N '' -C 'rrun VM' -f "$out/key"
./guest.sh "$root" "$out/key.pub"
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:$SUDO_GID" "$out/key" "$out/key.pub"

# Software emulation would spend seconds on unpacking the kernel: it is done here.
./vmlinux.sh "$work/kernel/boot/vmlinuz-$version" >"$out/kernel" || cp "$work/kernel/boot/vmlinuz-$version" "$out/kernel"

# The first process: the disk's drivers and the one static shell of the distribution.
mkdir -p "$work/initrd"/{bin,dev,proc,root,modules}
cp "$root/bin/busybox" "$work/initrd/bin/"
PATH=$PATH:/usr/sbin modprobe -d "$root" -S "$version" --show-depends -a virtio_pci virtio_blk |
  awk '$1 == "insmod" && !seen[$2]++ {printf "%s %02d\n", $2, ++n}' | while read -r module n; do
    cp "$module" "$work/initrd/modules/$n-$(basename "$module")"
  done
install -m 0755 init "$work/initrd/init"
(cd "$work/initrd" && find . | cpio --quiet -o -H newc -R 0:0) >"$out/initrd"

rm -f "$out/root.ext4"
PATH=$PATH:/usr/sbin mke2fs -q -t ext4 -m 0 -d "$root" "$out/root.ext4" 4G >>"$out/image.log"
echo "$stamp" >"$out/stamp"
