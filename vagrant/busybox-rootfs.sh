#!/usr/bin/env bash
# Writes a small root file system as a tar stream to standard output, made of this distribution's own
# busybox and the libraries it needs: a container image for machines that reach no registry.
#
#   vagrant/busybox-rootfs.sh | rrun import - busybox:local
#
# The dynamic busybox is taken, not busybox-static: glibc's static resolver crashes on any look-up of
# a host name. Nothing is installed: the package is downloaded and unpacked in a temporary directory.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"
root=$work/root
mkdir -p "$root"/{bin,etc,home,lib,proc,root,run,sys,tmp,usr/bin,var/log,var/tmp,dev}
chmod 1777 "$root/tmp" "$root/var/tmp"
chmod 0700 "$root/root"

# _apt, the user apt downloads as, must be able to write the file.
mkdir -m 0777 "$work/deb"
if (cd "$work/deb" && apt-get download -qq busybox >/dev/null 2>&1) && dpkg -x "$work"/deb/*.deb "$work/pkg"; then
  bb=$(find "$work/pkg" -path '*bin/busybox' -type f | head -n1)
else
  bb=$(command -v busybox) || { echo "neither apt nor this machine has a busybox" >&2; exit 1; }
fi
install -m 0755 "$bb" "$root/bin/busybox"

# Its libraries and the loader, at the paths the binary names.
{ ldd "$bb" 2>/dev/null | grep -o '/[^ )]*' || true; } | sort -u | while read -r lib; do
  install -D -m 0755 "$(readlink -f "$lib")" "$root$lib"
done

"$bb" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -sf /bin/busybox "$root/bin/$applet"
done
ln -sf /bin/busybox "$root/usr/bin/env"

cat >"$root/etc/passwd" <<'P'
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
P
cat >"$root/etc/group" <<'G'
root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
nogroup:x:65534:
G
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
. /etc/os-release
echo "${PRETTY_NAME:-Linux}, busybox" >"$root/etc/issue"

# One fixed time, sorted names: the same busybox gives the same image ID.
tar -C "$root" --sort=name --numeric-owner --owner=0 --group=0 --mtime=@1700000000 -cf - .
