#!/usr/bin/env bash
# The Debian package: made of the release binary that is there, looked into, and installed, used, removed and
# purged in a clean Debian, which is a container of that binary's own.
#
#   tests/gates/package.sh      after tests/run.sh, whose binary and Debian it takes
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
rootfs=$(dirname "${RRUN_ROOTFS:-$PWD/target/busybox-rootfs.tar}")/programs-rootfs.tar
[ "$(id -u)" = 0 ] || exec sudo -E env "PATH=$PATH" "$PWD/tests/gates/package.sh"

cli/dist/deb.sh --no-build >&2
package=$(ls -t "$target"/debian/rrun_*.deb | head -n1)
binary=$(ls "$target"/*/release/rrun)
fail() { echo "package: $*" >&2; exit 1; }

# Where Debian's users and programs look for each.
content=$(dpkg-deb -c "$package" | awk '{print $1, $6}')
while read -r mode path; do
  grep -qxF -- "$mode ./$path" <<<"$content" || fail "no $mode $path in it"
done <<'E'
-rwxr-xr-x usr/bin/rrun
-rw-r--r-- usr/lib/systemd/system/rrun.service
-rw-r--r-- etc/rrun/config.toml
-rw-r--r-- usr/share/man/man1/rrun.1.gz
-rw-r--r-- usr/share/man/man1/rrun-run.1.gz
-rw-r--r-- usr/share/man/man1/rrun-network-create.1.gz
-rw-r--r-- usr/share/bash-completion/completions/rrun
-rw-r--r-- usr/share/zsh/vendor-completions/_rrun
-rw-r--r-- usr/share/fish/vendor_completions.d/rrun.fish
-rw-r--r-- usr/share/doc/rrun/copyright
-rw-r--r-- usr/share/doc/rrun/COMPATIBILITY.md
-rw-r--r-- usr/share/doc/rrun/changelog.Debian.gz
E
[ "$(dpkg-deb -f "$package" Package Depends | paste -sd' ')" = "Package: rrun Depends: nftables" ] || fail "wrong control"
version=$(dpkg-deb -f "$package" Version)
[ "rrun ${version%-*}" = "$("$binary" --version)" ] || fail "version $version of $("$binary" --version)"

work=$(mktemp -d)
export RRUN_ROOT=$work/root RRUN_STATE=$work/state RRUN_CONFIG=$work/config.toml
trap 'rm -rf "$work"' EXIT
"$binary" import "$rootfs" debian >/dev/null
cat >"$work/inside.sh" <<'E'
set -ex
rm -f /etc/dpkg/dpkg.cfg.d/* # by which the fixture has no documentation
dpkg -i /package.deb
test "$(command -v rrun)" = /usr/bin/rrun
test "$(dpkg-query -W -f '${Status}' rrun)" = "install ok installed"
test -L /etc/systemd/system/multi-user.target.wants/rrun.service
gzip -dc /usr/share/man/man1/rrun-run.1.gz | grep -q publish
bash -c '. /usr/share/bash-completion/completions/rrun; complete -p rrun'
# The configuration is good, with every example in it as well, and what an administrator changes stays.
rrun ps -a
sed -i 's/^#\([a-z["]\)/\1/' /etc/rrun/config.toml
rrun ps -a
dpkg -i /package.deb
grep -q '^ip = ' /etc/rrun/config.toml
dpkg -r rrun
test ! -e /usr/bin/rrun
test -f /etc/rrun/config.toml
dpkg -P rrun
test ! -e /etc/rrun/config.toml
test ! -L /etc/systemd/system/multi-user.target.wants/rrun.service
E
"$binary" run --rm --network none -v "$package:/package.deb:ro" -v "$work/inside.sh:/inside.sh:ro" debian \
  sh /inside.sh >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "does not install"; }
echo "package: $(basename "$package") installs, works, and goes" >&2
