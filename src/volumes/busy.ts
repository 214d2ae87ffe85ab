/** What is being done to volumes, which keeps others from them meanwhile. */
import { VmsanError } from "../model/errors.ts";

/** In words that follow "is being". */
export type Doing = "grown" | "exported" | "made a shared one";

/** The volumes that something is done to. */
export class Busy {
  private readonly doing = new Map<string, Doing>();

  /** Whether just this is done to a volume. */
  is(name: string, doing: Doing): boolean {
    return this.doing.get(name) === doing;
  }

  /** Refuse a volume that something is done to. @param message what cannot be done @throws ERR_VOLUME_IN_USE */
  refuse(name: string, message: string): void {
    const doing = this.doing.get(name);
    if (doing === undefined) return;
    throw new VmsanError({
      code: "ERR_VOLUME_IN_USE",
      message,
      why: `It is being ${doing}.`,
      fix: "Try again when that is done.",
    });
  }

  /**
   * Begin to do something, at once.
   * @returns its end
   * @throws ERR_VOLUME_IN_USE
   */
  begin(name: string, doing: Doing, message: string): () => void {
    this.refuse(name, message);
    this.doing.set(name, doing);
    return () => this.doing.delete(name);
  }
}
