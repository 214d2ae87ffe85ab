/** Tools about the network of sandboxes. */
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import type { Session } from "../session.ts";
import { addTool, sandboxRef } from "./tool.ts";

/** Most decisions that are told. */
const TOLD = 100;

/** Add them. */
export function addNetworkTools(server: McpServer, session: Session): void {
  addTool(
    server,
    session,
    "expose_port",
    {
      title: "Make a port reachable",
      description:
        "Make what listens on a TCP port in a sandbox reachable, and return the address (and headers that requests need).",
      input: z.object({ sandbox: sandboxRef, port: z.int().min(1).max(65_535) }),
    },
    async ({ sandbox, port }) => ({
      values: { ...(await session.expose(session.sandbox(sandbox), port)) },
    }),
  );

  addTool(
    server,
    session,
    "network_decisions",
    {
      title: "What the network allowed and refused",
      description: `The last connections and names that a sandbox tried, what became of each, and by which rule; at most ${TOLD}.`,
      input: z.object({ sandbox: sandboxRef, denied_only: z.boolean().default(false) }),
      readOnly: true,
    },
    async ({ sandbox, denied_only: deniedOnly }, { signal }) => {
      const source = await session.sandbox(sandbox).decisions({ signal });
      let text = "";
      for await (const chunk of source as AsyncIterable<Buffer>) text += chunk.toString("utf8");
      const lines = text
        .split("\n")
        .filter((line) => line !== "" && (!deniedOnly || line.includes('"verdict":"denied"')));
      return { text: lines.length === 0 ? "[none]" : lines.slice(-TOLD).join("\n") };
    },
  );
}
