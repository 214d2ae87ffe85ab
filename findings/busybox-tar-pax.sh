#!/bin/sh
# Which: BusyBox 1.35 (Debian 12, busybox-static 1:1.35.0-4+deb12u1+b1), against GNU tar 1.34 (1.34+dfsg-1.2+deb12u1).
# Does: of a PAX header it takes the names and nothing else. What stands there because the old fields cannot hold it becomes what the writer
#   has left in the old field, mostly 0: a user above 2097151 (a directory service's users are) is root, a time before 1970 is 1970, and
#   of a sparse file the pieces that are no holes are unpacked, as one short file in a directory GNUSparseFile.PID. It says nothing and
#   ends with status 0. Python's tarfile writes PAX unless told otherwise. The same in GNU's older format is read well, but for the
#   sparse file, which is refused.
# Seen: by GNU tar users 3000000 and 3000000, 1969, 1048579 bytes; by BusyBox, of PAX, 0 and 0, 1970, 515 bytes elsewhere.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download busybox-static=1:1.35.0-4+deb12u1+b1 tar=1.34+dfsg-1.2+deb12u1
for file in *.deb; do dpkg-deb -x "$file" root; done
PATH=$dir/root/bin:$PATH
TZ=UTC
export PATH TZ

cat >write.py <<'END'
import io, tarfile
for name, form in (("pax.tar", tarfile.PAX_FORMAT), ("gnu.tar", tarfile.GNU_FORMAT)):
    with tarfile.open(name, "w", format=form) as archive:
        entry = tarfile.TarInfo("name-of-120-bytes" + "s" * 103)
        entry.uid = entry.gid = 3000000
        entry.mtime = -86400
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
END
python3 write.py
# Each line: owner, group, year, length of the name.
gnu() { tar --numeric-owner -tvf "$1" | sed 's,/, ,' | awk '{ print $2, $3, substr($5, 1, 4), length($7) }'; }
busybox_tar() { busybox tar -tvf "$1" | sed 's,/, ,' | awk '{ print $2, $3, substr($5, 1, 4), length($7) }'; }
truncate -s 1M sparse
printf end >>sparse
tar --format=pax -Scf sparse.tar sparse
mkdir out
busybox tar -xf sparse.tar -C out
{
  echo "PAX by GNU tar: $(gnu pax.tar)"
  echo "PAX by BusyBox: $(busybox_tar pax.tar)"
  echo "GNU by BusyBox: $(busybox_tar gnu.tar)"
  echo "sparse by GNU tar: $(tar -tvf sparse.tar | awk '{ print $3, $6 }')"
  echo "sparse by BusyBox: $(cd out && find . -type f -printf '%s %P\n' | sed 's/[0-9]*\/sparse/PID\/sparse/')"
} | tee seen
cat >expected <<'END'
PAX by GNU tar: 3000000 3000000 1969 120
PAX by BusyBox: 0 0 1970 120
GNU by BusyBox: 3000000 3000000 1969 120
sparse by GNU tar: 1048579 sparse
sparse by BusyBox: 515 GNUSparseFile.PID/sparse
END
cmp seen expected || { echo "changed" >&2 && exit 1; }
