#!/bin/sh
# Installs vmsan: a new enough Node.js if there is none, the package, then `vmsan setup`.
# It can be piped into sh, interrupted, and run again; --uninstall takes everything away again.
set -eu

usage() {
  cat <<'EOF'
Usage: install.sh [OPTION]... [-- OPTION-OF-SETUP...]

  --version V       version to install, as npm knows it (default: latest)
  --package FILE    install this package file (from `npm pack`) instead; needs no network
  --sha256 SUM      checksum that the package file must have
  --ref REF         build this git branch, tag or commit instead; needs --repository, git and Go
  --repository URL  where --ref is fetched from; a directory will do
  --prefix DIR      where to install (default: /usr/local for root, else ~/.local)
  --no-setup        do not run `vmsan setup`
  --uninstall       stop all VMs, remove what this script and vmsan made, nothing else
  --keep-data       with --uninstall: keep VMSAN_DIR (images, VMs)
  -h, --help        this text

VMSAN_DIR (default ~/.vmsan) holds images and VMs, and Node.js if it has to be fetched.
EOF
}

say() { printf '%s\n' "$*" >&2; }
die() {
  say "error: $1"
  [ $# -lt 2 ] || say "  fix: $2"
  exit 1
}
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is not installed" "$2"; }

# Directories that stage and lock this run, and its journal; settled on every exit.
stage=
lock=
journal=

cleanup() {
  status=$?
  trap - EXIT HUP INT TERM
  [ -z "$stage" ] || rm -rf "$stage"
  if [ -n "$journal" ] && [ -f "$journal" ]; then
    # Not finished. An earlier installation stays and answers for everything; else it is undone.
    if [ -d "$prefix/lib/vmsan/.install" ]; then
      cat "$journal" >>"$prefix/lib/vmsan/.install/made"
      made=
    else
      made=$(sort -ru "$journal")
    fi
    rm -f "$journal"
  fi
  [ -z "$lock" ] || rm -rf "$lock"
  [ -z "$journal" ] || take_away
  exit "$status"
}

# take_away: what $made lists (links first, then directories, deepest first); what others have
# put there stays.
take_away() {
  printf '%s\n' "$made" | while read -r kind path; do
    case $kind in
      d) rmdir "$path" 2>/dev/null || true ;;
      l) case $(readlink "$path") in *lib/vmsan/*) rm -f "$path" ;; esac ;;
    esac
  done
}

# note KIND PATH: what is about to be made, for --uninstall: d directory, l link. The journal is
# written ahead, so that a run that is killed is known to the next one.
note() {
  if [ -n "$journal" ]; then printf '%s %s\n' "$1" "$2" >>"$journal"; else made="$made$1 $2
"; fi
}

# make_dir DIR: like mkdir -p, and notes which directories had to be made.
make_dir() {
  [ -d "$1" ] && return 0
  make_dir "$(dirname "$1")" || return 1
  note d "$1"
  mkdir "$1"
}

# fetch NAME DIR: a package's archive from the npm registry into the directory, checked by npm;
# its cache and logs go there as well, because nothing may be left of them.
fetch() (
  cd "$2"
  npm_config_cache=$2/npm npm_config_update_notifier=false \
    npm pack --silent --ignore-scripts "$1" </dev/null >/dev/null
)

# node_is_new_enough PROGRAM
node_is_new_enough() {
  "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number);
    process.exit(a > 22 || (a === 22 && b >= 18) ? 0 : 1)' </dev/null >/dev/null 2>&1
}

# one_at_a_time: take the lock; one that a killed run left is taken over.
one_at_a_time() {
  lock=$prefix/lib/.vmsan-install.lock
  if ! mkdir "$lock" 2>/dev/null; then
    other=$(cat "$lock/pid" 2>/dev/null || true)
    if [ -n "$other" ] && kill -0 "$other" 2>/dev/null; then
      lock=
      die "another installation is running (process $other)" "wait for it, or end it"
    fi
    rm -rf "$lock"
    mkdir "$lock"
  fi
  echo "$$" >"$lock/pid"
  rm -rf "$prefix"/lib/.vmsan-stage.* "$home"/.node-stage.*
}

# fetch_node: a private Node.js from npm's package of it, when there is none that will do.
fetch_node() {
  if [ -x "$home/node/bin/node" ] && node_is_new_enough "$home/node/bin/node"; then return 0; fi
  if command -v node >/dev/null 2>&1 && node_is_new_enough node; then return 0; fi
  need npm "install Node.js 22.18 or newer; or npm, which fetches it"
  case $(uname -m) in
    x86_64) arch=x64 ;;
    aarch64) arch=arm64 ;;
    *) die "no Node.js package for $(uname -m)" "install Node.js 22.18 or newer" ;;
  esac
  say "fetching Node.js 24 (a private copy in $home/node)"
  make_dir "$home"
  node_stage=$home/.node-stage.$$
  mkdir "$node_stage"
  fetch "node-linux-$arch@24" "$node_stage" ||
    { rm -rf "$node_stage"; die "npm cannot fetch Node.js" "check the network and \`npm ping\`"; }
  mkdir "$node_stage/node"
  tar -xzf "$node_stage"/*.tgz -C "$node_stage/node" --strip-components=1 --no-same-owner package/bin/node package/LICENSE
  node_is_new_enough "$node_stage/node/bin/node" ||
    { rm -rf "$node_stage"; die "the fetched Node.js does not run here" "install Node.js 22.18 or newer"; }
  rm -rf "$home/node"
  mv "$node_stage/node" "$home/node"
  rm -rf "$node_stage"
}

# fetch_package: puts the unpacked package at $stage/vmsan.
fetch_package() {
  mkdir "$stage/vmsan"
  if [ -n "$ref" ]; then
    [ -n "$repository" ] || die "--ref needs --repository" "say where the sources are"
    need git "install git"
    need go "install Go 1.26 or newer: it builds the guest agent"
    say "building $ref"
    git clone --quiet "$repository" "$stage/source" </dev/null
    git -C "$stage/source" checkout --quiet --detach "$ref" </dev/null
    (cd "$stage/source" && npm install --no-save --no-audit --no-fund </dev/null >/dev/null && npm run build </dev/null >&2 &&
      npm pack --silent --ignore-scripts --pack-destination "$stage" </dev/null >/dev/null)
    package=$(echo "$stage"/vmsan-*.tgz)
  elif [ -z "$package" ]; then
    need npm "install npm, or give the package itself: --package FILE"
    say "fetching vmsan $version"
    fetch "vmsan@$version" "$stage" ||
      die "npm cannot fetch vmsan@$version" "check the network and \`npm ping\`, or use --package FILE"
    package=$(echo "$stage"/vmsan-*.tgz)
  fi
  [ -f "$package" ] || die "there is no package file $package"
  if [ -n "$sha256" ]; then
    found=$(sha256sum "$package" | cut -d' ' -f1)
    [ "$found" = "$sha256" ] || die "$package has the checksum $found, not $sha256" "get it again"
  fi
  tar -xzf "$package" -C "$stage/vmsan" --strip-components=1 --no-same-owner ||
    die "$package cannot be unpacked" "get it again"
  if [ ! -x "$stage/vmsan/bin/vmsan" ] || [ ! -f "$stage/vmsan/dist/cli/main.js" ]; then
    die "$package is not a whole vmsan package" "make it with: npm run build && npm pack"
  fi
}

# link FILE TARGET: a symbolic link, put in place by a rename; noted for --uninstall.
link() {
  if [ -e "$1" ] && [ ! -h "$1" ]; then die "$1 is in the way" "remove it, or use another --prefix"; fi
  make_dir "$(dirname "$1")"
  note l "$1"
  note l "$1.vmsan-new"
  rm -f "$1.vmsan-new"
  ln -s "$2" "$1.vmsan-new"
  mv -f "$1.vmsan-new" "$1"
}

install_vmsan() {
  made=
  make_dir "$prefix/lib" 2>/dev/null || die "$prefix cannot be written" "use --prefix, or run it as root"
  [ -w "$prefix/lib" ] || die "$prefix/lib cannot be written" "use --prefix, or run it as root"
  one_at_a_time
  journal=$prefix/lib/.vmsan-journal
  printf '%s' "$made" >>"$journal"
  # What an earlier installation noted stays noted.
  target=$prefix/lib/vmsan
  [ ! -f "$target/.install/made" ] || cat "$target/.install/made" >>"$journal"
  stage=$prefix/lib/.vmsan-stage.$$
  mkdir "$stage"
  fetch_node
  fetch_package
  link "$prefix/bin/vmsan" ../lib/vmsan/bin/vmsan
  share=$target/docs
  [ ! -f "$stage/vmsan/docs/vmsan.1" ] || link "$prefix/share/man/man1/vmsan.1" "$share/vmsan.1"
  if [ -d "$stage/vmsan/docs/completion" ]; then
    link "$prefix/share/bash-completion/completions/vmsan" "$share/completion/vmsan.bash"
    link "$prefix/share/zsh/site-functions/_vmsan" "$share/completion/_vmsan"
    link "$prefix/share/fish/vendor_completions.d/vmsan.fish" "$share/completion/vmsan.fish"
  fi
  mkdir "$stage/vmsan/.install"
  sort -u "$journal" >"$stage/vmsan/.install/made"
  [ ! -d "$target" ] || mv "$target" "$stage/old"
  if ! mv "$stage/vmsan" "$target"; then
    [ ! -d "$stage/old" ] || mv "$stage/old" "$target"
    die "$target cannot be put in place"
  fi
  rm -rf "$stage" "$journal"
  stage=
  journal=
  say "installed $("$prefix/bin/vmsan" --version </dev/null) at $prefix/bin/vmsan"
  case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) say "add it to your PATH:  export PATH=\"$prefix/bin:\$PATH\"" ;;
  esac
}

# remove_vms: all of this VMSAN_DIR, then its daemon.
remove_vms() {
  export VMSAN_DIR="$home"
  ids=$("$target/bin/vmsan" list --json </dev/null | grep -o '"id":"vm-[0-9a-f]*"' | cut -d'"' -f4) || ids=
  # shellcheck disable=SC2086 # one word for each ID
  [ -z "$ids" ] || "$target/bin/vmsan" rm --force $ids </dev/null >/dev/null ||
    say "warning: not all VMs could be removed"
  "$target/bin/vmsan" daemon stop </dev/null >/dev/null || say "warning: the daemon could not be stopped"
}

uninstall_vmsan() {
  target=$prefix/lib/vmsan
  journal=$prefix/lib/.vmsan-journal
  made=
  if [ -d "$prefix/lib" ]; then
    [ -d "$target" ] || say "vmsan is not installed in $prefix"
    one_at_a_time
    if [ -d "$home" ] && [ -x "$target/bin/vmsan" ]; then
      say "stopping VMs"
      remove_vms
    fi
    # Deepest directories first, so that each is empty when its turn comes.
    made=$(cat "$target/.install/made" "$journal" 2>/dev/null | sort -ru || true)
    rm -rf "$target"
  fi
  [ "$keep_data" = yes ] || remove_data
  rm -rf "$lock" "$journal"
  lock=
  journal=
  take_away
  say "uninstalled; Debian packages that setup installed (QEMU …) are left to apt"
}

# remove_data: what vmsan keeps in VMSAN_DIR, by name; the directory itself when nothing is left.
remove_data() {
  [ -d "$home" ] || return 0
  for name in agent bin cache images initramfs kernels network node probes rootfs run runtimes snapshots vms volumes; do
    rm -rf "${home:?}/$name"
  done
  rm -rf "$home/runtimes.json" "$home"/.tmp-* "$home"/.node-stage.*
  rmdir "$home" 2>/dev/null || say "kept $home: it holds files that are not vmsan's"
  [ "$(id -u)" -ne 0 ] || remove_shared
}

# remove_shared: what all of root's installations share, if no VM of any of them has part in it.
remove_shared() {
  for group in /sys/fs/cgroup/vmsan /sys/fs/cgroup/*/vmsan; do
    [ ! -d "$group" ] || rmdir "$group" 2>/dev/null || true
  done
  [ -d /run/vmsan ] || return 0
  for claim in /run/vmsan/uids/*; do [ ! -e "$claim" ] || return 0; done
  rm -f /run/vmsan/uids/.lock
  rmdir /run/vmsan/uids /run/vmsan 2>/dev/null || true
}

# All of it is read before any of it runs: a download that stops halfway does nothing.
main() {
  version=latest package='' sha256='' ref='' repository='' prefix='' action=install keep_data=no setup=yes
  while [ $# -gt 0 ]; do
    case $1 in
      --version | --package | --sha256 | --ref | --repository | --prefix)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in
          --version) version=$2 ;;
          --package) package=$2 ;;
          --sha256) sha256=$2 ;;
          --ref) ref=$2 ;;
          --repository) repository=$2 ;;
          --prefix) prefix=$2 ;;
        esac
        shift ;;
      --no-setup) setup=no ;;
      --uninstall) action=uninstall ;;
      --keep-data) keep_data=yes ;;
      -h | --help) usage; exit 0 ;;
      --) shift; break ;;
      *) usage >&2; die "unknown option: $1" ;;
    esac
    shift
  done
  [ "$(uname -s)" = Linux ] || die "vmsan runs on Linux only"
  if [ -z "$prefix" ]; then
    if [ "$(id -u)" -eq 0 ]; then prefix=/usr/local; else prefix=${HOME:?}/.local; fi
  fi
  case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
  home=${VMSAN_DIR:-${HOME:?}/.vmsan}
  case $home in /*) ;; *) home=$PWD/$home ;; esac
  case $home in / | "${HOME:-/}" | "${HOME:-/}/") die "VMSAN_DIR must be a directory of its own, not $home" ;; esac
  case $package in '' | /*) ;; *) package=$PWD/$package ;; esac
  trap cleanup EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ "$action" = uninstall ]; then
    uninstall_vmsan
  else
    install_vmsan
    rm -rf "$lock"
    lock=
    if [ "$setup" = yes ]; then VMSAN_DIR=$home "$prefix/bin/vmsan" setup "$@" </dev/null; fi
  fi
}

main "$@"
