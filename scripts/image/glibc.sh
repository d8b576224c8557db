#!/bin/sh
# Usage: glibc.sh BINARY [NEWEST]
# Prints the glibc that a binary needs: the newest version among the symbols it asks for. Fails if that is newer than NEWEST.
set -eu

needed=$(readelf --version-info --wide "$1" | grep -o 'GLIBC_[0-9.]*' | cut -d_ -f2 | sort -uV | tail -n 1)
[ -n "$needed" ] || { echo "glibc.sh: $1 asks for no glibc" >&2; exit 1; }
echo "$needed"
[ $# -lt 2 ] || [ "$(printf '%s\n%s\n' "$needed" "$2" | sort -V | tail -n 1)" = "$2" ] || {
  echo "glibc.sh: $1 needs glibc $needed, which is newer than $2" >&2
  exit 1
}
