#!/bin/sh
# Runs a command in a box like an unprivileged container: no /dev/loop*, /dev/kvm or /dev/net/tun,
# no capability, no way to get one, no mounts, no user namespaces, a read-only root, one writable
# directory. Must be started by root.
#
# sandbox.sh UID WRITABLE-DIR [--offline] -- COMMAND...
set -eu

if [ "${1-}" = --inside ]; then
  uid=$2 writable=$3
  shift 3
  root=$writable/.sandbox-root
  mkdir -p "$root"
  mount --rbind / "$root"
  mount --bind "$writable" "$root$writable"
  mount -o remount,bind,ro "$root"
  # Nothing but what every container has in /dev.
  mount -t tmpfs -o mode=755 sandbox-dev "$root/dev"
  for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
  done
  ln -s /proc/self/fd "$root/dev/fd"
  for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "$root/dev/${n#*:}"; done
  mkdir -m 1777 "$root/dev/shm"
  mount -t proc proc "$root/proc"
  # An empty /run in which nothing can be made, unless the list of name servers is kept there.
  case $(readlink -f /etc/resolv.conf) in
    /run/*) ;;
    *) mount -t tmpfs -o ro,mode=755 sandbox-run "$root/run" ;;
  esac
  # A chrooted process may not make user namespaces (user_namespaces(7), EPERM).
  exec chroot "$root" setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
    env -C "$writable" TMPDIR="$writable/tmp" "$@"
fi

uid=$1 writable=$2 net=
shift 2
if [ "$1" = --offline ]; then
  net=--net
  shift
fi
[ "$1" = -- ] && shift
mkdir -p "$writable/tmp" "$writable/home"
chown "$uid:$uid" "$writable" "$writable/tmp" "$writable/home"
# shellcheck disable=SC2086 # nothing or one word
exec unshare --mount --propagation private --pid --fork --kill-child $net \
  "$0" --inside "$uid" "$writable" "$@"
