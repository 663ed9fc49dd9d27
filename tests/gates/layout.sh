#!/usr/bin/env bash
# The house rules a compiler does not check: file length, where `unsafe` may stand, no NSS calls.
set -euo pipefail
cd "$(dirname "$0")/../.."
fail=0
complain() { echo "layout: $*" >&2; fail=1; }

while read -r lines file; do
  [ "$file" = total ] && continue
  [ "$lines" -le 600 ] || complain "$file has $lines lines: a file tells one story in at most 600"
done < <(git ls-files '*.rs' | xargs wc -l)

while read -r file; do
  case $file in
    runtime/src/sys/* | netstack/src/nl/* | */tests.rs | */tests/*) ;;
    *) grep -q 'unsafe' "$file" && grep -nE '\bunsafe (fn|\{|impl)' "$file" | grep -vq '^$' && echo "$file" ;;
  esac
done < <(git ls-files 'runtime/src/*.rs' 'netstack/src/*.rs' 'images/src/*.rs' 'cli/src/*.rs') >/tmp/unsafe.$$ || true
if [ -s /tmp/unsafe.$$ ]; then
  complain "unsafe outside runtime/src/sys and netstack/src/nl: $(tr '\n' ' ' </tmp/unsafe.$$)"
fi
rm -f /tmp/unsafe.$$

# A static glibc binary must not reach for NSS.
if git grep -nE 'getaddrinfo|getpwnam|getgrnam|to_socket_addrs\(\)' -- '*.rs' | grep -v '//' >&2; then
  complain "a name-service call in a static binary"
fi
exit $fail
