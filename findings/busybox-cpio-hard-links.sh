#!/bin/sh
# Which: cpio of BusyBox 1.35 (Debian 12, busybox-static 1:1.35.0-4+deb12u1+b1), against GNU cpio 2.13 (2.13+dfsg-7.1).
# Does: of a file with several names in an archive of the kernel's form (newc, an initramfs) `cpio -t` lists the last name alone: it knows
#   that the data comes with it and puts the others aside until then. All are unpacked when all are asked for. Asked for one by name,
#   it lists nothing and ends with 0, and unpacks nothing ("can't create hardlink") and ends with 1; only the last name works.
# Seen: GNU cpio lists a b z, BusyBox z; `-t a` says nothing with 0; `-i a` ends with 1, with GNU cpio it makes a.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download busybox-static=1:1.35.0-4+deb12u1+b1 cpio=2.13+dfsg-7.1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/bin:$PATH

mkdir tree all one gnu
echo text >tree/a
ln tree/a tree/b
ln tree/a tree/z
(cd tree && printf 'a\nb\nz\n' | cpio --quiet -o -H newc) >archive

line() { tr '\n' ' ' | sed 's/ $//'; }
status() {
  if "$@" 2>&1; then echo "status 0"; else echo "status $?"; fi
}
{
  echo "GNU -t: $(cpio --quiet -t <archive | sort | line)"
  echo "BusyBox -t: $(busybox cpio -t <archive 2>/dev/null | line)"
  (cd all && busybox cpio -i <../archive 2>/dev/null)
  echo "BusyBox -i: $(find all -type f -printf '%f\n' | sort | line)"
  echo "BusyBox -t a: $(status busybox cpio -t a <archive | grep -v blocks | line)"
  echo "BusyBox -i a: $(cd one && status busybox cpio -i a <../archive | grep -v blocks | line)"
  echo "made: $(find one -type f | grep . || echo nothing)"
  echo "GNU -i a: $(cd gnu && status cpio --quiet -i a <../archive | line)"
  echo "made: $(find gnu -type f)"
} | tee seen
cat >expected <<'END'
GNU -t: a b z
BusyBox -t: z
BusyBox -i: a b z
BusyBox -t a: status 0
BusyBox -i a: cpio: can't create hardlink 'a' to 'z' status 1
made: nothing
GNU -i a: status 0
made: gnu/a
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
