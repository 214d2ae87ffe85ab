# Helpers of the scripts in this folder; source it from bash with `set -euo pipefail`.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck disable=SC2034 # read by the files that source this one
cache=$root/.cache
export PATH="$root/node_modules/.bin:$PATH"

# say TEXT…: one line of progress, on standard error so that output stays the program's own.
say() { printf '==> %s\n' "$*" >&2; }

# die TEXT…: the reason, then the end.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# limited SECONDS COMMAND…: run it, with TERM at the limit and KILL 10 s later.
limited() {
  local seconds=$1 status=0
  shift
  timeout --kill-after=10 "$seconds" "$@" || status=$?
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    printf 'error: stopped after %s s: %s\n' "$seconds" "$*" >&2
  fi
  return "$status"
}

# as_root COMMAND…: run it as root: directly, or by sudo when that asks nothing.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo -n -- "$@"
  else
    return 77
  fi
}
