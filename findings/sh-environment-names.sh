#!/bin/sh
# Which: dash 0.5.12 (Debian 12, 0.5.12-2) and BusyBox ash 1.35 (1:1.35.0-4+deb12u1+b1), against bash 5.2 (5.2.15-2+b13).
# Does: a variable of the environment whose name is no shell variable's (`data-1`, `spring.config`), as Kubernetes makes them of a ConfigMap
#   and OCI images may have them, does not outlive a shell: dash and ash do not hand it on to what they start, nor to what replaces them
#   (`exec`). So a program has it when its image names it directly, and has not when the same image starts it by `sh -c`, or by an
#   entry point script. bash hands on what it cannot name itself.
# Seen: directly data-1, ok, spring.config; by dash and by ash ok alone; by bash all three. No word, status 0.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download dash=0.5.12-2 busybox-static=1:1.35.0-4+deb12u1+b1 bash=5.2.15-2+b13
for file in *.deb; do dpkg-deb -x "$file" root; done

cat >names.py <<'END'
import os
print(*sorted({"data-1", "spring.config", "ok"} & os.environ.keys()))
END
python=$(command -v python3)
# by HOW EXPECTED COMMAND...: which of the three variables a program has when the command starts it.
by() {
  how=$1
  expected=$2
  shift 2
  seen=$(env -i PATH="$PATH" data-1=v spring.config=v ok=v "$@")
  echo "$how: $seen"
  [ "$seen" = "$expected" ] || { echo "changed: it was $expected" >&2 && exit 1; }
}
all="data-1 ok spring.config"
by "directly" "$all" "$python" names.py
by "dash -c" "ok" root/bin/dash -c "exec '$python' names.py"
by "ash -c" "ok" root/bin/busybox ash -c "exec '$python' names.py"
by "bash -c" "$all" root/bin/bash -c "exec '$python' names.py"
