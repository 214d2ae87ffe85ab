/**
 * mcp/: sandboxes for agents that speak the Model Context Protocol. Takes tool calls of one session, gives
 * their answers, by the SDK's client alone; how the calls come is its callers' affair (standard input and
 * output here, HTTP in the gateway). Rooms: tools/.
 *
 * server.ts: a session's server.
 */
import { McpServer } from "@modelcontextprotocol/server";
import { packageVersion } from "../util/package.ts";
import { addResources } from "./resources.ts";
import type { Session } from "./session.ts";
import { addCommandTools } from "./tools/commands.ts";
import { addFileTools } from "./tools/files.ts";
import { addNetworkTools } from "./tools/network.ts";
import { addSandboxTools } from "./tools/sandboxes.ts";

const INSTRUCTIONS = `Sandboxes are isolated Linux virtual machines of container images. Create one, run commands and code in it, read and write its files; fork it to try several ways, snapshot it before something risky and roll back. Work that takes long: run it in the background with its output in a file. Sandboxes are removed when the session ends.`;

/** A server of a session; several may serve the same one, one after the other. */
export function mcpServer(session: Session): McpServer {
  const server = new McpServer(
    { name: "vmsan", title: "vmsan sandboxes", version: packageVersion() },
    { instructions: INSTRUCTIONS },
  );
  addSandboxTools(server, session);
  addCommandTools(server, session);
  addFileTools(server, session);
  addNetworkTools(server, session);
  addResources(server, session);
  return server;
}
