#!/bin/sh
# Which: QEMU 7.2 (Debian 12, qemu-user 1:7.2+dfsg-7+deb12u18+b3), processor "max" by emulation (TCG), x86_64.
# Does: it announces ERMS, the flag by which Intel says that `rep movsb` is the fast way to copy, and carries that
#   instruction out byte by byte. Linux, glibc and Go look at the flag and choose the slowest copy that there is; a
#   guest started with `-cpu max,-erms` copies several times faster. Under KVM, and on the processor itself, both ways
#   take the same time.
# Seen: erms 1, and copying 1 MiB by movsb takes 7.4 times as long as by movsq (on the processor: 1.0).
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
version=1:7.2+dfsg-7+deb12u18+b3
apt-get -o APT::Sandbox::User= -qq download qemu-user=$version
dpkg-deb -x qemu-user_*.deb root
root/usr/bin/qemu-x86_64 --version | head -n 1
cat >copy.c <<'END'
/* Says whether ERMS is announced, and how much longer a copy by bytes takes than one by words (best of 40). */
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

int main(void) {
  unsigned a, b = 0, c, d;
  size_t size = 1 << 20;
  char *from = calloc(1, size), *to = calloc(1, size);
  double best[2] = {9, 9};
  __get_cpuid_count(7, 0, &a, &b, &c, &d);
  for (int round = 0; round < 80; round++) {
    int wide = round % 2;
    void *source = from, *target = to;
    size_t left = wide ? size / 8 : size;
    double began = now(), took;
    if (wide)
      __asm__ volatile("rep movsq" : "+S"(source), "+D"(target), "+c"(left)::"memory");
    else
      __asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(left)::"memory");
    took = now() - began;
    if (took < best[wide]) best[wide] = took;
  }
  printf("erms %d, movsb/movsq %.1f\n", b >> 9 & 1, best[0] / best[1]);
  return b >> 9 & 1 && best[0] > 4 * best[1] ? 0 : 1;
}
END
gcc -O1 -o copy copy.c
echo "on the processor: $(./copy || true)"
root/usr/bin/qemu-x86_64 -cpu max ./copy || { echo "changed" >&2 && exit 1; }
