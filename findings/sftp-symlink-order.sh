#!/bin/sh
# Which: AsyncSSH 2.24.1 of PyPI and ssh2 1.17.0 of npm, against a server of Go's golang.org/x/crypto/ssh 0.59.0 with
#   github.com/pkg/sftp 1.13.12.
# Does: OpenSSH's sftp has the two names of a symbolic link in another order than the protocol's draft, and pkg/sftp's server reads
#   them like OpenSSH. Both clients go by the server's name: to one that is not called OpenSSH they send the draft's order, so that
#   a link to `target` called `link` becomes a link to `link` called `target`, without an error.
# Seen: per client and name of the server, what was made.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'END_MOD'
module finding
go 1.25
require (
	github.com/pkg/sftp v1.13.12
	golang.org/x/crypto v0.59.0
)
END_MOD
cat >main.go <<'END_MAIN'
// One connection to a server of that name, without a password; its port is printed.
package main

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"os"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	_, key, err := ed25519.GenerateKey(nil)
	check(err)
	signer, err := ssh.NewSignerFromKey(key)
	check(err)
	config := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: os.Args[1]}
	config.AddHostKey(signer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	socket, err := listener.Accept()
	check(err)
	_, channels, requests, err := ssh.NewServerConn(socket, config)
	check(err)
	go ssh.DiscardRequests(requests)
	for offered := range channels {
		channel, requests, err := offered.Accept()
		check(err)
		go func() {
			for request := range requests {
				_ = request.Reply(request.Type == "subsystem", nil)
			}
		}()
		server, err := sftp.NewServer(channel)
		check(err)
		go func() {
			_ = server.Serve()
			_ = channel.Close()
		}()
	}
}
END_MAIN
go mod tidy >/dev/null 2>&1
go build -o server .
python3 -m venv v
v/bin/pip -q --disable-pip-version-check install asyncssh==2.24.1
npm install --silent --no-audit --no-fund --ignore-scripts ssh2@1.17.0
cat >client.py <<'END_PYTHON'
import asyncio, sys, asyncssh

async def main():
    to = dict(port=int(sys.argv[1]), known_hosts=None, username="x", client_keys=None, config=[])
    async with asyncssh.connect("127.0.0.1", **to) as connection, connection.start_sftp_client() as sftp:
        await sftp.symlink("target", "link")

asyncio.run(main())
END_PYTHON
cat >client.cjs <<'END_NODE'
const client = new (require("ssh2").Client)();
client.on("ready", () =>
  client.sftp((_error, sftp) =>
    sftp.symlink("target", "link", (error) => {
      if (error) throw error;
      client.end();
    }),
  ),
);
client.connect({ host: "127.0.0.1", port: Number(process.argv[2]), username: "x" });
END_NODE
# look CLIENT NAME EXPECTED
look() {
  rm -f link target port
  ./server "SSH-2.0-$2" >port &
  while [ ! -s port ]; do sleep 0.1; done
  case $1 in
    asyncssh) v/bin/python client.py "$(cat port)" ;;
    *) node client.cjs "$(cat port)" ;;
  esac
  wait $!
  made="link -> $(readlink link || true), target -> $(readlink target || true)"
  echo "$1, server $2: $made"
  [ "$made" = "$3" ] || { echo "changed: it was $3" >&2 && exit 1; }
}
for client in asyncssh ssh2; do
  look $client Go "link -> , target -> link"
  look $client OpenSSH_9.9 "link -> target, target -> "
done
