#!/usr/bin/env bash
# Writes the ELF kernel that a bzImage holds compressed to standard output (setup header: boot protocol 2.08).
set -euo pipefail
image=$1
u32() { od -An -tu4 -j "$1" -N4 "$image" | tr -d ' '; }
[ "$(dd if="$image" bs=1 skip=514 count=4 status=none)" = HdrS ]
sectors=$(od -An -tu1 -j 497 -N1 "$image" | tr -d ' ')
start=$(((sectors + 1) * 512 + $(u32 584)))
length=$(u32 588)
payload() { tail -c +$((start + 1)) "$image" | head -c "$length"; }
case $(payload | head -c 4 | od -An -tx1 | tr -d ' ') in
  fd377a58) unpack=(xz -dc --single-stream) ;;
  28b52ffd) unpack=(zstd -dc) ;;
  1f8b*) unpack=(gzip -dc) ;;
  02214c18) unpack=(lz4 -dc) ;;
  *) exit 1 ;;
esac
# The build appends the unpacked size to the payload, which the tools call trailing garbage.
payload | "${unpack[@]}" 2>/dev/null || true
