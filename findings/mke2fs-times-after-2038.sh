#!/bin/sh
# Which: mke2fs of e2fsprogs 1.47.0 (Debian 12, 1.47.0-2+b2).
# Does: `mke2fs -t ext4 -d DIR` writes the lower 32 bits of each file's time alone, into inodes of 256 bytes that have
#   room for times until 2446 (and for nanoseconds, which are lost as well). What comes after 19 January 2038 is
#   turned back by 136 years; nothing is said, and e2fsck finds nothing to object to.
# Seen: a file of 2100-01-01 is of 1963-11-25 17:31:44 in the image, extra bits 0; half a second of 2001 is lost.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2 \
  libcom-err2=1.47.0-2+b2 libss2=1.47.0-2+b2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/sbin:$PATH
LD_LIBRARY_PATH=$dir/root/lib/x86_64-linux-gnu
TZ=UTC
export PATH LD_LIBRARY_PATH TZ

mke2fs -V
mkdir source
touch -d '2100-01-01 00:00:00' source/later
touch -d '2001-01-01 00:00:00.5' source/earlier
mke2fs -q -t ext4 -I 256 -d source image 8M
e2fsck -fn image >/dev/null

# check FILE EXPECTED
check() {
  seen=$(debugfs -R "stat /$1" image 2>/dev/null | sed -n 's/^ *mtime: //p')
  echo "$1: $seen"
  [ "$seen" = "$2" ] || { echo "changed: it was $2" >&2 && exit 1; }
}
check later "0xf4865700:00000000 -- Mon Nov 25 17:31:44 1963"
check earlier "0x3a4fc880:00000000 -- Mon Jan  1 00:00:00 2001"
