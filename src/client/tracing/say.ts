/** Words about traces, which must not be in the way of the work itself. */

/** What was said already. */
const said = new Set<string>();

/** What Node.js says of an answer by gRPC. */
const NO_HTTP1 = /^Parse Error: Expected HTTP/;

/** An error that OpenTelemetry's SDK has made text of, with its stack, as a message. */
function plain(text: string): string {
  try {
    const { message } = JSON.parse(text) as { message?: unknown };
    return typeof message === "string" ? message : text;
  } catch {
    // A message.
    return text;
  }
}

/** Tell the user of what is in the way of traces, once and in one line. */
export function say(text: string): void {
  const why = plain(text);
  const hint = NO_HTTP1.test(why) ? " (at its port for HTTP, 4318, the collector takes them)" : "";
  const message = why.slice(0, 300).replaceAll("\n", " ") + hint;
  if (said.has(message)) return;
  said.add(message);
  process.stderr.write(`vmsan: traces: ${message}\n`);
}
