/** Certificates of a cluster for tests, by OpenSSL. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A certificate and its key, with their files. */
export interface Issued {
  cert: string;
  key: string;
  certFile: string;
  keyFile: string;
}

const CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: "pipe" });
}

/** An authority with a directory of its own. */
export class Authority {
  readonly dir: string;
  readonly cert: string;
  readonly certFile: string;
  readonly keyFile: string;

  /** @param dir made for it */
  constructor(dir: string) {
    this.dir = dir;
    mkdirSync(dir, { recursive: true });
    this.certFile = join(dir, "ca.crt");
    this.keyFile = join(dir, "ca.key");
    const subject = ["-days", "2", "-subj", "/CN=test cluster"];
    openssl("req", "-x509", ...CURVE, ...subject, "-keyout", this.keyFile, "-out", this.certFile);
    this.cert = readFileSync(this.certFile, "utf8");
  }

  /**
   * A certificate.
   * @param name of its files
   * @param subject e.g. `/O=system:masters/CN=admin`
   * @param hosts `IP:127.0.0.1`, `DNS:localhost`; none: a client's
   */
  issue(name: string, subject: string, hosts: readonly string[] = []): Issued {
    const file = (end: string): string => join(this.dir, `${name}.${end}`);
    openssl("req", ...CURVE, "-subj", subject, "-keyout", file("key"), "-out", file("csr"));
    const usage = hosts.length === 0 ? "clientAuth" : "serverAuth,clientAuth";
    const names = hosts.length === 0 ? "" : `subjectAltName=${hosts.join(",")}\n`;
    writeFileSync(file("ext"), `extendedKeyUsage=${usage}\n${names}`);
    const signed = ["-CA", this.certFile, "-CAkey", this.keyFile, "-CAcreateserial"];
    const made = ["-days", "2", "-extfile", file("ext"), "-out", file("crt")];
    openssl("x509", "-req", "-in", file("csr"), ...signed, ...made);
    return {
      cert: readFileSync(file("crt"), "utf8"),
      key: readFileSync(file("key"), "utf8"),
      certFile: file("crt"),
      keyFile: file("key"),
    };
  }
}
