#!/bin/sh
# Usage: root.sh BINARY ROOT
# Lays out the root file system of the image: the binary, the libraries it names (with their licences), the authorities of the build's
# system, a user without rights, /tmp to mount something on.
set -eu
binary=$1 root=$2

install -D -m 755 "$binary" "$root/usr/bin/fedpipe"
ldd "$binary" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m 755 "$(readlink -f "$library")" "$root$library"
done
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
for package in libc6 libgcc-s1 ca-certificates; do
  notice=/usr/share/doc/$package/copyright
  [ ! -f "$notice" ] || install -D -m 644 "$notice" "$root$notice"
done
echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >"$root/etc/passwd"
echo 'nonroot:x:65532:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
install -d -m 1777 "$root/tmp"
