/** `login`, `logout`: credentials for registries, where other tools find them too. */
import type { Command } from "commander";
import { VmsanError } from "../../../model/errors.ts";
import { command, runs } from "../../command.ts";

interface LoginFlags {
  username?: string;
  passwordStdin?: boolean;
  caFile?: string;
}

/** Most bytes of a password read from standard input. */
const MAX_PASSWORD = 65_536;

/** All of standard input, without its last line end. */
async function readStdin(): Promise<string> {
  let text = "";
  process.stdin.setEncoding("utf8");
  for await (const chunk of process.stdin as AsyncIterable<string>) {
    text += chunk;
    if (text.length > MAX_PASSWORD) break;
  }
  return text.replace(/\r?\n$/, "");
}

/** One line typed on the terminal, not shown when it is a secret. */
async function ask(prompt: string, secret: boolean): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new VmsanError({
      code: "ERR_VALIDATION_FLAGS",
      message: "Cannot ask for credentials",
      why: "Standard input is no terminal.",
      fix: "Use --username NAME --password-stdin.",
    });
  }
  const { createInterface } = await import("node:readline/promises");
  const { Writable } = await import("node:stream");
  const muted = new Writable({ write: (_chunk, _encoding, done) => done() });
  process.stderr.write(prompt);
  const lines = createInterface({ input: process.stdin, output: muted, terminal: true });
  try {
    const answer = await lines.question("");
    if (!secret) process.stderr.write(answer);
    process.stderr.write("\n");
    return answer;
  } finally {
    lines.close();
  }
}

/** `login [REGISTRY]`. */
export function loginCommand(): Command {
  const target = command("login [registry]", "keep credentials for a registry")
    .option("-u, --username <name>", "user name")
    .option("--password-stdin", "read the password from standard input")
    .option("--ca-file <path>", "certificates of authorities to trust besides the system's");
  return runs<LoginFlags>(target, async (context, registry?: string) => {
    const { username, passwordStdin, caFile } = context.flags;
    const name = username ?? (await ask("Username: ", false));
    const password = passwordStdin === true ? await readStdin() : await ask("Password: ", true);
    const { images } = await context.vmsan();
    const { where } = await images.login(registry ?? "docker.io", {
      username: name,
      password,
      ...(caFile === undefined ? {} : { caFile }),
    });
    context.output.result(
      { registry: registry ?? "docker.io", where },
      `credentials kept in ${where}`,
    );
  });
}

/** `logout [REGISTRY]`. */
export function logoutCommand(): Command {
  return runs(
    command("logout [registry]", "forget the credentials for a registry"),
    async (context, registry?: string) => {
      const { images } = await context.vmsan();
      const removed = await images.logout(registry ?? "docker.io");
      context.output.result(
        { registry: registry ?? "docker.io", removed },
        removed ? "forgotten" : "there were none",
      );
    },
  );
}
