/** How the usual clients of MCP are told of a server: their files, and what is written there. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { writeFileAtomic } from "../util/atomic.ts";
import { makeDirectory } from "../util/files/directory.ts";

/** A server as clients start it. */
export interface ServerEntry {
  command: string;
  args: string[];
  env: Record<string, string>;
}

/** One client. */
interface Client {
  /** For people. */
  title: string;
  /** Its file of settings below the home directory; absent where it is written in TOML or by a command. */
  file?: string;
  /** Under which key of the file servers are. */
  key?: string;
  /** What is written under the server's name. */
  entry: (server: ServerEntry) => object;
  /** Another form of the same. */
  form?: (server: ServerEntry) => string;
}

const plain = ({ command, args, env }: ServerEntry): object => ({
  command,
  args,
  ...(Object.keys(env).length === 0 ? {} : { env }),
});

/** A word for a shell. */
function quoted(word: string): string {
  return /^[\w./:=@-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`;
}

/** Clients by the name that `vmsan mcp install` takes. */
export const CLIENTS: Record<string, Client> = {
  "claude-code": {
    title: "Claude Code",
    entry: plain,
    form: ({ command, args, env }) =>
      [
        "claude mcp add vmsan",
        ...Object.entries(env).map(([name, value]) => `-e ${quoted(`${name}=${value}`)}`),
        "--",
        ...[command, ...args].map(quoted),
      ].join(" "),
  },
  "claude-desktop": {
    title: "Claude Desktop",
    file: ".config/Claude/claude_desktop_config.json",
    key: "mcpServers",
    entry: plain,
  },
  cursor: { title: "Cursor", file: ".cursor/mcp.json", key: "mcpServers", entry: plain },
  vscode: {
    title: "Visual Studio Code",
    file: ".config/Code/User/mcp.json",
    key: "servers",
    entry: (server) => ({ type: "stdio", ...plain(server) }),
  },
  windsurf: {
    title: "Windsurf",
    file: ".codeium/windsurf/mcp_config.json",
    key: "mcpServers",
    entry: plain,
  },
  gemini: { title: "Gemini CLI", file: ".gemini/settings.json", key: "mcpServers", entry: plain },
  codex: {
    title: "Codex",
    entry: plain,
    form: ({ command, args, env }) => {
      const lines = [
        "[mcp_servers.vmsan]",
        `command = ${JSON.stringify(command)}`,
        `args = [${args.map((arg) => JSON.stringify(arg)).join(", ")}]`,
      ];
      const variables = Object.entries(env).map(
        ([name, value]) => `${name} = ${JSON.stringify(value)}`,
      );
      return [
        ...lines,
        ...(variables.length === 0 ? [] : [`env = { ${variables.join(", ")} }`]),
      ].join("\n");
    },
  },
};

/** A client by its name. @throws ERR_VALIDATION_FLAGS */
export function clientOf(name: string): Client {
  const client = Object.hasOwn(CLIENTS, name) ? CLIENTS[name] : undefined;
  if (client !== undefined) return client;
  throw new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `Invalid client: ${JSON.stringify(name)}`,
    why: `Known are ${Object.keys(CLIENTS).join(", ")}.`,
    fix: "Name one of them; others take what is printed for cursor.",
  });
}

/** What a client is to be told, as it takes it. */
export function configurationFor(client: Client, server: ServerEntry): string {
  if (client.form !== undefined) return client.form(server);
  return JSON.stringify({ [client.key ?? ""]: { vmsan: client.entry(server) } }, null, 2);
}

/**
 * Write it into the client's own file; what else is there stays.
 * @returns the file's path
 * @throws ERR_MCP_INSTALL
 */
export async function writeConfiguration(
  client: Client,
  server: ServerEntry,
  home = homedir(),
): Promise<string> {
  const { title, file, key } = client;
  if (file === undefined || key === undefined) {
    throw new VmsanError({
      code: "ERR_MCP_INSTALL",
      message: `Cannot write the configuration of ${title}`,
      why: "It keeps it in a form that is not written here.",
      fix: "Leave --write out, and use what is printed.",
    });
  }
  const path = join(home, file);
  const settings = await readSettings(path);
  const servers = settings[key];
  const known = typeof servers === "object" && servers !== null ? servers : {};
  const next = { ...settings, [key]: { ...known, vmsan: client.entry(server) } };
  makeDirectory(dirname(path));
  await writeFileAtomic(path, `${JSON.stringify(next, null, 2)}\n`);
  return path;
}

async function readSettings(path: string): Promise<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      return value as Record<string, unknown>;
    }
    throw new Error("It holds no JSON object.");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return {};
    throw new VmsanError(
      {
        code: "ERR_MCP_INSTALL",
        message: `Cannot add to ${path}`,
        why: messageOf(error),
        fix: "Leave --write out, and put what is printed there by hand (comments are no JSON).",
      },
      error,
    );
  }
}
