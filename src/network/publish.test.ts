/** Published ports of a guest that a server of these tests stands for. */
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Server, Socket } from "node:net";
import { text } from "node:stream/consumers";
import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import { freePort } from "../../test/fixtures/ports.ts";
import { publishAll } from "./publish.ts";
import type { GuestSide } from "./publish.ts";

const open: (() => unknown)[] = [];
afterEach(() => open.splice(0).forEach((close) => close()));

/** A guest whose program listens once it is told to. */
function guest(): { side: GuestSide; listen: () => void; attempts: () => number } {
  let attempts = 0;
  let server: Server | undefined;
  const side: GuestSide = {
    address: "127.0.0.1",
    arrival: async () => await Promise.resolve(Date.now() - 1000),
    connect: async () => {
      attempts += 1;
      if (server === undefined) throw new Error("ECONNREFUSED");
      const socket = connect({ port: (server.address() as AddressInfo).port, allowHalfOpen: true });
      await once(socket, "connect");
      return socket;
    },
    udp: async () => await Promise.reject(new Error("no datagrams")),
  };
  return {
    side,
    attempts: () => attempts,
    listen: () => {
      server = createServer((socket) => socket.pipe(socket)).listen(0, "127.0.0.1");
      open.push(() => server?.close());
    },
  };
}

async function publish(side: GuestSide): Promise<() => Socket> {
  const hostPort = await freePort();
  const port = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort, guestPort: 80 } as const;
  const listener = await publishAll([port], side);
  open.push(() => listener.close());
  return () => connect({ host: "127.0.0.1", port: hostPort, allowHalfOpen: true });
}

test("a client that comes before the guest's program listens is let in once it does", async () => {
  const { side, listen, attempts } = guest();
  const dial = await publish(side);
  const early = dial();
  early.end("early");
  await expect.poll(attempts, { timeout: 60_000 }).toBeGreaterThan(2);
  listen();
  expect(await text(early)).toBe("early");
});

test("once somebody was let in, a program that is gone is a closed port at once", async () => {
  const { side, listen, attempts } = guest();
  const dial = await publish(side);
  listen();
  const first = dial();
  first.end("first");
  expect(await text(first)).toBe("first");
  let refused = 0;
  side.connect = async () => {
    refused += 1;
    return await Promise.reject(new Error("ECONNREFUSED"));
  };
  await expect(text(dial())).rejects.toMatchObject({ code: "ECONNRESET" });
  expect([attempts(), refused]).toEqual([1, 1]);
});

test("no more than a few wait", async () => {
  const { side, listen } = guest();
  const dial = await publish(side);
  let refused = 0;
  const clients = Array.from({ length: 40 }, async () => {
    const socket = dial();
    socket.end("x");
    return await text(socket).catch((error: NodeJS.ErrnoException) => {
      refused += 1;
      return error.code;
    });
  });
  // Those that are told at once that nobody is there.
  await expect.poll(() => refused, { timeout: 60_000 }).toBe(8);
  listen();
  expect((await Promise.all(clients)).filter((one) => one === "x")).toHaveLength(32);
});

test("who was refused while another was let in tries once more", async () => {
  const { side, listen } = guest();
  listen();
  const enter = side.connect.bind(side);
  const early = Promise.withResolvers<Socket>();
  let attempts = 0;
  side.connect = async (port) => {
    attempts += 1;
    return attempts === 1 ? await early.promise : await enter(port);
  };
  const dial = await publish(side);
  const first = dial();
  first.end("first");
  await expect.poll(() => attempts, { timeout: 60_000 }).toBe(1);
  const second = dial();
  second.end("second");
  expect(await text(second)).toBe("second");
  early.reject(new Error("ECONNREFUSED"));
  expect(await text(first)).toBe("first");
});

test.each([
  ["boots, however long it has been doing so,", undefined, true],
  ["came up a minute ago", 61_000, false],
])("a client of a guest that %s waits: %s ms", async (_, upMs, waits) => {
  const { side, listen, attempts } = guest();
  const now = Date.now();
  // From before the port was published until after: the guest's time counts, not the port's.
  side.arrival = async () => await Promise.resolve(upMs === undefined ? upMs : now - upMs);
  vi.useFakeTimers({ toFake: ["Date"], now: now - 600_000 });
  onTestFinished(() => void vi.useRealTimers());
  const dial = await publish(side);
  vi.setSystemTime(now);
  const early = dial();
  early.end("early");
  if (waits) {
    await expect.poll(attempts, { timeout: 60_000 }).toBeGreaterThan(2);
    listen();
    expect(await text(early)).toBe("early");
  } else {
    await expect(text(early)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(attempts()).toBeLessThan(3);
  }
});
