#!/bin/sh
# Usage: manifests.sh SOURCES SKELETON
# Copies what decides about dependencies (manifests, the lock) and puts an empty crate into the place of each of
# ours, so that `cargo build` of the skeleton compiles the dependencies and nothing else.
set -eu
sources=$1 skeleton=$2

cd "$sources"
find . -name Cargo.toml -not -path './target/*' | while read -r manifest; do
  crate=$skeleton/$(dirname "$manifest")
  mkdir -p "$crate/src"
  cp "$manifest" "$crate/Cargo.toml"
  folder=$(dirname "$manifest")
  [ ! -f "$folder/src/main.rs" ] || echo 'fn main() {}' >"$crate/src/main.rs"
  [ ! -f "$folder/src/lib.rs" ] || : >"$crate/src/lib.rs"
done
cp Cargo.lock "$skeleton/"
rmdir "$skeleton/src" 2>/dev/null || true
