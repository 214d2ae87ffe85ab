/** Requests to one repository of one server: authentication, redirects, status codes. */
import { registryErrorsSchema } from "../../schema/oci.ts";
import { Authenticator } from "./authenticate.ts";
import { findCredentials } from "./credentials.ts";
import type { Credentials } from "./credentials.ts";
import { statusFailure } from "../http/failure.ts";
import { follow, isSameParty } from "../http/follow.ts";
import type { Endpoint } from "./registries.ts";
import type { Answer, Transport } from "../http/transport.ts";

/** Most of an error body that is read, in bytes. */
const ERROR_LIMIT = 64 << 10;

/** What {@link Session.get} takes beyond the path. */
export interface GetOptions {
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Talks to one endpoint about one repository. */
export class Session {
  readonly endpoint: Endpoint;
  readonly transport: Transport;
  readonly #auth: Authenticator;
  #base: Promise<URL> | undefined;

  /** @param credentials instead of those in the user's files */
  constructor(
    endpoint: Endpoint,
    transport: Transport,
    credentials?: Credentials,
    env?: NodeJS.ProcessEnv,
  ) {
    this.endpoint = endpoint;
    this.transport = transport;
    const lookUp = async (): Promise<Credentials | undefined> =>
      credentials ?? findCredentials(endpoint.registry, endpoint.repository, env);
    const scope = endpoint.repository === "" ? "" : `repository:${endpoint.repository}:pull`;
    const plainAllowed = endpoint.bases.some((base) => base.protocol === "http:");
    this.#auth = new Authenticator(transport, lookUp, scope, plainAllowed);
  }

  /**
   * The address that answers. Only where http is allowed is there a choice: http is used if
   * what answers does not speak TLS. A certificate nobody vouches for is still TLS.
   */
  async #findBase(signal?: AbortSignal): Promise<URL> {
    const [first, second] = this.endpoint.bases;
    if (first === undefined) throw new TypeError("An endpoint without an address");
    if (second === undefined) return first;
    return (await this.transport.speaksTls(first, signal)) ? first : second;
  }

  /** Path of something in the repository, e.g. `blobs/sha256:…`; empty for `/v2/` itself. */
  #path(rest: string): string {
    return rest === "" ? "/v2/" : `/v2/${this.endpoint.repository}/${rest}`;
  }

  /**
   * GET something of the repository. The caller consumes the body.
   * Throws PullFailure for any status but 200 and 206.
   */
  async get(rest: string, options: GetOptions = {}): Promise<Answer> {
    const { signal } = options;
    this.#base ??= this.#findBase(signal);
    let base: URL;
    try {
      base = await this.#base;
    } catch (error) {
      this.#base = undefined;
      throw error;
    }
    // A token may have expired: once more with a new one, and not a third time.
    for (let refused = 0; ; refused += 1) {
      const { header, generation } = await this.#auth.authorization();
      const address = new URL(this.#path(rest), base);
      const answer = await follow(this.transport, address, { ...options, authorization: header });
      const { status, headers, url } = answer;
      if (status === 200 || status === 206) return answer;
      const said = await readError(answer, signal);
      const challenge = headers["www-authenticate"];
      const asks = status === 401 && isSameParty(base, url) && challenge !== undefined;
      if (asks && refused < 2 && (await this.#auth.answer(challenge, generation, signal))) continue;
      throw statusFailure(status, url, said, headers["retry-after"]);
    }
  }
}

/** The registry's own words about an error, bounded; empty when it has none. */
async function readError(answer: Answer, signal?: AbortSignal): Promise<string> {
  try {
    const bytes = await answer.read(ERROR_LIMIT, signal);
    const value: unknown = JSON.parse(bytes?.toString("utf8") ?? "");
    const { errors } = registryErrorsSchema.parse(value);
    const words = errors.map((error) => error.message ?? error.code ?? "").join("; ");
    return words.replace(/[^\x20-\x7e]/g, " ").slice(0, 300);
  } catch {
    // Whatever is wrong with an error's body, the status says enough. Aborting shows now.
    signal?.throwIfAborted();
    return "";
  }
}
