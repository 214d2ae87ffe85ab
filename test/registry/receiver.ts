/**
 * A registry that takes pushes, keeps them in memory and does wrong when told to: every request asks
 * a function of the test what happens to it.
 */
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** What happens to one request instead of what it asks for. */
export type Mishap =
  /** Answer with this, before the body has come. */
  | { kind: "status"; status: number; headers?: Record<string, string> }
  /** Take so many bytes of the body into the upload, then cut the line; 0: at once, body or not. */
  | { kind: "cut"; after: number }
  /** Do all that is asked for, and cut the line instead of saying so. */
  | { kind: "lost" };

/** A request as it came. */
export interface Received {
  method: string;
  path: string;
  query: URLSearchParams;
  authorization: string | undefined;
  range: string | undefined;
  /** How many requests of this method came before. */
  earlier: number;
}

/** A running registry. */
export interface Receiver {
  host: string;
  seen: Received[];
  /** By repository and digest. */
  blobs: Map<string, Buffer>;
  /** By repository and tag. */
  manifests: Map<string, Buffer>;
  uploads: Map<string, Buffer>;
  mishap: (request: Received) => Mishap | undefined;
  /** With it, requests need a token; the token server is asked for these scopes. */
  scopes: string[] | undefined;
  stop(): Promise<void>;
}

const digestOf = (bytes: Buffer): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

/** Take a body; with a limit, cut the line behind that many bytes. */
async function bodyOf(
  request: IncomingMessage,
  take: (bytes: Buffer) => void,
  limit = Number.POSITIVE_INFINITY,
): Promise<boolean> {
  let left = limit;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    take(chunk.subarray(0, left));
    left -= chunk.length;
    if (left <= 0) {
      request.socket.destroy();
      return false;
    }
  }
  return true;
}

/** Start one on loopback. */
export async function startReceiver(): Promise<Receiver> {
  const counts = new Map<string, number>();
  const receiver: Receiver = {
    host: "",
    seen: [],
    blobs: new Map(),
    manifests: new Map(),
    uploads: new Map(),
    mishap: () => undefined,
    scopes: undefined,
    stop: () => Promise.resolve(),
  };
  const { blobs, manifests, uploads } = receiver;

  const handle = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const method = request.method ?? "";
    const url = new URL(request.url ?? "", "http://localhost");
    const earlier = counts.get(method) ?? 0;
    counts.set(method, earlier + 1);
    const seen: Received = {
      method,
      path: url.pathname,
      query: url.searchParams,
      authorization: request.headers.authorization,
      range: request.headers["content-range"],
      earlier,
    };
    receiver.seen.push(seen);
    const wrong = receiver.mishap(seen);
    const answer = (status: number, headers: Record<string, string> = {}): void => {
      if (wrong?.kind === "lost") request.socket.destroy();
      else response.writeHead(status, { "content-length": 0, ...headers }).end();
    };
    const cutAfter = wrong?.kind === "cut" ? wrong.after : undefined;
    if (cutAfter === 0) {
      request.socket.destroy();
      return;
    }
    if (wrong?.kind === "status") {
      answer(wrong.status, wrong.headers);
      return;
    }
    if (url.pathname === "/token") {
      receiver.scopes = url.searchParams.getAll("scope");
      response.end(JSON.stringify({ token: "secret-token" }));
      return;
    }
    if (receiver.scopes !== undefined && seen.authorization !== "Bearer secret-token") {
      answer(401, { "www-authenticate": `Bearer realm="http://${receiver.host}/token"` });
      return;
    }
    const match = /^\/v2\/(.+)\/(blobs\/uploads|blobs|manifests)\/([^/]*)$/.exec(url.pathname);
    const [, repository = "", kind = "", name = ""] = match ?? [];
    if (kind === "manifests") {
      const parts: Buffer[] = [];
      await bodyOf(request, (bytes) => parts.push(bytes));
      const manifest = Buffer.concat(parts);
      manifests.set(`${repository}:${name}`, manifest);
      answer(201, { "docker-content-digest": digestOf(manifest) });
      return;
    }
    if (kind === "blobs") {
      answer(blobs.has(`${repository}@${name}`) ? 200 : 404);
      return;
    }
    const location = `/v2/${repository}/blobs/uploads/`;
    if (method === "POST") {
      const mounted = blobs.get(
        `${url.searchParams.get("from")}@${url.searchParams.get("mount") ?? ""}`,
      );
      if (mounted !== undefined) {
        blobs.set(`${repository}@${url.searchParams.get("mount")}`, mounted);
        answer(201);
        return;
      }
      const id = `u${receiver.seen.length}`;
      uploads.set(id, Buffer.alloc(0));
      // Relative, with a query of its own: both are allowed.
      answer(202, { location: `${location}${id}?state=x`, range: "0-0" });
      return;
    }
    const have = uploads.get(name);
    if (have === undefined) {
      answer(404);
      return;
    }
    const status = (): Record<string, string> => ({
      location: `${location}${name}?state=y`,
      range: `0-${Math.max(0, (uploads.get(name)?.length ?? 0) - 1)}`,
    });
    if (method === "DELETE") {
      uploads.delete(name);
      answer(204);
      return;
    }
    if (method === "GET") {
      answer(204, status());
      return;
    }
    const start = /^(\d+)-/.exec(seen.range ?? "")?.[1];
    if (start !== undefined && Number(start) !== have.length) {
      answer(416, status());
      return;
    }
    const take = (bytes: Buffer): void => {
      // One that has been forgotten meanwhile does not come back.
      const so = uploads.get(name);
      if (so !== undefined) uploads.set(name, Buffer.concat([so, bytes]));
    };
    if (!(await bodyOf(request, take, cutAfter))) return;
    if (method === "PATCH") {
      answer(202, status());
      return;
    }
    const whole = uploads.get(name) ?? Buffer.alloc(0);
    uploads.delete(name);
    if (digestOf(whole) !== url.searchParams.get("digest")) {
      answer(400);
      return;
    }
    blobs.set(`${repository}@${digestOf(whole)}`, whole);
    answer(201, { "docker-content-digest": digestOf(whole) });
  };

  const server = createServer((request, response) => {
    // A client that leaves in the middle is part of the tests.
    response.on("error", () => undefined);
    handle(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  receiver.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  receiver.stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return receiver;
}
