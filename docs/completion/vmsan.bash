# bash completion for vmsan; generated, see `vmsan completion --help`.
_vmsan() {
  local line=("${COMP_WORDS[@]}") current=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  local path='' word previous='' words='' flags='' kind='' given=0 i
  for ((i = 1; i < current; i++)); do
    word=${line[i]}
    case $previous in --add-host|--address|--alias|--allow-host-path|--allow-host-port|--allowed-cidr|--allowed-domain|--allowed-port|--author|--bandwidth|--boot-timeout|--build-arg|--build-context|--builder|--bundle|--ca|--ca-cert-hash|--ca-file|--change|--client-ca|--context|--count|--cpus|--denied-cidr|--dest|--disk|--disk-mode|--docker|--docker-ca|--domain|--driver|--dynamic|--entrypoint|--env|--expires|--file|--filter|--firecracker|--firecracker-version|--format|--from|--from-image|--grace-period|--idle-timeout|--iidfile|--init|--input|--ip|--kernel|--kernel-arg|--kubeconfig|--label|--listen|--local|--max-disk|--max-memory|--max-pods|--max-rate|--max-vms|--mcp-policy|--memory|--message|--metadata-file|--metrics-listen|--mirror|--modules|--mount|--name|--namespace|--network|--network-alias|--network-policy|--on-idle|--on-timeout|--option|--output|--platform|--policy|--port|--progress|--project|--publish-port|--pull|--remote|--rootfs|--runtime|--secret|--session|--signal|--since|--size|--snapshot|--subnet|--suite|--suspended|--sysctl|--tag|--tail|--target|--time|--timeout|--tls-cert|--tls-key|--token|--trace|--user|--username|--vcpus|--volume|--volume-quota|--workdir|-D|-L|-R|-a|-c|-d|-e|-f|-i|-m|-n|-o|-p|-s|-t|-u|-v|-w) previous=''; continue ;; esac
    previous=$word
    case $word in
      --) return 0 ;;
      -*) continue ;;
    esac
    case "${path:+$path }$word" in
      'run'|'create'|'fork'|'exec'|'connect'|'ssh'|'ssh-config'|'list'|'ls'|'inspect'|'start'|'stop'|'remove'|'rm'|'delete'|'update'|'pause'|'suspend'|'resume'|'logs'|'stats'|'events'|'network'|'network create'|'network ls'|'network list'|'network inspect'|'network rm'|'network remove'|'network delete'|'network prune'|'network connect'|'network disconnect'|'port-forward'|'upload'|'download'|'cp'|'ps'|'wait'|'kill'|'snapshot'|'snapshot create'|'snapshot list'|'snapshot ls'|'snapshot inspect'|'snapshot delete'|'snapshot rm'|'snapshot remove'|'snapshot prune'|'snapshot export'|'snapshot import'|'restore'|'volume'|'volume create'|'volume ls'|'volume list'|'volume inspect'|'volume rm'|'volume remove'|'volume delete'|'volume prune'|'volume grow'|'volume share'|'volume export'|'volume import'|'image'|'image ls'|'image list'|'image pull'|'image push'|'image inspect'|'image history'|'image diff'|'image tag'|'image rm'|'image remove'|'image delete'|'image prune'|'image save'|'image load'|'image disk'|'build'|'build prune'|'commit'|'login'|'logout'|'ui'|'docker-env'|'serve'|'key'|'key create'|'key list'|'key ls'|'key remove'|'key rm'|'key delete'|'mcp'|'mcp install'|'node'|'node run'|'node join'|'setup'|'doctor'|'kernel'|'kernel ls'|'kernel list'|'kernel add'|'kernel use'|'kernel rm'|'kernel remove'|'kernel delete'|'daemon'|'daemon status'|'daemon start'|'daemon stop'|'daemon logs'|'completion') path="${path:+$path }$word" ;;
      *) given=$((given + 1)) ;;
    esac
  done
  case $path in
    '') words='run create fork exec connect ssh ssh-config list ls inspect start stop remove rm delete update pause suspend resume logs stats events network port-forward upload download cp ps wait kill snapshot restore volume image build commit login logout ui docker-env serve key mcp node setup doctor kernel daemon completion' flags='--version --json --verbose --cluster --context --namespace --kubeconfig --help -h' kind='' ;;
    'run') words='' flags='--json --verbose --timing --trace --interactive -i --tty -t --rm --entrypoint --vcpus --memory -m --disk --disk-mode --kernel --kernel-arg --sysctl --boot-timeout --timeout --on-timeout --idle-timeout --on-idle --project --name --label --publish-port -p --network --network-alias --ip --network-policy --allowed-domain --allowed-cidr --denied-cidr --allowed-port --allow-host-port --allow-icmp --allow-udp --bandwidth --volume -v --mount --driver --env -e --secret --user -u --workdir -w --pull --platform --ca-file --init --warm --no-warm --no-seccomp --no-pid-ns --no-cgroup --no-netns --help -h' kind=file ;;
    'create') words='' flags='--json --verbose --timing --trace --from-image --runtime --rootfs --snapshot --cold --count -n --connect --silent --vcpus --memory -m --disk --disk-mode --kernel --kernel-arg --sysctl --boot-timeout --timeout --on-timeout --idle-timeout --on-idle --project --name --label --publish-port -p --network --network-alias --ip --network-policy --allowed-domain --allowed-cidr --denied-cidr --allowed-port --allow-host-port --allow-icmp --allow-udp --bandwidth --volume -v --mount --driver --env -e --secret --user -u --workdir -w --pull --platform --ca-file --init --warm --no-warm --no-seccomp --no-pid-ns --no-cgroup --no-netns --help -h' kind=file ;;
    'fork') words='' flags='--json --verbose --timing --trace --count -n --name --label --project --timeout --env -e --publish-port -p --network --network-alias --ip --network-policy --allowed-domain --allowed-cidr --denied-cidr --allowed-port --allow-host-port --allow-icmp --allow-udp --bandwidth --secret --help -h' kind=vm ;;
    'exec') words='' flags='--json --verbose --timing --trace --sudo --interactive -i --tty -t --workdir -w --env -e --user -u --timeout --detach -d --no-extend-timeout --help -h' kind=vm ;;
    'connect') words='' flags='--json --verbose --timing --trace --session -s --user -u --help -h' kind=vm ;;
    'ssh') words='' flags='--json --verbose --timing --trace --user -u --tty -t --disable-tty -T --forward-agent -A --local -L --remote -R --dynamic -D --forward-only -N --option -o --stdio --help -h' kind=vm ;;
    'ssh-config') words='' flags='--json --verbose --timing --trace --help -h' kind=vms ;;
    'list'|'ls') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'inspect') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'start') words='' flags='--json --verbose --timing --trace --boot-timeout --help -h' kind=vms ;;
    'stop') words='' flags='--json --verbose --timing --trace --time -t --help -h' kind=vms ;;
    'remove'|'rm'|'delete') words='' flags='--json --verbose --timing --trace --force -f --help -h' kind=vms ;;
    'update') words='' flags='--json --verbose --timing --trace --disk --memory -m --vcpus --help -h' kind=vm ;;
    'pause') words='' flags='--json --verbose --timing --trace --help -h' kind=vms ;;
    'suspend') words='' flags='--json --verbose --timing --trace --help -h' kind=vms ;;
    'resume') words='' flags='--json --verbose --timing --trace --help -h' kind=vms ;;
    'logs') words='' flags='--json --verbose --timing --trace --follow -f --tail -n --since --help -h' kind=vm ;;
    'stats') words='' flags='--json --verbose --timing --trace --all --no-stream --help -h' kind=vms ;;
    'events') words='' flags='--json --verbose --timing --trace --since --filter --no-stream --help -h' kind='' ;;
    'network') words='create ls list inspect rm remove delete prune connect disconnect' flags='--json --verbose --timing --trace --network-policy --allowed-domain --allowed-cidr --denied-cidr --allowed-port --allow-host-port --allow-icmp --allow-udp --bandwidth --log --follow -f --help -h' kind=vm ;;
    'network create') words='' flags='--json --verbose --timing --trace --subnet --project --label --help -h' kind=file ;;
    'network ls'|'network list') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'network inspect') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'network rm'|'network remove'|'network delete') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'network prune') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'network connect') words='' flags='--json --verbose --timing --trace --alias --ip --help -h' kind=file ;;
    'network disconnect') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'port-forward') words='' flags='--json --verbose --timing --trace --reverse -R --help -h' kind=vm ;;
    'upload') words='' flags='--json --verbose --timing --trace --dest -d --user -u --help -h' kind=vm ;;
    'download') words='' flags='--json --verbose --timing --trace --dest -d --user -u --help -h' kind=vm ;;
    'cp') words='' flags='--json --verbose --timing --trace --user -u --help -h' kind=file ;;
    'ps') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'wait') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'kill') words='' flags='--json --verbose --timing --trace --signal -s --help -h' kind=vm ;;
    'snapshot') words='create list ls inspect delete rm remove prune export import' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'snapshot create') words='' flags='--json --verbose --timing --trace --name --no-resume --disk-only --help -h' kind=vm ;;
    'snapshot list'|'snapshot ls') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'snapshot inspect') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'snapshot delete'|'snapshot rm'|'snapshot remove') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'snapshot prune') words='' flags='--json --verbose --timing --trace --all -a --help -h' kind='' ;;
    'snapshot export') words='' flags='--json --verbose --timing --trace --output -o --help -h' kind=file ;;
    'snapshot import') words='' flags='--json --verbose --timing --trace --input -i --name --help -h' kind='' ;;
    'restore') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'volume') words='create ls list inspect rm remove delete prune grow share export import' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'volume create') words='' flags='--json --verbose --timing --trace --size --shared --label --help -h' kind=file ;;
    'volume ls'|'volume list') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'volume inspect') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'volume rm'|'volume remove'|'volume delete') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'volume prune') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'volume grow') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'volume share') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'volume export') words='' flags='--json --verbose --timing --trace --output -o --help -h' kind=file ;;
    'volume import') words='' flags='--json --verbose --timing --trace --input -i --help -h' kind=file ;;
    'image') words='ls list pull push inspect history diff tag rm remove delete prune save load disk' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'image ls'|'image list') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'image pull') words='' flags='--json --verbose --timing --trace --platform --ca-file --help -h' kind=file ;;
    'image push') words='' flags='--json --verbose --timing --trace --platform --ca-file --help -h' kind=file ;;
    'image inspect') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'image history') words='' flags='--json --verbose --timing --trace --no-trunc --help -h' kind=file ;;
    'image diff') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'image tag') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'image rm'|'image remove'|'image delete') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'image prune') words='' flags='--json --verbose --timing --trace --all -a --help -h' kind='' ;;
    'image save') words='' flags='--json --verbose --timing --trace --output -o --format --help -h' kind=file ;;
    'image load') words='' flags='--json --verbose --timing --trace --input -i --help -h' kind='' ;;
    'image disk') words='' flags='--json --verbose --timing --trace --output -o --size --builder --journal --platform --ca-file --help -h' kind=file ;;
    'build') words='prune' flags='--json --verbose --timing --trace --tag -t --file -f --build-arg --label --target --platform --secret --add-host --build-context --no-cache --pull --progress --output -o --iidfile --metadata-file --network --ca-file --network-policy --allowed-domain --allowed-cidr --denied-cidr --allowed-port --allow-host-port --allow-icmp --allow-udp --bandwidth --help -h' kind=file ;;
    'build prune') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'commit') words='' flags='--json --verbose --timing --trace --change -c --message -m --author -a --help -h' kind=vm ;;
    'login') words='' flags='--json --verbose --timing --trace --username -u --password-stdin --ca-file --help -h' kind=file ;;
    'logout') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'ui') words='' flags='--json --verbose --timing --trace --listen --project --expires --no-open --help -h' kind='' ;;
    'docker-env') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'serve') words='' flags='--json --verbose --timing --trace --listen --tls-cert --tls-key --behind-proxy --metrics-listen --mcp-policy --driver --domain --docker --docker-ca --cluster --context --namespace --kubeconfig --help -h' kind='' ;;
    'key') words='create list ls remove rm delete' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'key create') words='' flags='--json --verbose --timing --trace --name --project --admin --expires --max-vms --max-memory --max-disk --max-rate --help -h' kind='' ;;
    'key list'|'key ls') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'key remove'|'key rm'|'key delete') words='' flags='--json --verbose --timing --trace --help -h' kind=file ;;
    'mcp') words='install' flags='--json --verbose --timing --trace --policy --project --driver --help -h' kind='' ;;
    'mcp install') words='' flags='--json --verbose --timing --trace --policy --write --help -h' kind=file ;;
    'node') words='run join' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'node run') words='' flags='--json --verbose --timing --trace --kubeconfig --context --name --address --port --cpus --memory --max-pods --label --untainted --allow-host-path --volume-quota --peers --suspended --client-ca --tls-cert --tls-key --grace-period --driver --help -h' kind='' ;;
    'node join') words='' flags='--json --verbose --timing --trace --token --ca --ca-cert-hash --name --help -h' kind=file ;;
    'setup') words='' flags='--json --verbose --timing --trace --runtime --plan --offline --mirror --suite --from --bundle --firecracker --firecracker-version --refresh --help -h' kind='' ;;
    'doctor') words='' flags='--json --verbose --timing --trace --fix --help -h' kind='' ;;
    'kernel') words='ls list add use rm remove delete' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'kernel ls'|'kernel list') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'kernel add') words='' flags='--json --verbose --timing --trace --modules --help -h' kind=file ;;
    'kernel use') words='' flags='--json --verbose --timing --trace --help -h' kind=vm ;;
    'kernel rm'|'kernel remove'|'kernel delete') words='' flags='--json --verbose --timing --trace --help -h' kind=vms ;;
    'daemon') words='status start stop logs' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'daemon status') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'daemon start') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'daemon stop') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'daemon logs') words='' flags='--json --verbose --timing --trace --help -h' kind='' ;;
    'completion') words='bash zsh fish' flags='--json --verbose --timing --trace --help -h' kind='' ;;
  esac
  case $previous in
    --disk-mode) words='overlay flat' kind='' ;;
    --on-timeout) words='suspend stop remove' kind='' ;;
    --on-idle) words='suspend stop remove' kind='' ;;
    --driver) words='auto firecracker qemu fake' kind='' ;;
    --pull) words='missing always never' kind='' ;;
    --format) words='oci-archive docker-archive rootfs' kind='' ;;
    --builder) words='direct mke2fs' kind='' ;;
    --progress) words='auto plain json' kind='' ;;
    --network) words='default none' kind='' ;;
    --add-host|--address|--alias|--allow-host-path|--allow-host-port|--allowed-cidr|--allowed-domain|--allowed-port|--author|--bandwidth|--boot-timeout|--build-arg|--build-context|--builder|--bundle|--ca|--ca-cert-hash|--ca-file|--change|--client-ca|--context|--count|--cpus|--denied-cidr|--dest|--disk|--disk-mode|--docker|--docker-ca|--domain|--driver|--dynamic|--entrypoint|--env|--expires|--file|--filter|--firecracker|--firecracker-version|--format|--from|--from-image|--grace-period|--idle-timeout|--iidfile|--init|--input|--ip|--kernel|--kernel-arg|--kubeconfig|--label|--listen|--local|--max-disk|--max-memory|--max-pods|--max-rate|--max-vms|--mcp-policy|--memory|--message|--metadata-file|--metrics-listen|--mirror|--modules|--mount|--name|--namespace|--network|--network-alias|--network-policy|--on-idle|--on-timeout|--option|--output|--platform|--policy|--port|--progress|--project|--publish-port|--pull|--remote|--rootfs|--runtime|--secret|--session|--signal|--since|--size|--snapshot|--subnet|--suite|--suspended|--sysctl|--tag|--tail|--target|--time|--timeout|--tls-cert|--tls-key|--token|--trace|--user|--username|--vcpus|--volume|--volume-quota|--workdir|-D|-L|-R|-a|-c|-d|-e|-f|-i|-m|-n|-o|-p|-s|-t|-u|-v|-w) words='' flags='' kind=file ;;
    *) if [ "$given" -gt 0 ] && [ "$kind" = vm ]; then kind=file; fi ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$cur"))
    return 0
  fi
  if [[ $kind == vm* ]]; then
    local dir
    for dir in "${VMSAN_DIR:-$HOME/.vmsan}"/vms/vm-*/; do
      [[ -d $dir ]] && dir=${dir%/} && words+=" ${dir##*/}"
    done
  fi
  if [[ $kind == file ]]; then
    COMPREPLY=($(compgen -f -- "$cur"))
  else
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
  fi
}
complete -o filenames -o bashdefault -F _vmsan vmsan
