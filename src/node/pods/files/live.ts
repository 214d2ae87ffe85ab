/** The files of one pod while it runs: written anew when what they are made of changes, and before a token in them ends. */
import { isDeepStrictEqual } from "node:util";
import type { Vm } from "../../../client/vm.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import type { Pod, PodRecord } from "../../../schema/pod.ts";
import { Timers } from "../life/timers.ts";
import { containerOf } from "../spec/plan.ts";
import type { PodHost } from "../spec/plan.ts";
import type { SharedObjects } from "./objects.ts";
import { References } from "./references.ts";
import { Tokens } from "./tokens.ts";
import { volumesOf } from "./volumes.ts";
import type { PodFiles } from "./volumes.ts";
import { fillPlaces } from "./writer.ts";

/** Longest until a pod that was found running is looked at, in milliseconds: not all at once. */
const FOUND_MS = 30_000;
/** Longest until such a pod's tokens are other ones: when those end that it has is not known. */
const FOUND_TOKEN_MS = 600_000;
/** Shortest until a token is renewed, and how long after it has failed. */
const SHORTEST_MS = 10_000;
const RETRY_MS = 60_000;

/** What the files of a pod need of their node. */
export interface LiveFilesContext {
  api: ApiServer;
  host: PodHost;
  objects: SharedObjects;
}

interface LiveFilesParts {
  context: LiveFilesContext;
  /** As the API server has it now. */
  pod: () => Pod;
  /** Its VM while files may be written there. */
  guest: () => Vm | undefined;
  record: PodRecord;
  save: () => void;
  complain: (error: unknown) => void;
}

type Volumes = NonNullable<Pod["spec"]["volumes"]>;

const volumesIn = ({ spec }: Pod): Volumes => spec.volumes ?? [];

const hasToken = (pod: Pod): boolean =>
  volumesIn(pod).some(({ projected }) =>
    projected?.sources?.some((source) => source.serviceAccountToken),
  );

const hasFiles = (pod: Pod): boolean =>
  volumesIn(pod).some(
    ({ configMap, secret, downwardAPI, projected }) =>
      configMap ?? secret ?? downwardAPI ?? projected,
  );

/** Whether files of a pod say something of itself. */
const tellsOfItself = (pod: Pod): boolean =>
  volumesIn(pod).some(
    ({ downwardAPI, projected }) =>
      downwardAPI ?? projected?.sources?.some((source) => source.downwardAPI),
  );

/** Keeps the files of one pod. */
export class LiveFiles {
  /** Those that its files have. */
  readonly tokens = new Tokens();
  private readonly parts: LiveFilesParts;
  private readonly timers = new Timers();
  private work: Promise<void> = Promise.resolve();
  private queued = false;
  private failing = false;
  private over = false;

  constructor(parts: LiveFilesParts) {
    this.parts = parts;
  }

  /** All of them were written at a start. */
  wrote(files: PodFiles): void {
    if (!hasFiles(this.parts.pod())) return;
    this.parts.record.files = files.digest;
    this.follow(files);
  }

  /** It was found running: what was written there last is known by its record. */
  found(): void {
    const pod = this.parts.pod();
    if (!hasFiles(pod)) return;
    this.timers.after(Math.random() * FOUND_MS, () => this.look());
    if (hasToken(pod)) {
      this.timers.after(Math.random() * FOUND_TOKEN_MS, () => this.look(true));
    }
  }

  /** The API server has the pod otherwise now. */
  changed(before: Pod): void {
    const { metadata: was } = before;
    const pod = this.parts.pod();
    const { metadata: is } = pod;
    const same =
      isDeepStrictEqual(was.labels, is.labels) &&
      isDeepStrictEqual(was.annotations, is.annotations);
    if (!same && tellsOfItself(pod)) this.look();
  }

  /** Look whether they are as they are to be, and write them where they are not. @param anew with other tokens */
  look(anew = false): void {
    if (anew) this.tokens.clear();
    if (this.queued && !anew) return;
    this.queued = true;
    this.work = this.work.then(async () => {
      this.queued = false;
      try {
        await this.renew(anew);
        this.failing = false;
      } catch (error) {
        if (this.over) return;
        // What it is made of may have been removed: the files stay as they are until it is there again.
        if (!this.failing) this.parts.complain(error);
        this.failing = true;
        this.timers.after(RETRY_MS, () => this.look(anew));
      }
    });
  }

  /** Write them anew, with other tokens; resolves once that was tried. */
  async rewrite(): Promise<void> {
    this.look(true);
    await this.idle();
  }

  /** Resolves once nothing is under way. */
  async idle(): Promise<void> {
    await this.work;
  }

  private async renew(anew: boolean): Promise<void> {
    const { context, pod, guest, record, save } = this.parts;
    // What starts it again writes all of them.
    if (this.over || guest() === undefined || !hasFiles(pod())) return;
    const object = pod();
    const references = new References(context.api, object);
    const container = containerOf(object);
    const { renewAt } = this.tokens;
    const due = anew || (renewAt !== undefined && renewAt <= Date.now());
    const seen = await volumesOf(object, container, references, context.host);
    if (seen.digest === record.files && !due) {
      this.follow(seen);
      return;
    }
    const files = await volumesOf(object, container, references, context.host, {
      tokens: this.tokens,
    });
    const vm = guest();
    if (this.over || vm === undefined) return;
    await fillPlaces(
      vm,
      files.places.filter(({ shape }) => shape === "volume"),
    );
    this.wrote(files);
    save();
  }

  /** Hear of what they are made of, and of the time when a token ends. */
  private follow({ sources }: PodFiles): void {
    if (this.over) return;
    const { context, record, complain } = this.parts;
    const owner = { changed: () => this.look(), failed: complain };
    context.objects.use(record.uid, record.namespace, sources, owner);
    const { renewAt } = this.tokens;
    if (renewAt === undefined) return;
    this.timers.clear();
    this.timers.after(Math.max(SHORTEST_MS, renewAt - Date.now()), () => this.look());
  }

  /** Nothing is looked at any more. */
  end(): void {
    this.over = true;
    this.timers.clear();
    this.parts.context.objects.drop(this.parts.record.uid);
  }
}
