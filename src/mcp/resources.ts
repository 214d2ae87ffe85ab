/** What agents may read as resources: files and consoles of sandboxes, outputs of commands. */
import { ResourceTemplate } from "@modelcontextprotocol/server";
import type { McpServer, ReadResourceResult } from "@modelcontextprotocol/server";
import type { Session } from "./session.ts";
import { readPart } from "./tools/files.ts";

/** Most bytes of one resource: clients give up on messages of 10 MB. */
const RESOURCE_BYTES = 1 << 20;

/** Text where the bytes are text, else base64. */
function contents(uri: URL, bytes: Buffer): ReadResourceResult {
  const text = bytes.toString("utf8");
  const isText = !text.includes("\uFFFD") && !text.includes("\0");
  const about = { uri: uri.href, mimeType: isText ? "text/plain" : "application/octet-stream" };
  return { contents: [isText ? { ...about, text } : { ...about, blob: bytes.toString("base64") }] };
}

/** A variable of a resource's address. */
function word(value: string | string[] | undefined): string {
  return decodeURIComponent(Array.isArray(value) ? (value[0] ?? "") : (value ?? ""));
}

/** Add them. */
export function addResources(server: McpServer, session: Session): void {
  const about = { mimeType: "text/plain" };
  server.registerResource(
    "file",
    new ResourceTemplate("vmsan://{sandbox}/files/{+path}", { list: undefined }),
    {
      ...about,
      title: "A file",
      description: `A file of a sandbox, up to ${RESOURCE_BYTES} bytes.`,
    },
    async (uri, { sandbox, path }, { mcpReq: { signal } }) => {
      const file = `/${word(path).replace(/^\/+/, "")}`;
      const vm = session.sandbox(word(sandbox));
      return contents(uri, (await readPart(vm, file, 0, RESOURCE_BYTES, signal)).bytes);
    },
  );
  server.registerResource(
    "console",
    new ResourceTemplate("vmsan://{sandbox}/console", {
      list: async () => ({
        resources: (await session.list()).map(({ id }) => ({
          name: `console of ${id}`,
          uri: `vmsan://${id}/console`,
        })),
      }),
    }),
    { ...about, title: "A console", description: "What the sandbox's kernel and agent printed." },
    async (uri, { sandbox }, { mcpReq: { signal } }) => {
      let text = Buffer.alloc(0);
      for await (const chunk of await session.sandbox(word(sandbox)).console({ signal })) {
        text = Buffer.concat([text, chunk as Buffer]).subarray(-RESOURCE_BYTES);
      }
      return contents(uri, text);
    },
  );
  server.registerResource(
    "output",
    new ResourceTemplate("vmsan://outputs/{output}", {
      list: async () =>
        await Promise.resolve({
          resources: session.outputs.list().map(({ id, sandbox, size }) => ({
            name: `output ${id}, of ${sandbox}`,
            uri: `vmsan://outputs/${id}`,
            size,
          })),
        }),
    }),
    {
      ...about,
      title: "An output",
      description: `What a command has printed, its first ${RESOURCE_BYTES} bytes.`,
    },
    async (uri, { output }) => {
      const kept = session.outputs.get(word(output));
      return await Promise.resolve(contents(uri, kept.slice(0, RESOURCE_BYTES)));
    },
  );
}
