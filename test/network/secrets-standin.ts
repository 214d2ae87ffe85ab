/**
 * A guest's stand-in with a secret, behind the real network of a VM, in namespaces of its own: programs of this host play the
 * guest's. The job names scripts, which find variables and authorities as the agent sets them. Prints JSON lines: what each gave, and
 * what the servers were asked.
 */
import { execFile } from "node:child_process";
import { appendFileSync, copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { parsePolicy } from "../../src/network/policy/parse.ts";
import { makeAuthority } from "../../src/network/secrets/authority.ts";
import { newPlaceholder } from "../../src/network/secrets/placeholder.ts";
import { secretWorld } from "./secret-world.ts";

const job = JSON.parse(process.argv[2] ?? "{}") as {
  nettool: string;
  helper: string;
  dir: string;
  packages: boolean;
  /** Scripts for a shell of this host, in order. */
  commands: [name: string, script: string][];
};
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};

const rule = {
  name: "TOKEN",
  placeholder: newPlaceholder(),
  domains: [{ scheme: "https" as const, host: "api.test", port: 443 }],
  places: ["header" as const, "query" as const, "body" as const],
};
const authority = await makeAuthority(job.helper, "vm-00000001", [rule]);
const values = { TOKEN: process.env["TOKEN"] ?? "" };
let trusted = "";
const { world, caFile, end } = await secretWorld(
  job,
  (seen) => print({ seen }),
  async () => await Promise.resolve({ rules: [rule], material: { values, authority, trusted } }),
);
trusted = readFileSync(caFile, "utf8");
const guest = await world.guest("vm-00000001", parsePolicy({}));

// What a guest has for itself: hosts, name servers, authorities.
const own = (path: string): string => join(job.dir, path.replaceAll("/", "-"));
const bundle = "/etc/ssl/certs/ca-certificates.crt";
for (const path of ["/etc/hosts", bundle]) copyFileSync(path, own(path));
appendFileSync(own(bundle), authority.certificate);
const certificate = join(job.dir, "authority.pem");
writeFileSync(certificate, authority.certificate);
writeFileSync(own("/etc/resolv.conf"), `nameserver ${guest.network.guest.gateway4}\n`);
const mounts = ["/etc/hosts", "/etc/resolv.conf", bundle]
  .map((path) => `mount --bind '${own(path)}' ${path}`)
  .join(" && ");
const env = {
  PATH: process.env["PATH"],
  HOME: job.dir,
  TOOLS: job.dir,
  NETTOOL: job.nettool,
  TOKEN: rule.placeholder,
  NODE_EXTRA_CA_CERTS: certificate,
  ...Object.fromEntries(
    [
      "SSL_CERT_FILE",
      "REQUESTS_CA_BUNDLE",
      "PIP_CERT",
      "CARGO_HTTP_CAINFO",
      "CURL_CA_BUNDLE",
      "GIT_SSL_CAINFO",
    ].map((variable) => [variable, bundle]),
  ),
};
for (const [title, text] of job.commands) {
  const inside = ["netns", "exec", guest.netns, "unshare", "--mount", "sh", "-c"];
  const script = `${mounts} && cd '${job.dir}' && ${text}`;
  const got = await promisify(execFile)("ip", [...inside, script], { env }).then(
    ({ stdout, stderr }) => stdout + stderr,
    ({ stdout, stderr }: { stdout: string; stderr: string }) => `${stdout}${stderr}`,
  );
  print({ command: title, got });
}
await end();
print({ done: true });
process.exit(0);
