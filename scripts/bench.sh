#!/usr/bin/env bash
# npm run bench [-- NAME…]: the benchmarks in bench/, one after the other; each prints JSON lines
# with a ratio against its alternative in the same run. Nothing here is a test.
set -euo pipefail
. "$(dirname "$0")/lib/prepare.sh"
cd "$root"

prepare_npm
prepare_apt demo test
prepare_agent
prepare_images base

names=("$@")
[ $# -gt 0 ] || names=(start run rootfs pull network guest boot)
for name in "${names[@]}"; do
  [ -f "bench/$name.ts" ] || die "no benchmark '$name': see bench/"
  say "bench/$name"
  limited 1800 node "bench/$name.ts"
done
