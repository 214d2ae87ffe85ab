/** Image configurations (config.md): parsed, and what of them decides how a command runs. */
import type { Digest, ImageConfig, Platform } from "../../model/image.ts";
import { configSchema } from "../../schema/oci.ts";
import type { ConfigDocument } from "../../schema/oci.ts";
import { imageError } from "../errors.ts";
import { parseJson, validate } from "./documents.ts";
import { absoluteInImage, entrypointOf, environmentOf, volumesOf } from "./odd-values.ts";
import { normalizePlatform } from "./platform.ts";

/** Most bytes of what every VM says of its image: all VMs of a host are listed in one reply. */
const SAID_LIMIT = 1 << 20;

/** Parse a configuration and check that it fits the manifest. Throws ERR_IMAGE_CONFIG. */
export function parseConfig(bytes: Uint8Array, layers: number, what: string): ConfigDocument {
  const code = "ERR_IMAGE_CONFIG";
  const value = parseJson(bytes, code, `configuration of ${what}`);
  const config = validate(configSchema, value, code, `configuration of ${what}`);
  const count = diffIdsOf(config).length;
  if (count !== layers) {
    throw imageError(
      code,
      `Cannot use the configuration of ${what}`,
      `It lists ${count} layers, the manifest ${layers}.`,
      "Build or push the image again with a current tool.",
    );
  }
  const size = Buffer.byteLength(JSON.stringify(toImageConfig(config)));
  if (size > SAID_LIMIT) {
    throw imageError(
      code,
      `Cannot use the configuration of ${what}`,
      `Its environment, command and labels have ${size} bytes; at most ${SAID_LIMIT} are kept of each VM.`,
      "Keep what is large in files of the image.",
    );
  }
  return config;
}

/** The digests of the uncompressed layers, bottom to top. */
export function diffIdsOf(config: ConfigDocument): Digest[] {
  return config.rootfs?.diff_ids ?? [];
}

/** What of a configuration decides how a command runs. */
export function toImageConfig(document: ConfigDocument): ImageConfig {
  const { config } = document;
  return {
    env: environmentOf(config?.Env ?? []),
    entrypoint: entrypointOf(config?.Entrypoint ?? []),
    cmd: config?.Cmd ?? [],
    workingDir: absoluteInImage(config?.WorkingDir ?? ""),
    user: config?.User ?? "",
    labels: config?.Labels ?? {},
    exposedPorts: config?.ExposedPorts ?? [],
    volumes: volumesOf(config?.Volumes ?? []),
    ...(config?.StopSignal === undefined || config.StopSignal === ""
      ? {}
      : { stopSignal: config.StopSignal }),
    ...healthcheckOf(config?.Healthcheck),
  };
}

/** A health check in the nouns of model/; nothing where there is none. */
function healthcheckOf(
  check: NonNullable<ConfigDocument["config"]>["Healthcheck"],
): Pick<ImageConfig, "healthcheck"> {
  if (check === undefined) return {};
  const given = {
    interval: check.Interval,
    timeout: check.Timeout,
    startPeriod: check.StartPeriod,
    startInterval: check.StartInterval,
    retries: check.Retries,
  };
  const set = Object.entries(given).filter(([, value]) => value !== undefined && value > 0);
  if (set.length === 0 && (check.Test ?? []).length === 0) return {};
  return { healthcheck: { test: check.Test ?? [], ...Object.fromEntries(set) } };
}

/** The platform that a configuration names; what it leaves out is empty. */
export function platformOf(config: ConfigDocument): Platform {
  const { os = "", architecture = "", variant } = config;
  return normalizePlatform({ os, architecture, ...(variant === undefined ? {} : { variant }) });
}
