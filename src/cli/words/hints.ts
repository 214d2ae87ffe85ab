/** What to do instead of what the command line did not understand. */
import type { Command } from "commander";
import { COMMANDS, MISSING, OPTIONS } from "./habits.ts";

/** The option that a token of the command line is: without value, of a cluster the one refused. */
function optionOf(token: string): string {
  return token.startsWith("--") ? (token.split("=", 1)[0] ?? token) : token.slice(0, 2);
}

/** What to do instead, and whether that is about these words or just about the command. */
export interface Advice {
  fix: string;
  isKnown: boolean;
}

/**
 * What to do instead of what was not understood.
 * @param said commander's message
 * @param args the command line behind `vmsan`
 * @param asked the command that did not understand; its usage is the answer where nothing better is known
 */
export function hintFor(said: string, args: readonly string[], asked: Command | undefined): Advice {
  const known = knownFor(said, args, asked);
  if (known !== undefined) return { fix: known, isKnown: true };
  return {
    fix: asked === undefined ? "`vmsan --help` lists the commands." : usageOf(asked),
    isKnown: false,
  };
}

/** What the tables of habits say. */
function knownFor(
  said: string,
  args: readonly string[],
  asked: Command | undefined,
): string | undefined {
  const command = args.find((word) => !word.startsWith("-"));
  const option = /unknown option '([^']+)'/.exec(said)?.[1];
  if (option !== undefined) {
    const here = OPTIONS.filter(({ commands }) =>
      commands === undefined ? command === undefined : commands.includes(command ?? ""),
    );
    const told = (word: string): string | undefined =>
      here.find(({ words }) => words.includes(word))?.fix;
    // `-it` is one habit, whatever `-i` alone would be.
    return told(option) ?? told(optionOf(option));
  }
  const unknown = /unknown command '([^']+)'/.exec(said)?.[1];
  if (unknown !== undefined) {
    const isAtTop = asked?.parent === undefined || asked.parent === null;
    return isAtTop ? COMMANDS.find(({ words }) => words.includes(unknown))?.fix : undefined;
  }
  // The command's own argument: `vmsan network` is told of what is below it, `vmsan network rm` is not.
  const isOwn = asked === undefined || asked.name() === command;
  return said.includes("missing required argument") && isOwn ? MISSING[command ?? ""] : undefined;
}

/** How a command is used: its words, or the commands below it. */
function usageOf(asked: Command): string {
  const path: string[] = [];
  for (let at: Command | null = asked; at !== null; at = at.parent) path.unshift(at.name());
  const name = path.join(" ");
  const below = asked.commands.map((child) => child.name()).filter((child) => child !== "help");
  if (below.length > 0 && path.length > 1)
    return `\`${name}\` has ${below.join(", ")}; \`${name} --help\` says more.`;
  return path.length > 1
    ? `Usage: ${name} ${asked.usage()}; \`${name} --help\` says more.`
    : "`vmsan --help` lists the commands.";
}
