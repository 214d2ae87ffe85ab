/** What buildah is told of a build, and where it finds what belongs to it. */
import type { BuildRequest } from "../../model/api/builds.ts";
import { GUEST_DIR, GUEST_SECRETS } from "./builder.ts";

/** Where things of one build are in the guest. */
export interface Places {
  dir: string;
  secrets: string;
  context: string;
  dockerfile: string;
  ignore: string;
  iid: string;
  registries: string;
}

/** Where things of the build with this identifier are. */
export function placesOf(id: string): Places {
  const dir = `${GUEST_DIR}/${id}`;
  return {
    dir,
    secrets: `${GUEST_SECRETS}/${id}`,
    context: `${dir}/context`,
    dockerfile: `${dir}/Dockerfile`,
    ignore: `${dir}/ignore`,
    iid: `${dir}/iid`,
    registries: `${dir}/registries.conf`,
  };
}

/** buildah's words for a request. */
export function wordsOf(request: BuildRequest, places: Places): string[] {
  const { target, platform, ignore } = request;
  return [
    "buildah",
    "build",
    "--layers",
    // What a name means is for this host to say, each time; what has not changed is not sent again.
    "--pull-always",
    // What this host says of an image is final: it has tried as often as makes sense.
    "--retry=0",
    // OCI's has no HEALTHCHECK, SHELL and ONBUILD.
    "--format=docker",
    `--file=${places.dockerfile}`,
    `--iidfile=${places.iid}`,
    ...(request.noCache ? ["--no-cache"] : []),
    ...(target === undefined ? [] : [`--target=${target}`]),
    ...(platform === undefined ? [] : [`--platform=${platform}`]),
    ...(ignore === undefined ? [] : [`--ignorefile=${places.ignore}`]),
    ...request.buildArgs.map((pair) => `--build-arg=${pair}`),
    ...request.labels.map((pair) => `--label=${pair}`),
    ...(request.contexts ?? []).map(
      (pair) => `--build-context=${pair.replace("=", "=docker-image://")}`,
    ),
    ...(request.addHosts ?? []).map((host) => `--add-host=${host}`),
    ...Object.keys(request.secrets).map((id) => `--secret=id=${id},src=${places.secrets}/${id}`),
    places.context,
  ];
}
