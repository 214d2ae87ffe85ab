/** What clients are told of a sandbox that is gone. */
import type { ServerResponse } from "node:http";

/** A sandbox that does not run: clients take 502, and its body, as its end. */
export class DeadSandbox extends Error {
  private readonly id: string;

  constructor(id: string) {
    super("The sandbox was not found");
    this.id = id;
  }

  /** Answer a request with it. */
  send(response: ServerResponse): void {
    response.writeHead(502, { "content-type": "application/json" });
    response.end(
      JSON.stringify({ sandboxId: this.id.slice(0, 80), message: this.message, code: 502 }),
    );
  }
}
