/**
 * Servers that real guests' secrets are for, on the internet of a world: `api.test` asks for the value
 * as Basic credentials, a bearer token or in the query, and gives a page, a package or a repository; it
 * sends back what it was sent. Argument: a directory with NAME.pem and NAME.key for each server; the
 * value is TOKEN in the environment. Prints what it is asked, one JSON object a line.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import { join } from "node:path";

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

const listener =
  (host: string): RequestListener =>
  (request, response) => {
    const { method, url = "", headers, rawHeaders } = request;
    let body = "";
    request.setEncoding("latin1").on("data", (text: string) => (body += text));
    request.on("end", () => {
      const [, credentials = ""] = (headers.authorization ?? "").split(" ");
      const basic = Buffer.from(credentials, "base64").toString();
      const sent = decodeURIComponent(url + body);
      const told = [credentials, basic, sent, headers["x-key"]?.toString()];
      const knows = told.some((text) => text?.includes(value) === true);
      process.stdout.write(`${JSON.stringify({ host, method, url, knows })}\n`);
      if (url.startsWith("/moved")) {
        response.writeHead(302, { Location: `https://other.test/?${url.slice(6)}` }).end();
      } else if (!knows && host === "api.test") {
        response.writeHead(401, { "WWW-Authenticate": 'Basic realm="api"' }).end(`not ${value}`);
      } else if (url.startsWith("/repository/")) {
        const path = new URL(url, "http://a").pathname;
        try {
          response.end(readFileSync(join(dir, path)));
        } catch {
          // ENOENT: clients of git ask for more than there is.
          response.writeHead(404).end();
        }
      } else {
        // What this server knows it sends back, on top.
        const own = host === "api.test" ? value : "nothing";
        response.end(`known: ${rawHeaders.join(" ")} ${url} ${body} ${own}
`);
      }
    });
  };

for (const host of ["api.test", "other.test"]) {
  const [address] = host === "api.test" ? ["203.0.113.10"] : ["203.0.113.20"];
  const cert = readFileSync(join(dir, `${host}.pem`));
  const key = readFileSync(join(dir, `${host}.key`));
  createHttps({ cert, key }, listener(host)).listen(443, address);
  createHttp(listener(`${host} unencrypted`)).listen(80, address);
}
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
