/**
 * Instructions of a Dockerfile over an image's configuration, as `docker commit --change` takes them:
 * CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
 */
import { VmsanError } from "../model/errors.ts";

/** The part of a configuration document that is about running (config.md), as it is stored. */
export type RunConfig = Record<string, unknown>;

/** The error for an instruction that cannot be used. */
function badInstruction(text: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: `Cannot use the change ${JSON.stringify(text)}`,
    why,
    fix: "Use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR, e.g. --change 'CMD [\"app\"]'.",
  });
}

/** A JSON list of texts; undefined when it is none. */
function listOf(rest: string): string[] | undefined {
  if (!rest.startsWith("[")) return undefined;
  try {
    const value: unknown = JSON.parse(rest);
    if (Array.isArray(value) && value.every((word) => typeof word === "string")) return value;
  } catch {
    // No JSON: Docker takes it as a shell's command then.
  }
  return undefined;
}

/** `KEY=VALUE` words with quotes and backslashes, or `KEY rest of the line`. */
function pairsOf(text: string, rest: string): [string, string][] {
  const old = /^([^\s=]+)\s+(.*)$/s.exec(rest);
  if (old !== null) return [[old[1] ?? "", old[2] ?? ""]];
  const pairs: [string, string][] = [];
  const word = /\s*((?:\\.|"(?:\\.|[^"\\])*"|'[^']*'|[^\s"'\\])+)/gsy;
  let at = 0;
  for (let match = word.exec(rest); match !== null; match = word.exec(rest)) {
    at = word.lastIndex;
    const plain = (match[1] ?? "").replace(
      /\\(.)|"((?:\\.|[^"\\])*)"|'([^']*)'/gs,
      (_all, escaped?: string, double?: string, single?: string) =>
        escaped ?? double?.replace(/\\(["\\$])/g, "$1") ?? single ?? "",
    );
    const equals = plain.indexOf("=");
    if (equals < 1) throw badInstruction(text, `${JSON.stringify(plain)} is not KEY=VALUE.`);
    pairs.push([plain.slice(0, equals), plain.slice(equals + 1)]);
  }
  if (pairs.length === 0 || rest.slice(at).trim() !== "") {
    throw badInstruction(text, "It is not KEY=VALUE; perhaps a quote is not closed.");
  }
  return pairs;
}

/** A map of the configuration, to be changed. */
function mapOf(config: RunConfig, key: string): Record<string, unknown> {
  const before = config[key];
  const map: Record<string, unknown> =
    typeof before === "object" && before !== null && !Array.isArray(before) ? { ...before } : {};
  config[key] = map;
  return map;
}

const NANOSECONDS: Record<string, number> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** A time as Go writes it (`1m30s`), in nanoseconds; undefined when it is none. */
function nanosecondsOf(text: string): number | undefined {
  if (!/^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let sum = 0;
  for (const [, count, unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)([a-zµ]+)/g)) {
    sum += Number(count) * (NANOSECONDS[unit] ?? 0);
  }
  return Math.round(sum);
}

/** Options of HEALTHCHECK, by the names that a configuration has for them. */
const HEALTH_TIMES: Record<string, string> = {
  interval: "Interval",
  timeout: "Timeout",
  "start-period": "StartPeriod",
  "start-interval": "StartInterval",
};

/** `NONE`, or `[--interval=…] CMD …`. */
function healthOf(text: string, rest: string): Record<string, unknown> {
  if (/^none$/i.test(rest)) return { Test: ["NONE"] };
  const health: Record<string, unknown> = {};
  let left = rest;
  for (let match; (match = /^--([a-z-]+)=(\S+)\s+(.*)$/s.exec(left)) !== null;) {
    const [, option = "", value = "", behind = ""] = match;
    const key = HEALTH_TIMES[option];
    const number = key === undefined ? Number(value) : nanosecondsOf(value);
    const known = key !== undefined || option === "retries";
    if (!known || number === undefined || !Number.isSafeInteger(number) || number < 0) {
      throw badInstruction(text, `${JSON.stringify(`--${option}=${value}`)} is no option of it.`);
    }
    health[key ?? "Retries"] = number;
    left = behind;
  }
  const command = /^cmd\s+(.*)$/is.exec(left)?.[1];
  if (command === undefined)
    throw badInstruction(text, "It is neither NONE nor CMD with a command.");
  const words = listOf(command);
  health["Test"] = words === undefined ? ["CMD-SHELL", command] : ["CMD", ...words];
  return health;
}

/** Instructions that stand behind no ONBUILD. */
const NOT_LATER = /^(?:onbuild|from|maintainer)\b/i;

/** Apply one instruction to a configuration. @throws ERR_VALIDATION_FLAGS */
function apply(config: RunConfig, text: string): void {
  const match = /^\s*([A-Za-z]+)\s+(.*\S)\s*$/s.exec(text);
  const [, word = "", rest = ""] = match ?? [];
  switch (word.toUpperCase()) {
    case "CMD":
      config["Cmd"] = listOf(rest) ?? ["/bin/sh", "-c", rest];
      break;
    case "ENTRYPOINT":
      config["Entrypoint"] = listOf(rest) ?? ["/bin/sh", "-c", rest];
      break;
    case "ENV": {
      const before = Array.isArray(config["Env"]) ? config["Env"].map(String) : [];
      const pairs = pairsOf(text, rest);
      const names = new Set(pairs.map(([name]) => name));
      config["Env"] = [
        ...before.filter((pair) => !names.has(pair.split("=", 1)[0] ?? "")),
        ...pairs.map(([name, value]) => `${name}=${value}`),
      ];
      break;
    }
    case "LABEL":
      Object.assign(mapOf(config, "Labels"), Object.fromEntries(pairsOf(text, rest)));
      break;
    case "EXPOSE": {
      const ports = mapOf(config, "ExposedPorts");
      for (const port of rest.split(/\s+/)) {
        if (!/^\d{1,5}(-\d{1,5})?(\/(tcp|udp|sctp))?$/.test(port)) {
          throw badInstruction(text, `${JSON.stringify(port)} is no port.`);
        }
        ports[port.includes("/") ? port : `${port}/tcp`] = {};
      }
      break;
    }
    case "VOLUME": {
      const volumes = mapOf(config, "Volumes");
      for (const path of listOf(rest) ?? rest.split(/\s+/)) volumes[path] = {};
      break;
    }
    case "USER":
      config["User"] = rest;
      break;
    case "WORKDIR": {
      const before = typeof config["WorkingDir"] === "string" ? config["WorkingDir"] : "";
      config["WorkingDir"] = rest.startsWith("/") ? rest : `${before.replace(/\/$/, "")}/${rest}`;
      break;
    }
    case "STOPSIGNAL":
      config["StopSignal"] = rest;
      break;
    case "HEALTHCHECK":
      config["Healthcheck"] = healthOf(text, rest);
      break;
    case "ONBUILD": {
      if (NOT_LATER.test(rest)) throw badInstruction(text, "It does not stand behind ONBUILD.");
      const before = Array.isArray(config["OnBuild"]) ? config["OnBuild"].map(String) : [];
      config["OnBuild"] = [...before, rest];
      break;
    }
    default:
      throw badInstruction(text, "It is none of the instructions that change a configuration.");
  }
}

/** A configuration with instructions applied, in order. @throws ERR_VALIDATION_FLAGS */
export function withInstructions(config: RunConfig, instructions: readonly string[]): RunConfig {
  const changed = { ...config };
  for (const text of instructions) apply(changed, text);
  return changed;
}
