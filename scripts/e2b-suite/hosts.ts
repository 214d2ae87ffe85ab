/** `https://PORT-ID.sandbox.localhost`, for tests that go to sandboxes' hosts: a certificate and names of its own. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

/** The domain of sandboxes. */
export const DOMAIN = "sandbox.localhost";

const run = promisify(execFile);

/** Programs of tests take names below {@link DOMAIN} for this machine, and its certificate for good. */
export interface LocalHosts {
  tls: { cert: string; key: string };
  /** Of the tests' processes. */
  env: Record<string, string>;
}

/** @param scratch a directory for the files */
export async function localHosts(scratch: string): Promise<LocalHosts> {
  const cert = join(scratch, "cert.pem");
  const key = join(scratch, "key.pem");
  const kind = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
  const names = ["-subj", `/CN=${DOMAIN}`, "-addext", `subjectAltName=DNS:*.${DOMAIN}`];
  await run("openssl", [...kind.split(" "), ...names, "-keyout", key, "-out", cert]);
  const hook = join(scratch, "names.cjs");
  await writeFile(
    hook,
    `const dns = require("node:dns");
const { lookup } = dns;
dns.lookup = (name, ...rest) => lookup(String(name).endsWith(".${DOMAIN}") ? "127.0.0.1" : name, ...rest);
`,
  );
  await writeFile(
    join(scratch, "sitecustomize.py"),
    `import socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **options):
    name = host.decode() if isinstance(host, bytes) else host
    return real("127.0.0.1" if name and name.endswith(".${DOMAIN}") else host, *rest, **options)
socket.getaddrinfo = getaddrinfo
`,
  );
  return {
    tls: { cert, key },
    env: {
      NODE_OPTIONS: `--require=${hook}`,
      NODE_EXTRA_CA_CERTS: cert,
      PYTHONPATH: scratch,
      SSL_CERT_FILE: cert,
    },
  };
}
