#!/bin/sh
# Which: mcp 1.30.0 and 2.3.0 of PyPI, the official Python SDK of the Model Context Protocol, over stdio.
# Does: with version 1 a call that its task gives up (`task.cancel()`), and one whose own time limit is over, are not told to the
#   server: no notifications/cancelled is sent, though the protocol has it, and the tool works on. Version 2 tells it.
# Seen: per version and way, whether the server heard of it.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >server.py <<'END_SERVER'
"""Enough of a server: a tool that never answers. What is sent to it goes to a file."""
import json, os, sys

for line in sys.stdin:
    message = json.loads(line)
    with open(os.environ["SAID"], "a") as said:
        print(message.get("method"), file=said)
    method, number = message.get("method"), message.get("id")
    if method == "initialize":
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "slow", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": [{"name": "slow", "inputSchema": {"type": "object"}}]}
    elif number is not None and method != "tools/call":
        print(json.dumps({"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "none"}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)
END_SERVER
cat >client.py <<'END_CLIENT'
import asyncio, contextlib, datetime, os, sys
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

async def main(way):
    said = os.environ["SAID"]
    server = StdioServerParameters(command=sys.executable, args=["server.py"], env={"SAID": said, "PATH": os.environ["PATH"]})
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        limit = 1 if sys.argv[2] == "2" else datetime.timedelta(seconds=1)
        more = {"read_timeout_seconds": limit} if way == "limit" else {}
        task = asyncio.ensure_future(session.call_tool("slow", {}, **more))
        while "tools/call" not in open(said).read():
            await asyncio.sleep(0.05)
        if way == "cancel":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
        await asyncio.sleep(1)

asyncio.run(main(sys.argv[1]))
END_CLIENT
# look VERSION WAY EXPECTED
look() {
  SAID=$dir/said-$1-$2
  export SAID
  : >"$SAID"
  "v$1/bin/python" client.py "$2" "$1"
  heard=no
  if grep -q notifications/cancelled "$SAID"; then heard=yes; fi
  echo "version $1, $2: heard $heard"
  [ "$heard" = "$3" ] || { echo "changed: it was $3" >&2 && exit 1; }
}
for version in 1.30.0 2.3.0; do
  python3 -m venv "v${version%%.*}"
  "v${version%%.*}/bin/pip" -q --disable-pip-version-check install "mcp==$version"
done
look 1 cancel no
look 1 limit no
look 2 cancel yes
look 2 limit yes
