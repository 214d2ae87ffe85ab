#!/bin/sh
# Which: umoci 0.4.7 (Debian 12, 0.4.7+ds-3+b7); readers: GNU tar 1.34, BusyBox 1.35, umoci itself (Go's archive/tar).
# Does: `umoci insert` of a file writes a layer that ends right after the file's last byte: without the padding to
#   512 bytes and without the two blocks of zeros that end a tar archive. 6 bytes of content make an archive of 518
#   bytes. Where the last entry is a directory only the zeros are missing, and no reader says a word.
# Seen: GNU tar lists the file, says "Unexpected EOF in archive" and ends with 2; BusyBox and umoci end with 0. What
#   reads tar in Go takes the image, so it works everywhere until somebody unpacks its layer with tar.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download umoci=0.4.7+ds-3+b7 tar=1.34+dfsg-1.2+deb12u1 \
  busybox-static=1:1.35.0-4+deb12u1+b1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/usr/bin:$dir/root/bin:$PATH
export PATH

umoci --version
printf 'hello\n' >file
umoci init --layout image
umoci new --image image:tag
umoci insert --image image:tag file /file
for blob in image/blobs/sha256/*; do
  if gzip -t "$blob" 2>/dev/null; then gzip -dc "$blob" >layer.tar; fi
done

# check WHAT EXPECTED SEEN
check() {
  echo "$1: $3"
  if [ "$2" != "$3" ]; then
    echo "changed: $1 was $2" >&2
    exit 1
  fi
}
status() {
  if "$@" >out 2>&1; then echo 0; else echo $?; fi
}
check "bytes of the layer" 518 "$(wc -c <layer.tar)"
check "tar -tf" 2 "$(status tar -tf layer.tar)"
grep "Unexpected EOF in archive" out
check "busybox tar -tf" 0 "$(status busybox tar -tf layer.tar)"
check "umoci unpack" 0 "$(status umoci unpack --rootless --image image:tag bundle)"
check "the file that umoci has unpacked" hello "$(cat bundle/rootfs/file)"
