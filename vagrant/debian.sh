# shellcheck shell=bash
# Root file systems from Debian's packages; sourced by vm/image.sh and programs-rootfs.sh.

# debian_rootfs WORK PACKAGES OUT [OPTION...]: mmdebstrap's essential system with these packages (separated by
# commas) as a directory or tar OUT, without documentation; WORK is a directory for its configuration.
debian_rootfs() {
  local work=$1 packages=$2 out=$3 sources suite lines
  shift 3
  # The mirrors this machine itself uses, so that a machine with a local mirror needs nothing else.
  sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 'Component: main' | sort -u)
  suite=$(. /etc/os-release; [ "$ID" = debian ] && echo "$VERSION_CODENAME" || echo bookworm)
  { apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries|Check-Valid)' || true; } >"$work/apt.conf"
  echo 'Acquire::Languages "none";' >>"$work/apt.conf"
  mapfile -t lines <<<"$sources"
  # Its own cleaning of apt's lists empties this machine's instead.
  mmdebstrap --skip=cleanup/apt --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' --quiet --variant=essential --include="$packages" \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --aptopt="$work/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    "$@" "$suite" "$out" ${sources:+"${lines[@]}"}
}
