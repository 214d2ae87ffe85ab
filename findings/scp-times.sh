#!/bin/sh
# Which: scp of OpenSSH 9.2p1 (Debian 12, 1:9.2p1-2+deb12u10), with its own sftp-server.
# Does: since scp speaks SFTP (version 3, whose times have 32 bits and no sign), `scp -p` keeps no time before 1970 or behind
#   2106: a file of 1969 arrives as one of 2105, one of 2200 as one of 2064. It says nothing and ends with status 0. The older protocol
#   (`scp -O`), whose times are text, keeps 2200 and makes 1970 of what is older.
# Seen: as said, by SFTP 2105 and 2064, by the older protocol 1970 and 2200.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download openssh-client=1:9.2p1-2+deb12u10 openssh-sftp-server=1:9.2p1-2+deb12u10
for file in *.deb; do dpkg-deb -x "$file" root; done
scp=$dir/root/usr/bin/scp
# Programs in the place of ssh: the other end is this machine.
cat >sftp <<END
#!/bin/sh
exec "$dir/root/usr/lib/openssh/sftp-server"
END
cat >rcp <<END
#!/bin/sh
for word; do command=\$word; done
command="$dir/root/usr/bin/\$command"
exec sh -c "\$command"
END
chmod +x sftp rcp

# copy YEAR SFTP-YEAR OLDER-PROTOCOL-YEAR
copy() {
  echo text >file
  touch -d "$1-06-01 UTC" file
  "$scp" -p -S ./sftp file "host:$dir/by-sftp"
  "$scp" -O -p -S ./rcp file "host:$dir/by-rcp"
  sftp=$(date -u -r by-sftp +%Y)
  rcp=$(date -u -r by-rcp +%Y)
  echo "a file of $1: of $sftp by SFTP, of $rcp by the older protocol"
  [ "$sftp $rcp" = "$2 $3" ] || { echo "changed" >&2 && exit 1; }
}
root/usr/bin/ssh -V
copy 1969 2105 1970
copy 2026 2026 2026
copy 2200 2064 2200
