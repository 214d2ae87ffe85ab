/** One task at a time, for many who ask and none of whom is to be kept from it by the others. */

interface Waiting {
  begin: () => void;
  refuse: () => void;
}

/** A line for each who asks; the lines have their turns. */
export class FairQueue {
  private readonly max: number;
  /** In the order of their turns. */
  private readonly lines = new Map<string, Waiting[]>();
  private count = 0;
  private busy = false;

  /** @param max most tasks that wait; who has more of them than another makes room */
  constructor(max: number) {
    this.max = max;
  }

  /** Run a task when it is its turn. @param refusal what is thrown where there is no room */
  async run<T>(who: string, task: () => Promise<T>, refusal: () => Error): Promise<T> {
    await new Promise<void>((begin, reject) => {
      const refuse = (): void => reject(refusal());
      const line = this.lines.get(who) ?? [];
      if (this.count >= this.max && !this.makeRoom(line.length)) {
        refuse();
        return;
      }
      line.push({ begin, refuse });
      this.lines.set(who, line);
      this.count += 1;
      this.next();
    });
    try {
      return await task();
    } finally {
      this.busy = false;
      this.next();
    }
  }

  /** Refuse the last one of a line that stays longer than one of this length that grows. */
  private makeRoom(length: number): boolean {
    let longest: Waiting[] = [];
    for (const line of this.lines.values()) if (line.length > longest.length) longest = line;
    if (longest.length <= length + 1) return false;
    longest.pop()?.refuse();
    this.count -= 1;
    return true;
  }

  private next(): void {
    if (this.busy) return;
    for (const [who, line] of this.lines) {
      this.lines.delete(who);
      const first = line.shift();
      if (line.length > 0) this.lines.set(who, line);
      if (first === undefined) continue;
      this.count -= 1;
      this.busy = true;
      first.begin();
      return;
    }
  }
}
