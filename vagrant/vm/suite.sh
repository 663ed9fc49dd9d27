#!/usr/bin/env bash
# Runs the tests inside the VM, each in a process of its own, and says how each ended.
#
#   suite.sh THREADS    those that the file `names` lists, "file::name" a line
#
# Here the kernel has everything: a test that was skipped has failed, unless it is in `allowed-skips`.
set -uo pipefail
cd "$(dirname "$0")"
export RRUN_BIN=$PWD/bin/rrun RRUN_PROBER=$PWD/bin/prober RRUN_PEER=$PWD/bin/peer RRUN_ROOTFS=$PWD/busybox-rootfs.tar

if [ "${1:-}" = --one ]; then # NAME: "file::test"
  name=$2 log=results/$2.log
  # What a test leaves behind when it fails would slow all others down: it is in here, and goes with it.
  group=/sys/fs/cgroup/test-$$
  mkdir "$group" && echo $$ >"$group/cgroup.procs"
  start=$(date +%s%N)
  timeout -k 10 $((120 * ${RRUN_TEST_SLOW:-1})) "tests/${name%%::*}" --exact "${name#*::}" --test-threads 1 --nocapture >"$log" 2>&1 </dev/null
  code=$?
  echo $$ >/sys/fs/cgroup/cgroup.procs
  echo 1 >"$group/cgroup.kill"
  seconds=$((($(date +%s%N) - start) / 100000000))
  skipped=$(grep -o 'skipped: .*' "$log" | head -n1)
  word=ok
  [ -z "$skipped" ] || word=skipped
  [ $code = 0 ] || word=FAILED
  [ $code != 124 ] && [ $code != 137 ] || word=TIMEOUT
  echo "$word" >"results/$name.end"
  for _ in $(seq 50); do rmdir "$group" 2>/dev/null && break; sleep 0.1; done
  # One write, so that tests that end together do not mix their lines.
  printf '%-8s %4d.%d s  %s%s\n' "$word" $((seconds / 10)) $((seconds % 10)) "$name" "${skipped:+  ($skipped)}"
  exit 0
fi

threads=$1
rm -rf results
mkdir results
names=$(cat names)
echo "$(wc -l <<<"$names") tests, $threads at a time, on Linux $(uname -r), $(stat -fc %T /sys/fs/cgroup), $(nproc) processors"
begin=$SECONDS
xargs -d '\n' -P "$threads" -n 1 ./suite.sh --one <<<"$names"

failed=$(grep -lE 'FAILED|TIMEOUT' results/*.end | sed 's,results/,,; s,\.end$,,')
skipped=$(grep -l skipped results/*.end | sed 's,results/,,; s,\.end$,,')
passed=$(grep -l '^ok' results/*.end | wc -l)
for name in $failed; do
  printf '\n---- %s\n' "$name"
  cat "results/$name.log"
done
lost=$(for name in $skipped; do
  grep -qxF "$name" allowed-skips 2>/dev/null || echo "$name"
done)
[ -z "$lost" ] || printf '\nskipped, though this kernel should have it all:\n%s\n' "$lost"
printf '\nin %d s:\n%d passed, %d failed, %d skipped\n' $((SECONDS - begin)) "$passed" "$(wc -w <<<"$failed")" "$(wc -w <<<"$skipped")"
[ -z "$failed$lost" ]
