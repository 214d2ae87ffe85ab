#!/bin/sh
# Which: ssh of OpenSSH 9.2p1 (Debian 12, openssh-client 1:9.2p1-2+deb12u10); paramiko 3.5.1 is the server that tells.
# Does: through a ControlMaster, `-o SetEnv` and `-o SendEnv` of the command that is run count for nothing, and nothing is said:
#   the master's own do. So the same command line has a variable or not, or another value, by whether a connection was kept.
# Seen: FOO and LC_A on a connection of its own; through a master without such options none; through one with
#   SetEnv FOO=master and SendEnv LC_A: FOO=master, and LC_A with the value of the command's own environment.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
apt-get -o APT::Sandbox::User= -qq download openssh-client=1:9.2p1-2+deb12u10
dpkg-deb -x openssh-client_*.deb root
python3 -m venv venv
venv/bin/pip -q --disable-pip-version-check install paramiko==3.5.1 cryptography==44.0.2
cat >server.py <<'END'
"""Anybody may log in; prints the variables of each session, and ends it."""
import socket, threading, paramiko

class Server(paramiko.ServerInterface):
    def get_allowed_auths(self, name):
        return "none"
    def check_auth_none(self, name):
        return paramiko.AUTH_SUCCESSFUL
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED
    def check_channel_env_request(self, channel, name, value):
        self.variables = getattr(self, "variables", {})
        self.variables.setdefault(channel.get_id(), []).append(f"{name.decode()}={value.decode()}")
        return True
    def check_channel_exec_request(self, channel, command):
        seen = sorted(getattr(self, "variables", {}).pop(channel.get_id(), []))
        print(f"{command.decode()}: {' '.join(seen) or 'none'}", flush=True)
        def end():
            channel.send_exit_status(0)
            channel.close()
        threading.Timer(0.2, end).start()
        return True

key = paramiko.RSAKey.generate(2048)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    transport = paramiko.Transport(connection)
    transport.add_server_key(key)
    transport.start_server(server=Server())
END
venv/bin/python server.py >said 2>errors &
server=$!
while [ ! -s said ]; do sleep 0.1; done
port=$(head -n 1 said)
ssh() {
  "$dir/root/usr/bin/ssh" -F /dev/null -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR -o PreferredAuthentications=none "$@"
}
export LC_A=mine
own="-o SetEnv=FOO=mine -o SendEnv=LC_A"
# shellcheck disable=SC2086 # words
ssh $own 127.0.0.1 directly </dev/null
for kind in plain with; do
  more=
  [ $kind = plain ] || more="-o SetEnv=FOO=master -o SendEnv=LC_A"
  # shellcheck disable=SC2086 # words
  LC_A=master ssh $more -o ControlMaster=yes -o "ControlPath=$dir/$kind" -fN 127.0.0.1 </dev/null >/dev/null 2>&1
  # shellcheck disable=SC2086 # words
  ssh $own -o "ControlPath=$dir/$kind" 127.0.0.1 "through a master $kind" </dev/null
  ssh -o "ControlPath=$dir/$kind" -O exit 127.0.0.1 2>/dev/null
done
sed 1d said
wanted='directly: FOO=mine LC_A=mine
through a master plain: none
through a master with: FOO=master LC_A=mine'
[ "$(sed 1d said)" = "$wanted" ] || { echo "changed: it was" "$wanted" >&2 && exit 1; }
