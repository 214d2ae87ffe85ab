/** Tools for files of sandboxes. */
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import { listFiles } from "../../agent/files.ts";
import type { Vm } from "../../client/vm.ts";
import { VmsanError } from "../../model/errors.ts";
import { SHOWN_BYTES } from "../outputs.ts";
import type { Session } from "../session.ts";
import { addTool, sandboxRef } from "./tool.ts";

/** Largest file that is edited, in bytes. */
const EDITED_BYTES = 8 << 20;
/** Most names of one directory that are told. */
const LISTED = 500;

const path = z.string().min(1).max(4096).describe("absolute path in the sandbox");

/** What a file holds between two offsets, and how long it is. */
export async function readPart(
  vm: Vm,
  file: string,
  offset: number,
  limit: number,
  signal: AbortSignal,
): Promise<{ bytes: Buffer; more: boolean }> {
  const parts: Buffer[] = [];
  let at = 0;
  let size = 0;
  const source = await vm.openFile(file, { signal });
  try {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      const from = Math.max(0, offset - at);
      at += chunk.length;
      if (from >= chunk.length) continue;
      const part = chunk.subarray(from);
      parts.push(part);
      size += part.length;
      if (size > limit) break;
    }
  } finally {
    source.destroy();
  }
  return { bytes: Buffer.concat(parts).subarray(0, limit), more: size > limit };
}

/** Bytes as text, or as base64 where they are none. */
function textOf(bytes: Buffer, encoding: "text" | "base64"): string {
  return encoding === "base64" ? bytes.toString("base64") : bytes.toString("utf8");
}

async function write(vm: Vm, file: string, bytes: Buffer, mode?: number): Promise<void> {
  async function* once(): AsyncGenerator<Buffer> {
    yield await Promise.resolve(bytes);
  }
  await vm.writeFile(file, once(), mode === undefined ? {} : { mode });
}

/** The text with one part replaced. @throws ERR_MCP_EDIT */
function edited(text: string, old: string, replacement: string, all: boolean): string {
  const count = text.split(old).length - 1;
  if (count === 0 || (count > 1 && !all)) {
    throw new VmsanError({
      code: "ERR_MCP_EDIT",
      message: "The file was not changed",
      why: count === 0 ? "It does not hold old_text." : `It holds old_text ${count} times.`,
      fix:
        count === 0
          ? "Read the file and give the text exactly as it is there, with its blanks and line ends."
          : "Give more of the text around it, or replace_all.",
    });
  }
  return text.split(old).join(replacement);
}

/** Add them. */
export function addFileTools(server: McpServer, session: Session): void {
  addTool(
    server,
    session,
    "read_file",
    {
      title: "Read a file",
      description: `A file of a sandbox, at most ${SHOWN_BYTES / 1000} kB at a time: offset and limit count bytes.`,
      input: z.object({
        sandbox: sandboxRef,
        path,
        offset: z.int().min(0).default(0),
        limit: z.int().min(1).max(SHOWN_BYTES).default(SHOWN_BYTES),
        encoding: z.enum(["text", "base64"]).default("text"),
      }),
      readOnly: true,
    },
    async ({ sandbox, path: file, offset, limit, encoding }, { signal }) => {
      const vm = session.sandbox(sandbox);
      const { bytes, more } = await readPart(vm, file, offset, limit, signal);
      const rest = more ? `\n[… there is more: offset ${offset + bytes.length} …]` : "";
      return { text: `${textOf(bytes, encoding)}${rest}` };
    },
  );

  addTool(
    server,
    session,
    "write_file",
    {
      title: "Write a file",
      description: "Write a file of a sandbox, in place of the one that may be there.",
      input: z.object({
        sandbox: sandboxRef,
        path,
        content: z.string().max(8_000_000),
        encoding: z.enum(["text", "base64"]).default("text"),
        mode: z
          .string()
          .regex(/^[0-7]{3,4}$/)
          .optional()
          .describe("octal, e.g. 755"),
      }),
      destructive: true,
    },
    async ({ sandbox, path: file, content, encoding, mode }) => {
      const bytes = Buffer.from(content, encoding === "base64" ? "base64" : "utf8");
      const bits = mode === undefined ? undefined : Number.parseInt(mode, 8);
      await write(session.sandbox(sandbox), file, bytes, bits);
      return { text: `${file}: ${bytes.length} bytes` };
    },
  );

  addTool(
    server,
    session,
    "edit_file",
    {
      title: "Edit a file",
      description:
        "Replace a part of a text file, which must be there exactly once unless replace_all is given.",
      input: z.object({
        sandbox: sandboxRef,
        path,
        old_text: z.string().min(1).max(1_000_000),
        new_text: z.string().max(1_000_000),
        replace_all: z.boolean().default(false),
      }),
      destructive: true,
    },
    async ({ sandbox, path: file, ...change }, { signal }) => {
      const vm = session.sandbox(sandbox);
      const { bytes, more } = await readPart(vm, file, 0, EDITED_BYTES, signal);
      const before = bytes.toString("utf8");
      if (more || !Buffer.from(before).equals(bytes)) {
        throw new VmsanError({
          code: "ERR_MCP_EDIT",
          message: `${file} was not changed`,
          why: more ? `It is longer than ${EDITED_BYTES} bytes.` : "It is no text.",
          fix: "Change it with run_command.",
        });
      }
      const after = edited(before, change.old_text, change.new_text, change.replace_all);
      await write(vm, file, Buffer.from(after));
      return { text: `${file}: ${Buffer.byteLength(after)} bytes` };
    },
  );

  addTool(
    server,
    session,
    "list_files",
    {
      title: "List a directory",
      description: `Names, kinds and sizes of a directory of a sandbox, at most ${LISTED}.`,
      input: z.object({ sandbox: sandboxRef, path }),
      readOnly: true,
    },
    async ({ sandbox, path: directory }, { signal }) => {
      const vm = session.sandbox(sandbox);
      const entries = await listFiles(vm.transport, directory, { signal });
      const lines = entries.slice(0, LISTED).map(({ name, type, size, mode }) => {
        const bits = (mode & 0o7777).toString(8).padStart(4, "0");
        return `${type.padEnd(7)} ${bits} ${String(size).padStart(10)} ${JSON.stringify(name.toString()).slice(1, -1)}`;
      });
      const more = entries.length > LISTED ? [`[… ${entries.length - LISTED} more …]`] : [];
      return { text: lines.length === 0 ? "[empty]" : [...lines, ...more].join("\n") };
    },
  );
}
