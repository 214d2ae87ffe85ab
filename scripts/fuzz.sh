#!/usr/bin/env bash
# npm run fuzz: the fuzzers, each for a bounded time.
#
# scripts/fuzz.sh [SECONDS]   per fuzzer, default 60
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/node_modules/.bin:$PATH
seconds=${1:-60}
for fuzzer in test/fuzz/*.ts; do
  case $fuzzer in *.test.ts) continue ;; esac
  echo "== $fuzzer ($seconds s)"
  node "$fuzzer" --seconds "$seconds"
done
