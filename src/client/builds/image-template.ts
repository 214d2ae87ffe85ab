/** Dockerfiles written as code: each call adds an instruction; what runs them is the builder alone. */
import { VmsanError } from "../../model/errors.ts";

/** Words of a command, or a line for the image's shell. */
type Command = string | readonly string[];

/** The error for what no Dockerfile can say. */
function refused(what: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_TEMPLATE",
    message: `Cannot write ${what} into a Dockerfile`,
    why,
    fix: "Put what needs it into a file of the context, and copy and run that.",
  });
}

/** A line that ends where it should: a backslash at its end would take the next instruction in. */
function line(what: string, text: string): string {
  if (/[\r\n\0]/.test(text)) throw refused(what, "It has more than one line.");
  if (/\\[ \t]*$/.test(text)) throw refused(what, "It ends with a backslash.");
  if (text.trim() === "") throw refused(what, "It is empty.");
  return text;
}

/** One word of a line: a blank or a quote would make it several, or another one. */
function word(what: string, text: string): string {
  if (/[\s"'\\$]/.test(line(what, text))) throw refused(what, "It has blanks, quotes or signs.");
  return text;
}

/** A text that the builder takes as it is, which would find variables, quotes and escapes in it. */
function literal(text: string): string {
  return text.replaceAll(/[\\"'$]/g, "\\$&");
}

/**
 * Whether a command for the shell can stand in a line, where the builder sees neither line's end nor heredoc in it,
 * and takes its beginning for neither a flag nor a list of words.
 */
function isPlain(text: string): boolean {
  return !/[\r\n]|<<|\\[ \t]*$|^\s*(?:--|\[)/.test(text);
}

/** What the shell is told, if it is anything. */
function scriptOf(what: string, text: string): string {
  if (text.includes("\0")) throw refused(what, "It has a NUL byte.");
  if (text.trim() === "") throw refused(what, "It is empty.");
  return text;
}

/** What RUN takes: words, a line, or a script that ends at the first command that fails. */
function runOf(command: Command): string {
  if (typeof command !== "string") return JSON.stringify(command);
  const script = scriptOf("a command", command);
  if (isPlain(script)) return script;
  let end = "END";
  while (script.includes(end)) end += "_";
  return `<<'${end}'\nset -e\n${script}\n${end}`;
}

/** What CMD and ENTRYPOINT take. */
function commandOf(what: string, command: Command): string {
  if (typeof command !== "string") return JSON.stringify(command);
  const script = scriptOf(what, command);
  return isPlain(script) ? script : JSON.stringify(["/bin/sh", "-ec", script]);
}

/** A value in double quotes: the builder takes variables and quotes in it as they are. */
function quoted(what: string, value: string): string {
  if (/[\r\n\0]/.test(value)) throw refused(what, "It has more than one line.");
  return `"${value.replaceAll(/[\\"$]/g, "\\$&")}"`;
}

/** A name of a variable or label. */
function nameOf(what: string, name: string): string {
  if (/^[A-Za-z0-9_][A-Za-z0-9_./-]*$/.test(name)) return name;
  throw refused(what, `${JSON.stringify(name)} is no name.`);
}

/**
 * An image to be built. Every method gives a new template, so that one can be the start of several.
 * @example Image.from("node:22").workdir("/app").copy("package.json", "./").run("npm ci")
 */
export class ImageTemplate {
  private readonly lines: readonly string[];

  private constructor(lines: readonly string[]) {
    this.lines = lines;
  }

  /** Begin with an image; `scratch` is an empty one. */
  static from(image: string, options: { platform?: string } = {}): ImageTemplate {
    const { platform } = options;
    const flag = platform === undefined ? "" : `--platform=${word("a platform", platform)} `;
    return new ImageTemplate([`FROM ${flag}${word("an image", image)}`]);
  }

  private with(instruction: string): ImageTemplate {
    return new ImageTemplate([...this.lines, instruction]);
  }

  /** Run a command: words as they are, a text by the image's shell; one of several lines up to the first command that fails. */
  run(command: Command): ImageTemplate {
    return this.with(`RUN ${runOf(command)}`);
  }

  /** Copy files of the context, or of another image; `*`, `?` and `[…]` of what is copied are patterns. */
  copy(
    from: string | readonly string[],
    to: string,
    options: { owner?: string; mode?: string; image?: string } = {},
  ): ImageTemplate {
    const flags = [
      ...(options.image === undefined ? [] : [`--from=${options.image}`]),
      ...(options.owner === undefined ? [] : [`--chown=${options.owner}`]),
      ...(options.mode === undefined ? [] : [`--chmod=${options.mode}`]),
    ].map((flag) => word("a flag", flag));
    const paths = [...(typeof from === "string" ? [from] : from), to];
    for (const path of paths)
      if (path.includes("\0")) throw refused("a path", "It has a NUL byte.");
    return this.with(["COPY", ...flags, JSON.stringify(paths.map(literal))].join(" "));
  }

  /** Set variables. */
  env(variables: Record<string, string>): ImageTemplate {
    const pairs = Object.entries(variables).map(
      ([name, value]) => `${nameOf("a variable", name)}=${quoted(name, value)}`,
    );
    return pairs.length === 0 ? this : this.with(`ENV ${pairs.join(" ")}`);
  }

  /** Set labels. */
  label(labels: Record<string, string>): ImageTemplate {
    const pairs = Object.entries(labels).map(
      ([name, value]) => `${nameOf("a label", name)}=${quoted(name, value)}`,
    );
    return pairs.length === 0 ? this : this.with(`LABEL ${pairs.join(" ")}`);
  }

  /** The working directory, of what follows and of the image's command. */
  workdir(path: string): ImageTemplate {
    return this.with(`WORKDIR ${literal(line("a directory", path))}`);
  }

  /** The user, likewise. */
  user(name: string): ImageTemplate {
    return this.with(`USER ${word("a user", name)}`);
  }

  /** Name a port that the image's command listens on. */
  expose(port: number, protocol: "tcp" | "udp" = "tcp"): ImageTemplate {
    return this.with(`EXPOSE ${port}/${protocol}`);
  }

  /** What the image runs. */
  cmd(command: Command): ImageTemplate {
    return this.with(`CMD ${commandOf("a command", command)}`);
  }

  /** What the image runs before its command's words. */
  entrypoint(command: Command): ImageTemplate {
    return this.with(`ENTRYPOINT ${commandOf("an entry point", command)}`);
  }

  /** The Dockerfile's text. */
  toDockerfile(): string {
    return `${this.lines.join("\n")}\n`;
  }
}
