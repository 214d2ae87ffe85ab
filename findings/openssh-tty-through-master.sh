#!/bin/sh
# Which: ssh of OpenSSH 9.2p1 (Debian 12, openssh-client 1:9.2p1-2+deb12u10); paramiko 3.5.1 is the server that tells.
# Does: `ssh -tt` without a terminal of its own asks the server for one. On a connection of its own the request has no
#   modes, so the server's defaults hold. Through a ControlMaster it has all of them, and all are off or undefined, the
#   speed 0: no echo, no line editing, no signals, no translation of line ends, and a program there never sees Ctrl-C.
# Seen: 1 byte of modes (their end) against 261, of 52 modes, of which none is on.
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
"""Anybody may log in; prints what is asked for each terminal, and ends each session."""
import socket, sys, threading, paramiko

class Server(paramiko.ServerInterface):
    def get_allowed_auths(self, name):
        return "none"
    def check_auth_none(self, name):
        return paramiko.AUTH_SUCCESSFUL
    def check_channel_request(self, kind, number):
        return paramiko.OPEN_SUCCEEDED
    def check_channel_pty_request(self, channel, term, width, height, pixelwidth, pixelheight, modes):
        print(f"{width}x{height}, {len(modes)} bytes of modes: {bytes(modes).hex()}", flush=True)
        return True
    def check_channel_exec_request(self, channel, command):
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
ssh -tt 127.0.0.1 true </dev/null >/dev/null
ssh -o ControlMaster=yes -o "ControlPath=$dir/master" -fN 127.0.0.1 </dev/null >/dev/null 2>&1
ssh -o "ControlPath=$dir/master" -tt 127.0.0.1 true </dev/null >/dev/null
ssh -o "ControlPath=$dir/master" -O exit 127.0.0.1 2>/dev/null
sed 1d said
# Each mode is its number and four bytes; 00 ends them. Control characters (1 to 18) that are off are ff.
directly=$(sed -n 's/.*modes: //p' said | sed -n 1p)
through=$(sed -n 's/.*modes: //p' said | sed -n 2p)
on=$(echo "${through%00}" | fold -w 10 | grep -vcE '00000000$|000000ff$' || true)
echo "modes that are on: directly, the server's own; through a master: $on"
[ "$directly ${#through} $on" = "00 522 0" ] || { echo "changed: it was 00, 522 digits, 0" >&2 && exit 1; }
