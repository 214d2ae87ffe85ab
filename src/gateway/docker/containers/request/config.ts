/** A request for a container and its image, as one configuration. */
import { mergeEnv } from "../../../../client/guest/commands.ts";
import type { ImageConfig } from "../../../../model/image.ts";
import type { ContainerBody, ContainerConfig, HealthConfig } from "../../../../schema/docker.ts";
import { DockerError } from "../../errors.ts";

/** A command line that may be one word, or nothing. */
function wordsOf(words: string[] | string | null | undefined): string[] | undefined {
  if (words === null || words === undefined) return undefined;
  return typeof words === "string" ? [words] : words;
}

/** Entrypoint and command: what the request has of either, else the image's. */
function commandOf(
  body: ContainerBody,
  image: ImageConfig,
): { entrypoint: string[]; cmd: string[] } {
  const entrypoint = wordsOf(body.Entrypoint);
  const cmd = wordsOf(body.Cmd) ?? [];
  // One empty word resets the image's; an empty list says nothing.
  if (entrypoint?.length === 1 && entrypoint[0] === "") return { entrypoint: [], cmd };
  if (entrypoint !== undefined && entrypoint.length > 0) return { entrypoint, cmd };
  return { entrypoint: image.entrypoint, cmd: cmd.length > 0 ? cmd : image.cmd };
}

/** An image's health check as clients see it; undefined: it has none. */
export function imageHealth({ healthcheck }: ImageConfig): HealthConfig | undefined {
  if (healthcheck === undefined) return undefined;
  const { test, interval, timeout, startPeriod, startInterval, retries } = healthcheck;
  return {
    Test: test,
    Interval: interval,
    Timeout: timeout,
    StartPeriod: startPeriod,
    StartInterval: startInterval,
    Retries: retries,
  };
}

/** A health check: what the request leaves open is the image's. */
function healthOf(body: ContainerBody, image: ImageConfig): HealthConfig | undefined {
  const own = body.Healthcheck ?? undefined;
  const below = imageHealth(image);
  if (own === undefined || below === undefined) return own ?? below;
  return {
    Test: (own.Test ?? []).length > 0 ? own.Test : below.Test,
    Interval: own.Interval || below.Interval,
    Timeout: own.Timeout || below.Timeout,
    StartPeriod: own.StartPeriod || below.StartPeriod,
    StartInterval: own.StartInterval || below.StartInterval,
    Retries: own.Retries || below.Retries,
  };
}

/** The configuration. @throws 400 when there is nothing to run */
export function configOf(body: ContainerBody, image: ImageConfig): ContainerConfig {
  const { entrypoint, cmd } = commandOf(body, image);
  if (entrypoint.length + cmd.length === 0) throw new DockerError(400, "no command specified");
  const exposed = [...image.exposedPorts, ...Object.keys(body.ExposedPorts ?? {})];
  const bound = Object.keys(body.HostConfig?.PortBindings ?? {});
  const volumes = [...image.volumes, ...Object.keys(body.Volumes ?? {})];
  const keysOf = (names: readonly string[]): Record<string, object> =>
    Object.fromEntries(names.map((name) => [name, {}]));
  const signal = body.StopSignal ?? image.stopSignal;
  const health = healthOf(body, image);
  return {
    Hostname: body.Hostname ?? "",
    Domainname: body.Domainname ?? "",
    User: body.User || image.user,
    AttachStdin: body.AttachStdin ?? false,
    AttachStdout: body.AttachStdout ?? false,
    AttachStderr: body.AttachStderr ?? false,
    ExposedPorts: keysOf(
      [...exposed, ...bound].map((port) => (port.includes("/") ? port : `${port}/tcp`)),
    ),
    Tty: body.Tty ?? false,
    OpenStdin: body.OpenStdin ?? false,
    StdinOnce: body.StdinOnce ?? false,
    // A name alone takes the image's away, and is shown.
    Env: [
      ...mergeEnv(image.env, body.Env ?? []),
      ...(body.Env ?? []).filter((entry) => !entry.includes("=")),
    ],
    Cmd: cmd.length === 0 ? null : cmd,
    Entrypoint: entrypoint.length === 0 ? null : entrypoint,
    Image: body.Image,
    Labels: { ...image.labels, ...body.Labels },
    Volumes: volumes.length === 0 ? null : keysOf(volumes),
    WorkingDir: body.WorkingDir || image.workingDir,
    ...(signal === undefined || signal === "" ? {} : { StopSignal: signal }),
    ...(body.StopTimeout === null || body.StopTimeout === undefined
      ? {}
      : { StopTimeout: body.StopTimeout }),
    ...(health === undefined ? {} : { Healthcheck: health }),
  };
}

/** The main process's command line. */
export function argvOf({ Entrypoint, Cmd }: ContainerConfig): string[] {
  return [...(Entrypoint ?? []), ...(Cmd ?? [])];
}
