#!/usr/bin/env bash
# Runs a command and proves that the machine is afterwards as it was: links, firewall, mounts, rrun's
# cgroups and processes.
#
#   tests/gates/untouched.sh tests/run.sh
set -euo pipefail

picture() {
  ip -br link | awk '{print "link", $1}' | sort
  nft list ruleset | sed 's/^/nft /'
  awk '{print "mount", $5}' /proc/self/mountinfo | sort
  # The parents `rrun` stay by design: they hold the controllers' settings for the next container.
  find /sys/fs/cgroup -type d -path '*rrun*' ! -name rrun | sed 's/^/cgroup /' | sort
  # `rrun monitor`, by its first two words: a process that a test left behind.
  for p in /proc/[0-9]*; do
    { tr '\0' ' ' <"$p/cmdline" | grep -oE '^rrun monitor [0-9a-f]{12}' | sed 's/^/process /'; } 2>/dev/null || true
  done
}

before=$(picture)
"$@"
# Network namespaces die asynchronously.
for _ in $(seq 50); do
  after=$(picture)
  [ "$before" = "$after" ] && exit 0
  sleep 0.1
done
echo "untouched: $* left the machine changed:" >&2
diff <(echo "$before") <(echo "$after") >&2
exit 1
