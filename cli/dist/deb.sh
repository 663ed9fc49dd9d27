#!/usr/bin/env bash
# Makes the Debian package with cargo-deb, of a release binary that is built first, and prints its path.
#
#   cli/dist/deb.sh [--no-build]    --no-build: of the binary that is there
#
# What the package holds is said in cli/Cargo.toml. Where cargo has no cargo-deb, it is built once into the target
# directory (50 seconds of processor time).
set -euo pipefail
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
[ "${1:-}" = --no-build ] || cargo build --release -p rrun

target=$(cargo metadata --no-deps --format-version 1 | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)
binary=$(ls "$target"/*/release/rrun)
triple=$(basename "${binary%/release/rrun}")
PATH=$PATH:$target/tools/bin
# Outside the workspace, whose flags for a static binary are not for tools.
command -v cargo-deb >/dev/null ||
  (cd / && env -u CARGO_TARGET_DIR cargo install cargo-deb --version '^3.8' --locked --debug --quiet --root "$target/tools") >&2

# The manual and the completions, as the binary itself writes them.
share=$target/$triple/release/share
rm -rf "$share"
mkdir -p "$share/man"
"$binary" man "$share/man"
gzip -9n "$share"/man/*
for shell in bash zsh fish; do
  "$binary" completion "$shell" >"$share/rrun.$shell"
done
mkdir -p "$target/debian"
cargo deb -p rrun --no-build --no-strip --target "$triple" --output "$target/debian/" --quiet
