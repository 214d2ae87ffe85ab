/** Requests to one repository of one server: authentication, redirects, status codes. */
import { registryErrorsSchema } from "../../schema/oci.ts";
import { Authenticator } from "./authenticate.ts";
import { findCredentials } from "./credentials.ts";
import type { Credentials } from "./credentials.ts";
import { statusFailure } from "../http/failure.ts";
import { addressOf, follow, isSameParty } from "../http/follow.ts";
import type { FollowedRequest } from "../http/follow.ts";
import type { Endpoint } from "./registries.ts";
import type { Answer, StreamedBody, Transport, TransportRequest } from "../http/transport.ts";

/** Most of an error body that is read, in bytes. */
const ERROR_LIMIT = 64 << 10;

/** What {@link Session.get} takes beyond the path. */
export interface GetOptions {
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** What {@link Session.send} takes. */
export interface SendOptions extends GetOptions {
  method: NonNullable<TransportRequest["method"]>;
  body?: StreamedBody | string;
  /** Statuses that are no failure. */
  accept: readonly number[];
}

/** What a session may be told. */
export interface SessionOptions {
  /** Instead of those in the user's files. */
  credentials?: Credentials | undefined;
  /** For the user's files; default the process's. */
  env?: NodeJS.ProcessEnv | undefined;
  /** What is to be done there; default `pull`. */
  actions?: "pull" | "pull,push";
  /** Another repository of the registry that is read from as well. */
  readFrom?: string;
}

/** Who sends blobs. */
export interface BlobServer {
  readonly endpoint: Pick<Endpoint, "host" | "bases">;
  /**
   * @param rest e.g. `blobs/sha256:…`
   * @throws PullFailure for any status but 200 and 206
   */
  get(rest: string, options?: GetOptions): Promise<Answer>;
}

/** Talks to one endpoint about one repository. */
export class Session implements BlobServer {
  readonly endpoint: Endpoint;
  readonly transport: Transport;
  readonly #auth: Authenticator;
  #base: Promise<URL> | undefined;

  /** @param options credentials, and what they are for */
  constructor(endpoint: Endpoint, transport: Transport, options: SessionOptions = {}) {
    this.endpoint = endpoint;
    this.transport = transport;
    const { credentials, env, actions = "pull", readFrom } = options;
    const lookUp = async (): Promise<Credentials | undefined> =>
      credentials ?? findCredentials(endpoint.registry, endpoint.repository, env);
    const scopes =
      endpoint.repository === "" ? [] : [`repository:${endpoint.repository}:${actions}`];
    if (readFrom !== undefined) scopes.push(`repository:${readFrom}:pull`);
    const plainAllowed = endpoint.bases.some((base) => base.protocol === "http:");
    this.#auth = new Authenticator(transport, lookUp, scopes, plainAllowed);
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

  /** The address that answers, looked for once. */
  async #baseUrl(signal?: AbortSignal): Promise<URL> {
    this.#base ??= this.#findBase(signal);
    try {
      return await this.#base;
    } catch (error) {
      this.#base = undefined;
      throw error;
    }
  }

  /**
   * Where an answer's Location leads. A registry behind a proxy that takes TLS off may not know
   * that it has some: at its own name it is asked with TLS, as before.
   * Throws PullFailure when there is none, or one without TLS elsewhere.
   */
  locationOf(answer: Answer): URL {
    const location = answer.headers["location"];
    const { url } = answer;
    if (location === undefined) throw statusFailure(answer.status, url, "It names no Location.");
    const plain = url.protocol === "https:" && location.startsWith(`http://${url.hostname}`);
    return addressOf(plain ? location.replace("http:", "https:") : location, url);
  }

  /**
   * GET something of the repository. The caller consumes the body.
   * Throws PullFailure for any status but 200 and 206.
   */
  async get(rest: string, options: GetOptions = {}): Promise<Answer> {
    return this.send(rest, { ...options, method: "GET", accept: [200, 206] });
  }

  /**
   * Ask or tell the repository something. The caller consumes the answer's body.
   * @param target a path in the repository, or an address that an answer gave
   * Throws PullFailure for any status that is not accepted.
   */
  async send(target: string | URL, options: SendOptions): Promise<Answer> {
    const { signal, method, accept } = options;
    const base = await this.#baseUrl(signal);
    const address = typeof target === "string" ? new URL(this.#path(target), base) : target;
    const request: FollowedRequest = {
      ...(method === "GET" ? {} : { method }),
      ...(options.headers === undefined ? {} : { headers: options.headers }),
      ...(options.body === undefined ? {} : { body: options.body }),
      ...(signal === undefined ? {} : { signal }),
    };
    // A token may have expired: once more with a new one, and not a third time.
    for (let refused = 0; ; refused += 1) {
      const { header, generation } = await this.#auth.authorization();
      // An address that an answer gave may be another server's, which has its own proof in it.
      const authorization = isSameParty(base, address) ? header : undefined;
      const answer = await follow(this.transport, address, { ...request, authorization });
      const { status, headers, url } = answer;
      if (accept.includes(status)) return answer;
      const said = await readError(answer, signal);
      const challenge = headers["www-authenticate"];
      const asks = status === 401 && isSameParty(base, url) && challenge !== undefined;
      if (asks && refused < 2 && (await this.#auth.answer(challenge, generation, signal))) continue;
      const write = method !== "GET" && method !== "HEAD";
      throw statusFailure(status, url, said, headers["retry-after"], write);
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
