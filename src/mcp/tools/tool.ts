/** What all tools share: how they are registered, what they answer, how their failures are told. */
import type {
  CallToolResult,
  McpServer,
  ServerContext,
  StandardSchemaWithJSON,
} from "@modelcontextprotocol/server";
import * as z from "zod";
import { asVmsanError } from "../../model/errors.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import type { Session, SessionWork } from "../session.ts";

/** Least time between two notifications of progress, in milliseconds. */
const PROGRESS_MS = 250;
/** Most characters of one of them. */
const PROGRESS_TEXT = 2_000;

/** How a tool names a sandbox. */
export const sandboxRef = z
  .string()
  .min(1)
  .max(63)
  .describe("ID or name of a sandbox of this session");

/** Tells the client how far a call is, if it wants to know. */
class ProgressTeller {
  private readonly ctx: ServerContext;
  private readonly token: string | number | undefined;
  private pending = "";
  private count = 0;
  private told = 0;
  private timer: NodeJS.Timeout | undefined;

  constructor(ctx: ServerContext) {
    this.ctx = ctx;
    this.token = ctx.mcpReq._meta?.progressToken;
  }

  /** @param text added to what has not been told yet; @param by how much more is done */
  add(text: string, by = 1): void {
    if (this.token === undefined) return;
    this.pending = (this.pending + text).slice(-PROGRESS_TEXT);
    this.count += by;
    const wait = Math.max(0, this.told + PROGRESS_MS - Date.now());
    this.timer ??= setTimeout(() => this.tell(), wait);
  }

  private tell(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.token === undefined || this.pending === "") return;
    this.told = Date.now();
    const params = { progressToken: this.token, progress: this.count, message: this.pending };
    this.pending = "";
    this.ctx.mcpReq.notify({ method: "notifications/progress", params }).catch(() => {
      // The client is gone, or has stopped listening: its call ends by its signal.
    });
  }

  /** Tell what is left. */
  end(): void {
    this.tell();
  }
}

/** Progress of vmsan's own work as a line. */
function lineOf({ phase, item, message, done, total }: ProgressEvent): string {
  const share = done === undefined ? "" : ` ${done}${total === undefined ? "" : `/${total}`}`;
  return `${[phase, item, message].filter((word) => word !== undefined).join(" ")}${share}\n`;
}

/** What a tool works with. */
export interface ToolWork extends SessionWork {
  session: Session;
  progress: ProgressTeller;
}

/** What a tool answers: text for the model, and the same as values. */
export interface ToolAnswer {
  text?: string;
  values?: Record<string, unknown>;
  /** The command failed; the model is to see that. */
  failed?: boolean;
}

/** How a tool is described. */
export interface ToolAbout<Input extends z.ZodObject> {
  title: string;
  description: string;
  input: Input;
  readOnly?: boolean;
  destructive?: boolean;
}

/** A failure as the model reads it. */
function failure(error: unknown): CallToolResult {
  const { code, message, why, fix } = asVmsanError(error, "It failed").toJSON();
  const lines = [`${message} [${code}]`, why, fix].filter((line) => (line ?? "") !== "");
  return { isError: true, content: [{ type: "text", text: lines.join("\n") }] };
}

/** Add a tool to a server. */
export function addTool<Input extends z.ZodObject>(
  server: McpServer,
  session: Session,
  name: string,
  about: ToolAbout<Input>,
  run: (input: z.infer<Input>, work: ToolWork) => Promise<ToolAnswer>,
): void {
  const { title, description, input, readOnly = false, destructive = false } = about;
  // A word that is none, as `network_mode` for `network`, would be passed over, and the default hold.
  const inputSchema: StandardSchemaWithJSON = input.strict();
  const config = {
    title,
    description,
    inputSchema,
    annotations: { readOnlyHint: readOnly, destructiveHint: destructive, openWorldHint: !readOnly },
  };
  const call = async (given: unknown, ctx: ServerContext): Promise<CallToolResult> => {
    const progress = new ProgressTeller(ctx);
    const { signal } = ctx.mcpReq;
    const onProgress = (event: ProgressEvent): void => progress.add(lineOf(event));
    try {
      const answer = await run(given as z.infer<Input>, { session, signal, onProgress, progress });
      const text = answer.text ?? JSON.stringify(answer.values, null, 1);
      return {
        content: [{ type: "text", text }],
        ...(answer.failed === true ? { isError: true } : {}),
      };
    } catch (error) {
      return failure(error);
    } finally {
      progress.end();
    }
  };
  server.registerTool(name, config, call);
}
