#!/bin/sh
# Which: mmdebstrap 1.3.5 (Debian 12, 1.3.5-7), with ldconfig of libc-bin and libblas3 as an example.
# Does: in mode fakechroot its stand-in for ldconfig makes absolute links in the libraries' directories relative while
#   the real one runs. An alternative is a link to a link: the second, in /etc/alternatives, stays absolute with the
#   tree's own path before it, so ldconfig takes the first for dangling and removes it. The other modes keep it. Trees
#   with libraries that are alternatives (BLAS, LAPACK: numpy and all that needs it) cannot load them. To put
#   back what it has changed the stand-in then looks for the link: the exception is printed and ignored, links after it
#   stay relative, and the status is 0, mmdebstrap's too.
# Seen: usr/lib/x86_64-linux-gnu/libblas.so.3 is there before and gone after; FileNotFoundError; status 0.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download mmdebstrap=1.3.5-7 libc-bin=2.36-9+deb12u14 libblas3=3.11.0-2
dpkg-deb -x mmdebstrap_*.deb tool
tree=$dir/tree libs=usr/lib/x86_64-linux-gnu
for file in libc-bin_*.deb libblas3_*.deb; do dpkg-deb -x "$file" "$tree"; done
[ -e "$tree/sbin/ldconfig" ] || { mkdir -p "$tree/sbin" && ln "$tree/usr/sbin/ldconfig" "$tree/sbin/ldconfig"; }
echo "/$libs" >"$tree/etc/ld.so.conf"
# As update-alternatives leaves them under fakechroot, which puts the tree's path before absolute links.
mkdir -p "$tree/etc/alternatives"
ln -s "$tree/$libs/blas/libblas.so.3" "$tree/etc/alternatives/libblas.so.3-x86_64-linux-gnu"
ln -s "$tree/etc/alternatives/libblas.so.3-x86_64-linux-gnu" "$tree/$libs/libblas.so.3"

ls -l "$tree/$libs"
FAKECHROOT_BASE_ORIG=$tree python3 tool/usr/libexec/mmdebstrap/ldconfig.fakechroot
ls -l "$tree/$libs"
[ ! -L "$tree/$libs/libblas.so.3" ] || { echo "changed: the alternative's link is kept" >&2 && exit 1; }
