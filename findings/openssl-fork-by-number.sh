#!/bin/sh
# Which: OpenSSL 3.0 (Debian 12, libssl3 3.0.22-1~deb12u2), in processes that are number 1 of a PID namespace.
# Does: OpenSSL notices that it goes on in a forked child, and seeds its generator anew, by the process number alone. A process that is
#   number 1, as the first of a container is, and forks into another PID namespace makes a child that is number 1 as well: both
#   draw the same "random" bytes from RAND_bytes, for keys as for tokens. Within one namespace they differ.
# Seen: parent and child, both number 1: the same 16 bytes; where the child has another number: others.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download libssl3=3.0.22-1~deb12u2
dpkg-deb -x libssl3_*.deb root

cat >draw.py <<'END'
import ctypes, os, sys

crypto = ctypes.CDLL(sys.argv[1])
libc = ctypes.CDLL(None)
crypto.OpenSSL_version.restype = ctypes.c_char_p


def draw():
    buffer = ctypes.create_string_buffer(16)
    assert crypto.RAND_bytes(buffer, 16) == 1
    return buffer.raw.hex()


draw()
NEW_PID_NAMESPACE = 0x20000000
if sys.argv[2] == "apart":
    assert libc.unshare(NEW_PID_NAMESPACE) == 0
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, b"%d %s" % (os.getpid(), draw().encode()))
    os._exit(0)
os.wait()
child_number, child = os.read(reader, 99).decode().split()
parent = draw()
print(crypto.OpenSSL_version(0).decode())
print("parent", os.getpid(), parent)
print("child ", child_number, child)
sys.exit(0 if (parent == child) == (sys.argv[2] == "apart") else 1)
END

library=root/usr/lib/x86_64-linux-gnu/libcrypto.so.3
for where in within apart; do
  echo "$where"
  unshare --user --map-root-user --pid --fork python3 draw.py "$library" "$where" || {
    echo "changed" >&2
    exit 1
  }
done
