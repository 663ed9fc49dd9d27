#!/usr/bin/env bash
# How much a start asks of the kernel: system calls, processes, threads, syncs and sleeps of the three
# start paths. Counts do not depend on the machine's load, so they are gated; times are for tests/bench.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
RRUN_BIN=${RRUN_BIN:-$(ls -d "$PWD"/target/*/release/rrun)}
RRUN_ROOTFS=${RRUN_ROOTFS:-$PWD/target/busybox-rootfs.tar}
export RRUN_BIN RRUN_ROOTFS

# One static binary under 10 MB: nothing but the kernel at run time.
size=$(stat -c %s "$RRUN_BIN")
echo "binary                 $size bytes (at most 10000000)"
[ "$size" -le 10000000 ] || { echo "gate: $RRUN_BIN has $size bytes" >&2; exit 1; }
! ldd "$RRUN_BIN" >/dev/null 2>&1 || ldd "$RRUN_BIN" | grep -q 'statically linked' || { echo "gate: $RRUN_BIN is not static" >&2; exit 1; }

# In a mount and network namespace of its own; its end takes everything with it.
exec unshare -mn bash -euo pipefail <<'INSIDE'
. tests/gates/host.sh
# The first run makes the bridge and the firewall table; the gates are on every later one.
"$RRUN_BIN" run --rm -p 8080:80 busybox true

fail=0
# gate NAME LIMIT ARGS...: runs `rrun run --rm ARGS` and compares the count of system calls.
gate() {
  local name=$1 limit=$2 log=$dir/trace; shift 2
  sleep 0.2 # the monitor of the run before lingers with its firewall socket
  strace -f -qq -o "$log" "$RRUN_BIN" run --rm "$@"
  sleep 0.2
  local total processes threads execs slow
  # Up to the exec of the container's program: what a user waits for.
  local last; last=$(grep -n 'execve("[^"]*true"' "$log" | tail -n1 | cut -d: -f1)
  total=$(head -n "$last" "$log" | grep -cE '^[0-9]+ +[a-z_0-9]+\(' || true)
  processes=$(grep -cE '^[0-9]+ +(clone|clone3|fork|vfork)\(' "$log" || true)
  threads=$(grep -c 'CLONE_THREAD' "$log" || true)
  execs=$(grep -cE '^[0-9]+ +execve(at)?\(.* = 0$|<\.\.\. execve(at)? resumed>.* = 0$' "$log" || true)
  slow=$(head -n "$last" "$log" | grep -cE '^[0-9]+ +(fsync|fdatasync|sync|syncfs|nanosleep|clock_nanosleep)\(' || true)
  printf '%-22s %4d system calls (at most %d), %d processes, %d threads, %d execs, %d syncs or sleeps\n' \
    "$name" "$total" "$limit" "$processes" "$threads" "$execs" "$slow"
  [ "$total" -le "$limit" ] || { echo "gate: $name: more system calls than $limit" >&2; fail=1; }
  # rrun -> monitor -> container: two forks, two execs (of rrun and of the program); a process more is a
  # spawn on the start path.
  [ "$processes" -le 2 ] || { echo "gate: $name: $processes processes" >&2; fail=1; }
  [ "$execs" -le 2 ] || { echo "gate: $name: $execs execs" >&2; fail=1; }
  [ "$threads" = 0 ] && [ "$slow" = 0 ] || { echo "gate: $name: threads, syncs or sleeps on the start path" >&2; fail=1; }
}
# A wait that is interrupted is a call more: some twenty calls of room.
gate "none" 670 --network none busybox true
gate "bridge" 720 busybox true
gate "bridge -p 8080:80" 760 -p 8080:80 busybox true
exit $fail
INSIDE
