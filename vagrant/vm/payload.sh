# shellcheck shell=bash
# What goes into the VM: the release binary and the tests' executables, built here. No toolchain goes in.

payload_size=1G # of the disk it comes on; almost all of it a hole

# payload_build: sets $executables (lines "name path"), $rootfs and $programs.
payload_build() {
  local folder kind name path
  echo "building rrun and its tests"
  cargo build --release --workspace --bins --quiet
  rootfs=${RRUN_ROOTFS:-$target/busybox-rootfs.tar}
  [ -s "$rootfs" ] || { vagrant/busybox-rootfs.sh >"$rootfs.$$" && mv "$rootfs.$$" "$rootfs"; }
  programs=$(dirname "$rootfs")/programs-rootfs.tar
  [ "$programs" -nt vagrant/programs-rootfs.sh ] || vagrant/programs-rootfs.sh "$programs"
  # The black-box tests go by their file; what else crates test against the kernel by crate and file.
  executables=$(cargo test --workspace --no-run --quiet --message-format=json | sed -n \
    's|.*"package_id":"[^"#]*/\([^"/#]*\)#.*"target":{"kind":\["\([^"]*\)"[^}]*"name":"\([^"]*\)".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*|\1 \2 \3 \4|p' |
    while read -r folder kind name path; do
      [ "$folder" = tests ] || name=$folder-$name
      [ "$kind" = test ] || name=unit-$name
      echo "$name $path"
    done)
}

# payload_names FILTER...: the tests "file::name" that contain one of the FILTERs. None: all but unit tests, of
# which some are about time-outs, and none about the kernel.
payload_names() {
  local name path names
  names=$(while read -r name path; do
    "$path" --list --format terse 2>/dev/null | sed -n "s,: test$,,; s,^,$name::,p"
  done <<<"$executables")
  if [ $# = 0 ]; then grep -v '^unit-' <<<"$names"; else grep -F "$(printf '%s\n' "$@")" <<<"$names"; fi
}

# payload_copy NAMES: what these tests need, as /opt/rrun into the VM; debug information stays here.
payload_copy() {
  local payload=$run/payload name path
  rm -rf "$payload"
  mkdir -p "$payload"/{bin,tests}
  cp "$target"/*/release/rrun "$payload/bin/"
  # The tests' own programs: src/bin/NAME.rs or src/bin/NAME/.
  for name in tests/src/bin/*; do
    name=$(basename "$name" .rs)
    cp "$target"/*/release/"$name" "$payload/bin/"
  done
  while read -r name path; do
    ! grep -q "^$name::" <<<"$1" || strip -o "$payload/tests/$name" "$path"
  done <<<"$executables"
  cp "$rootfs" "$payload/busybox-rootfs.tar"
  ! grep -q '^programs::' <<<"$1" || cp "$programs" "$payload/programs-rootfs.tar"
  cp vagrant/vm/{suite.sh,allowed-skips} "$payload/"
  echo "$1" >"$payload/names"
  # A second disk, since encryption under emulation is slow; the VM must not believe what it has read before.
  tar -C "$payload" --format=ustar -cf "$run/payload.raw" .
  truncate -s "$payload_size" "$run/payload.raw"
  machine_ssh 'blockdev --flushbufs /dev/vdb; rm -rf /opt/rrun; mkdir /opt/rrun; tar -C /opt/rrun -xmf /dev/vdb;
    ln -sf /opt/rrun/bin/rrun /usr/local/bin/'
}
