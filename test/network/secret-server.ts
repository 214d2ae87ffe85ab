/**
 * Servers that real guests' secrets are for, on the internet of a world: `api.test` asks for the value
 * in any field, Basic credentials, the query or a body, and gives a page, a package or a repository; it
 * sends back what it was sent, and the value in many forms. Arguments: a directory with NAME.pem and NAME.key for each
 * server, and `packages` where it is to have some; the value is TOKEN in the environment. Prints what it is asked, one JSON object a
 * line.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { WebSocketServer } from "ws";
import { makePackages } from "./secret-packages.ts";

const dir = process.argv[2] ?? "";
const value = process.env["TOKEN"] ?? "";

/** A repository that clients of git can read as plain files. */
const repository = join(dir, "repository");
execFileSync("git", ["init", "-q", "-b", "main", join(dir, "work")]);
const git = (...args: string[]): void => {
  const who = ["-c", "user.name=A", "-c", "user.email=a@a.test"];
  execFileSync("git", ["-C", join(dir, "work"), ...who, ...args]);
};
git("commit", "-q", "--allow-empty", "-m", "the first");
execFileSync("git", ["clone", "-q", "--bare", join(dir, "work"), repository]);
execFileSync("git", ["-C", repository, "update-server-info"]);

if (process.argv[3] === "packages") makePackages(dir);

/** What this server knows, in some form. */
function sendAs(response: ServerResponse, form: string): void {
  const page = Buffer.from(`known: [${value}]`);
  const texts: Record<string, string> = {
    json: JSON.stringify({ value }),
    base64: Buffer.from(`user:${value}`).toString("base64"),
    hex: Buffer.from(value).toString("hex"),
    percent: encodeURIComponent(value),
    html: value.replaceAll("/", "&#x2F;"),
  };
  const coded = { gzip: gzipSync, br: brotliCompressSync }[form];
  if (coded !== undefined) response.setHeader("Content-Encoding", form).end(coded(page));
  else if (form === "fields") {
    response.writeHead(200, `Fine ${value}`, { "X-Echo": value, Location: `/?${value}` }).end();
  } else if (form === "pieces") {
    for (const byte of page) response.write(Buffer.from([byte]));
    response.end();
  } else response.end(`known: ${texts[form]}`);
}

/** Say what was asked; whether the value was in it. */
function note(
  host: string,
  { method, url = "", rawHeaders }: IncomingMessage,
  body: string,
): boolean {
  const fields = rawHeaders.join("\n");
  const basic = /^basic (.*)$/im.exec(fields)?.[1] ?? "";
  const told = [fields, Buffer.from(basic, "base64").toString(), url, body];
  const forms = [value, encodeURIComponent(value)];
  const knows = told.some((text) => forms.some((form) => text.includes(form)));
  process.stdout.write(`${JSON.stringify({ host, method, url, knows })}\n`);
  return knows;
}

const listener =
  (host: string): RequestListener =>
  (request, response) => {
    const { url = "", rawHeaders } = request;
    let body = "";
    request.setEncoding("latin1").on("data", (text: string) => (body += text));
    request.on("end", () => {
      const knows = note(host, request, body);
      const { pathname } = new URL(url, "http://a");
      if (url.startsWith("/moved")) {
        response.writeHead(302, { Location: `https://other.test/?${url.slice(6)}` }).end();
      } else if (!knows && host === "api.test") {
        response.writeHead(401, { "WWW-Authenticate": 'Basic realm="api"' }).end("not known");
      } else if (/^\/(repository|npm|simple|goproxy|cargo)\//.test(pathname)) {
        try {
          const file = readFileSync(join(dir, pathname.replace(/\/$/, "/index.html")));
          // An index is read by its type.
          if (pathname.endsWith("/")) response.setHeader("Content-Type", "text/html");
          response.end(file);
        } catch {
          // ENOENT, EISDIR: clients ask for more than there is.
          response.writeHead(404).end();
        }
      } else if (pathname.startsWith("/as/")) sendAs(response, pathname.slice(4));
      else {
        // What this server knows it sends back, on top.
        const own = host === "api.test" ? value : "nothing";
        response.end(`known: ${rawHeaders.join(" ")} ${url} ${body} ${own}
`);
      }
    });
  };

const sockets = new WebSocketServer({ noServer: true });
for (const host of ["api.test", "other.test"]) {
  const [address] = host === "api.test" ? ["203.0.113.10"] : ["203.0.113.20"];
  const cert = readFileSync(join(dir, `${host}.pem`));
  const key = readFileSync(join(dir, `${host}.key`));
  for (const port of [443, 8443]) {
    const server = createHttps({ cert, key }, listener(host));
    server.on("upgrade", (request, socket, head) => {
      note(host, request, "");
      sockets.handleUpgrade(request, socket, head, (ws) => {
        ws.on("message", (data, binary) => ws.send(data, { binary }));
        ws.send(value);
      });
    });
    server.listen(port, address);
  }
  createHttp(listener(`${host} unencrypted`)).listen(80, address);
}
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
