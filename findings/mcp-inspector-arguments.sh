#!/bin/sh
# Which: @modelcontextprotocol/inspector 2.12.0 (npm), its command-line mode, with a server made of @modelcontextprotocol/sdk 1.32.2.
# Does: `--tool-arg name=value` reads every value as JSON where it can, whatever type the tool's schema has for it: for a parameter
#   that is a string, `true`, `1e3` and `null` are sent as a boolean, a number and null, and refused by the server's own check. A
#   string of JSON in its quotes arrives without them.
# Seen: per value the type that the server was sent, or the string that it got.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent --no-audit --no-fund @modelcontextprotocol/inspector@2.12.0 @modelcontextprotocol/sdk@1.32.2 >/dev/null 2>&1
cat >server.mjs <<'END'
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { z } from "zod";

const server = new McpServer({ name: "echo", version: "1" });
server.registerTool("echo", { inputSchema: { text: z.string() } }, ({ text }) => ({
  content: [{ type: "text", text: `string ${text}` }],
}));
await server.connect(new StdioServerTransport());
END

# call VALUE EXPECTED
call() {
  answer=$(npx @modelcontextprotocol/inspector --cli node server.mjs \
    --method tools/call --tool-name echo --tool-arg "text=$1" 2>/dev/null || true)
  seen=$(printf '%s' "$answer" | grep -Eo 'received [a-z]+|string word|string 007|string true' | sed -n 1p)
  echo "$1: $seen"
  [ "$seen" = "$2" ] || { echo "changed: it was $2" >&2 && exit 1; }
}
call word "string word"
call 007 "string 007"
call true "received boolean"
call 1e3 "received number"
call null "received null"
call '"true"' "string true"
