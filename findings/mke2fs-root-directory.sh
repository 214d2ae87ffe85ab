#!/bin/sh
# Which: mke2fs of e2fsprogs 1.47.0 (Debian 12, 1.47.0-2+b2).
# Does: `mke2fs -d DIR` fills a new file system with a tree. Of everything below DIR it keeps mode, owner, times and
#   extended attributes; of DIR itself it takes the extended attributes alone. The file system's root stays 0755,
#   owned by root, as of now, and nothing is said. A tree whose top is 0700, or 1777, is opened or closed to others.
# Seen: source 0701 with user.mark, a directory 0701 in it: root of the image 0755 with user.mark, the other 0701.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download e2fsprogs=1.47.0-2+b2 libext2fs2=1.47.0-2+b2 \
  libcom-err2=1.47.0-2+b2 libss2=1.47.0-2+b2
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/sbin:$PATH
LD_LIBRARY_PATH=$dir/root/lib/x86_64-linux-gnu
export PATH LD_LIBRARY_PATH

mke2fs -V
mkdir source source/below
chmod 0701 source source/below
touch -d '2001-02-03 04:05:06 UTC' source source/below
python3 -c 'import os
for path in ("source", "source/below"): os.setxattr(path, "user.mark", b"here")'
touch -d '2001-02-03 04:05:06 UTC' source source/below
mke2fs -q -t ext4 -d source image 8M

# inode PATH: mode, seconds of the time of change in hexadecimal, attribute
inode() {
  debugfs -R "stat $1" image 2>/dev/null | sed -n \
    -e 's/.*Mode:  *\([0-7]*\).*/\1/p' -e 's/^ *mtime: \(0x[0-9a-f]*\).*/\1/p' -e 's/.*\(user\.mark\).*/\1/p' | tr '\n' ' '
}
below=$(inode /below)
top=$(inode /)
echo "below: $below"
echo "top:   $top"
[ "$below" = "0701 0x3a7b8372 user.mark " ] || { echo "changed: an entry below" >&2 && exit 1; }
case $top in
  *0x3a7b8372*) echo "changed: the top's time is kept" >&2 && exit 1 ;;
  "0755 0x"*" user.mark ") ;;
  *) echo "changed: the top" >&2 && exit 1 ;;
esac
