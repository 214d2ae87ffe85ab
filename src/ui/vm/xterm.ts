/** xterm.js, which is loaded when the first terminal is opened. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import type { ITheme } from "@xterm/xterm";

/** Colours by which text of every kind can be read. */
const LIGHT: ITheme = {
  background: "#fbfaf8",
  foreground: "#24221e",
  cursor: "#146356",
  cursorAccent: "#fbfaf8",
  selectionBackground: "#cfe3dd",
  black: "#24221e",
  red: "#b3261e",
  green: "#276d2b",
  yellow: "#7d5700",
  blue: "#1f58ad",
  magenta: "#86349b",
  cyan: "#0b6b74",
  white: "#6b675f",
  brightBlack: "#5d5a53",
  brightRed: "#c5362c",
  brightGreen: "#2f7d33",
  brightYellow: "#8a6100",
  brightBlue: "#2a67c4",
  brightMagenta: "#9a45af",
  brightCyan: "#0f7b85",
  brightWhite: "#3a3833",
};

const DARK: ITheme = {
  background: "#101312",
  foreground: "#dcdad5",
  cursor: "#6fc3b1",
  cursorAccent: "#101312",
  selectionBackground: "#2b4a43",
  black: "#2a2d2c",
  red: "#f0857b",
  green: "#7fc98a",
  yellow: "#dfb45f",
  blue: "#83b1f5",
  magenta: "#d49ae3",
  cyan: "#6fc8d0",
  white: "#dcdad5",
  brightBlack: "#8d8a83",
  brightRed: "#f7a29a",
  brightGreen: "#9bdba4",
  brightYellow: "#ecc883",
  brightBlue: "#a4c6f9",
  brightMagenta: "#e2b6ed",
  brightCyan: "#93d9df",
  brightWhite: "#ffffff",
};

/** A terminal that fits its place. */
export interface FittedTerminal {
  terminal: Terminal;
  fit: () => void;
  /** Light or dark. */
  paint: (dark: boolean) => void;
}

/**
 * Take text that comes without keys: of emoji pickers, of dictation. xterm.js leaves it out in the mode for screen readers, where
 * keys write into the same field.
 */
function takeInsertedText(terminal: Terminal): void {
  const { textarea } = terminal;
  // A key's text is put in while its event is handled.
  let byKey = false;
  textarea?.addEventListener("keydown", () => {
    byKey = true;
    setTimeout(() => (byKey = false));
  });
  textarea?.addEventListener("input", (event) => {
    const { inputType, isComposing, data } = event;
    if (inputType === "insertText" && !isComposing && !byKey && data !== null) terminal.input(data);
  });
}

/** Make one in an element. */
export function makeTerminal(place: HTMLElement, dark: boolean): FittedTerminal {
  const terminal = new Terminal({
    fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
    fontSize: 13,
    lineHeight: 1.2,
    cursorBlink: true,
    scrollback: 10_000,
    theme: dark ? DARK : LIGHT,
    minimumContrastRatio: 4.5,
    screenReaderMode: true,
  });
  const fitting = new FitAddon();
  terminal.loadAddon(fitting);
  terminal.open(place);
  takeInsertedText(terminal);
  const fit = (): void => {
    // A place without a size, of a page that is just being left.
    if (place.clientWidth > 0 && place.clientHeight > 0) fitting.fit();
  };
  fit();
  return { terminal, fit, paint: (now) => (terminal.options.theme = now ? DARK : LIGHT) };
}
