# shellcheck shell=bash
# What goes into the VM: the release binary and the tests' executables, built here. No toolchain goes in.

# payload_build: sets $executables and $rootfs.
payload_build() {
  echo "building rrun and its tests"
  cargo build --release --workspace --bins --quiet
  rootfs=${RRUN_ROOTFS:-$target/busybox-rootfs.tar}
  [ -s "$rootfs" ] || { vagrant/busybox-rootfs.sh >"$rootfs.$$" && mv "$rootfs.$$" "$rootfs"; }
  # Lines "folder target executable".
  executables=$(cargo test --workspace --no-run --quiet --message-format=json | sed -n \
    's|.*"package_id":"[^"#]*/\([^"/#]*\)#.*"target":{[^}]*"name":"\([^"]*\)".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*|\1 \2 \3|p')
}

# payload_copy: as /opt/rrun into the VM; debug information stays here.
payload_copy() {
  local payload=$run/payload folder name executable
  rm -rf "$payload"
  mkdir -p "$payload"/{bin,tests}
  cp "$target"/*/release/{rrun,prober,peer} "$payload/bin/"
  while read -r folder name executable; do
    # The black-box tests by their file, as in tests/tests; a crate's own tests by the crate.
    [ "$folder" = tests ] || name=unit-$folder-$name
    strip -o "$payload/tests/$name" "$executable"
  done <<<"$executables"
  cp "$rootfs" "$payload/busybox-rootfs.tar"
  cp vagrant/vm/suite.sh "$payload/"
  tar -C "$payload" -cf - . | machine_ssh 'rm -rf /opt/rrun; mkdir -p /opt/rrun; tar -C /opt/rrun -xf -; ln -sf /opt/rrun/bin/rrun /usr/local/bin/'
}
