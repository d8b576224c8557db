#!/bin/sh
# Usage: build.sh GLIBC IMAGE
# Compiles the binary, checks what it asks of glibc, and lays the image's root file system into the folder IMAGE.
set -eu
here=$(dirname "$0")

# The skeleton's empty crates were compiled later than these files were written; cargo goes by the time.
find libs services -name '*.rs' -exec touch {} +
cargo build --release --locked --package fedpipe
"$here/glibc.sh" target/release/fedpipe "$1"
"$here/root.sh" target/release/fedpipe "$2"
