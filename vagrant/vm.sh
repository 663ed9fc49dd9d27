#!/usr/bin/env bash
# A virtual machine for rrun that needs neither Vagrant nor any download but the distribution's packages:
# the stock Debian kernel under qemu (KVM where that works, else software emulation), systemd, cgroup v2.
#
#   vagrant/vm.sh test [FILTER...]    run the tests (those whose name contains a FILTER) in a fresh VM
#   vagrant/vm.sh reboot              real reboots and power cuts of a VM with containers in it
#   vagrant/vm.sh ci                  what .ci/run runs: a subset chosen by measured time, and the reboots
#   vagrant/vm.sh run COMMAND         one shell command in a fresh VM that has rrun
#   vagrant/vm.sh up                  start a VM that stays: test, run and shell then use it
#   vagrant/vm.sh shell               a shell in it;   vagrant/vm.sh down: stop it
#
# Environment: RRUN_VM_DIR (where the image and the results go; default target/vm), RRUN_VM_MEMORY (MiB),
# RRUN_VM_ACCEL (kvm or tcg; default: whichever works), RRUN_VM_THREADS (tests at a time).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"; exit "$1"; }

target=${CARGO_TARGET_DIR:-$PWD/target}
image=$(realpath -m "${RRUN_VM_DIR:-$target/vm}")
stays=$image/up # a link to the directory of the VM that stays
. vagrant/vm/machine.sh
. vagrant/vm/payload.sh

# fresh: a VM of this run's own, gone with it.
fresh() {
  run=$(mktemp -d "${TMPDIR:-/tmp}/rrun-vm.XXXXXX")
  trap 'machine_stop; rm -rf "$run"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  machine_boot
}

# attach_or_fresh: the VM that stays if there is one.
attach_or_fresh() {
  if [ -L "$stays" ] && machine_attach "$(readlink "$stays")"; then
    echo "using the VM that is up"
  else
    fresh
  fi
}

# suite NAMES: these tests; the logs come back whatever the outcome.
suite() {
  local code=0
  payload_copy "$1"
  limit=${limit:-5400} machine_ssh env RRUN_TEST_SLOW="$(machine_slowdown)" \
    /opt/rrun/suite.sh "${RRUN_VM_THREADS:-3}" || code=$?
  rm -rf "$image/results"
  mkdir -p "$image/results"
  machine_ssh tar -C /opt/rrun/results -cf - . | tar -C "$image/results" -xf - || true
  [ "$code" != 124 ] || echo "vm: time is up" >&2
  echo "logs: $image/results"
  return "$code"
}

# reboots: containers and networks before and after a reboot and a power cut. Each act is a run of
# the program in tests/src/bin/reboot.rs, in the VM.
reboots() {
  machine_ssh /opt/rrun/bin/reboot before
  machine_reboot
  machine_ssh /opt/rrun/bin/reboot after-reboot
  # The power goes while containers and networks come and go.
  machine_ssh 'setsid /opt/rrun/bin/reboot churn >/dev/null 2>&1 </dev/null &'
  machine_ssh /opt/rrun/bin/reboot churning
  machine_power_cut
  machine_ssh /opt/rrun/bin/reboot after-power-cut
}

# One function, so that bash has read it all before the first line runs, whatever becomes of the file.
main() {
local command=${1:-} names code filters
[ $# = 0 ] || shift
case $command in
  test | reboot | ci | run | up | build) vagrant/provision.sh vm; vagrant/vm/image.sh "$image" ;;
esac
case $command in
  build) ;;
  test)
    payload_build
    names=$(payload_names "$@") || { echo "no test has a name like that" >&2; exit 4; }
    attach_or_fresh
    suite "$names"
    ;;
  reboot)
    payload_build
    fresh
    payload_copy ""
    reboots
    ;;
  ci)
    payload_build
    mapfile -t filters < <(grep -v '^#' vagrant/vm/ci-tests)
    names=$(payload_names "${filters[@]}")
    fresh
    payload_copy "$names"
    reboots
    limit=1200 suite "$names"
    ;;
  run)
    payload_build
    attach_or_fresh
    payload_copy ""
    limit=0 machine_ssh "$*"
    ;;
  up)
    if [ -L "$stays" ] && machine_attach "$(readlink "$stays")"; then echo "already up"; exit 0; fi
    payload_build
    fresh
    payload_copy ""
    trap - EXIT
    ln -sfn "$run" "$stays"
    echo "up: vagrant/vm.sh shell"
    ;;
  shell)
    [ -L "$stays" ] && machine_attach "$(readlink "$stays")" || { echo "no VM is up: vagrant/vm.sh up" >&2; exit 1; }
    limit=0 machine_ssh -t "$@"
    ;;
  down)
    [ -L "$stays" ] && machine_attach "$(readlink "$stays")" || { rm -f "$stays"; echo "no VM is up"; exit 0; }
    machine_stop
    rm -rf "$run" "$stays"
    ;;
  -h | --help | help) usage 0 ;;
  *) usage 2 >&2 ;;
esac
}
main "$@"
exit
