#!/usr/bin/env bash
# Writes a Debian root file system with real programs (nginx, redis, postgres, python) as a tar archive: what
# tests/tests/programs.rs makes its images of.
#
#   vagrant/programs-rootfs.sh target/programs-rootfs.tar
set -euo pipefail
out=$(realpath -m "${1:?usage: $0 FILE.tar}")
cd "$(dirname "$0")"
. ./debian.sh

packages=(
  nginx
  redis-server
  postgresql
  python3 python3-redis python3-psycopg2 # and clients of both
  nftables               # what rrun's own package depends on (tests/gates/package.sh)
)

# The files of a root file system belong to root.
[ "$(id -u)" = 0 ] || exec sudo env "PATH=$PATH" "$PWD/programs-rootfs.sh" "$out"
rm -f "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 0755 "$work"
# No cluster is made at installation. What only postgres' just-in-time compiler, perl's scripts and other
# character sets need is half of the whole, and left out.
debian_rootfs "$work" "$(IFS=,; echo "${packages[*]}")" "$work/root.tar" --format=tar \
  --essential-hook='mkdir -p "$1/etc/postgresql-common"; echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"' \
  --dpkgopt='path-exclude=*/libLLVM*' --dpkgopt='path-exclude=*/libz3*' --dpkgopt='path-exclude=*/postgresql/*/lib/bitcode/*' \
  --customize-hook='cd "$1" && find var/cache -type f -delete && rm -rf tmp/* usr/share/i18n usr/lib/*/gconv usr/share/perl/5* usr/lib/*/perl/5*' \
  >"$work/log" 2>&1 || { tail -n 30 "$work/log" >&2; exit 1; }
mv "$work/root.tar" "$out"
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID:$SUDO_GID" "$out"
