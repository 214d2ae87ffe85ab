/** Docker's ways of writing short options and of placing options, on top of commander's. */
import { Command } from "commander";
import type { Option, ParseOptionsResult } from "commander";

/**
 * A command that also takes `-e=A=1` for `-e A=1`, as programs in Go do, and, where
 * {@link optionsBehind} says so, options behind its first argument.
 */
export class OptionsFirst extends Command {
  private behind = false;
  private passes = false;
  private separated = false;

  /**
   * What follows the first argument may begin with options of this command: those up to the first
   * word that is none are taken (`exec VM --sudo CMD`). The rest is passed through.
   */
  optionsBehind(): this {
    this.behind = true;
    return this.passThroughOptions();
  }

  /** Commander's own, remembered. */
  override passThroughOptions(passes = true): this {
    this.passes = passes;
    return super.passThroughOptions(passes);
  }

  /** Whether its first argument stands behind `--`, which commander takes away. */
  get isSeparated(): boolean {
    return this.separated;
  }

  /** Commander's own, on words it understands. */
  override parseOptions(args: string[]): ParseOptionsResult {
    const first = super.parseOptions(this.withoutShortEquals(args));
    this.separated = args.at(-first.operands.length - 1) === "--";
    const [vm, ...rest] = first.operands;
    if (!this.behind || vm === undefined || first.unknown.length > 0) return first;
    const second = super.parseOptions(this.withoutShortEquals(rest));
    return { operands: [vm, ...second.operands], unknown: second.unknown };
  }

  /** `-e=A=1` as `-e A=1`, in the words that commander will take for options. */
  private withoutShortEquals(args: readonly string[]): string[] {
    const words: string[] = [];
    for (let i = 0; i < args.length; i += 1) {
      const word = args[i] ?? "";
      const isOption = word.length > 1 && word.startsWith("-");
      if (word === "--" || (!isOption && this.passes)) return [...words, ...args.slice(i)];
      const { replaced, takesNext } = isOption
        ? this.readOption(word, args[i + 1])
        : { replaced: [word], takesNext: false };
      words.push(...replaced);
      if (takesNext && i + 1 < args.length) words.push(args[(i += 1)] ?? "");
    }
    return words;
  }

  /** One word of options: what to write instead, and whether the next word is a value of its. */
  private readOption(
    word: string,
    next: string | undefined,
  ): { replaced: string[]; takesNext: boolean } {
    const takesNext = (option: Option | undefined): boolean =>
      option?.required === true ||
      (option?.optional === true && next !== undefined && !next.startsWith("-"));
    if (word.startsWith("--")) {
      return { replaced: [word], takesNext: takesNext(this.known(word)) };
    }
    for (let at = 1; at < word.length; at += 1) {
      const option = this.known(`-${word[at]}`);
      if (option === undefined) break;
      if (!option.required) continue;
      if (at + 1 === word.length) return { replaced: [word], takesNext: true };
      if (word[at + 1] !== "=") break;
      return { replaced: [word.slice(0, at + 1), word.slice(at + 2)], takesNext: false };
    }
    return { replaced: [word], takesNext: false };
  }

  private known(flag: string): Option | undefined {
    return this.options.find(({ short, long }) => flag === short || flag === long);
  }
}
