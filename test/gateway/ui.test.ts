/** The dashboard's own code as far as it needs no browser: streams over WebSockets, the form of a new VM. */
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join, resolve } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { remoteCreateRequest } from "../../src/gateway/native/bodies.ts";
import { FrameType } from "../../src/model/frames.ts";
import {
  FrameReader,
  encodeAck,
  encodeFrame,
  encodeInput,
  encodeJson,
  encodeResize,
  encodeSignal,
} from "../../src/ui/api/frames.ts";
import { GuestSocket, newStreamId } from "../../src/ui/api/stream.ts";
import type { StreamEnd, StreamWish } from "../../src/ui/api/stream.ts";
import { GROUPS, firstWishes, requestOf } from "../../src/ui/pages/create-fields.ts";
import { bytes, duration, plain } from "../../src/ui/state/format.ts";
import { fakeDaemon } from "../exec-cases/fake-daemon.ts";
import type { FakeDaemon } from "../exec-cases/fake-daemon.ts";

const hex = (data: Uint8Array): string => Buffer.from(data).toString("hex");

interface Vector {
  name: string;
  type: number;
  hex: string;
  json?: unknown;
  offset?: string;
  data?: string;
  rows?: number;
  cols?: number;
  stream?: 0 | 1 | 2;
  signal?: number;
  tree?: boolean;
}

const vectors = (
  JSON.parse(
    readFileSync(resolve(import.meta.dirname, "../../protocol/vectors/frames.json"), "utf8"),
  ) as { cases: Vector[] }
).cases;

describe("frames", () => {
  test("are written as the protocol's vectors have them", () => {
    let written = 0;
    for (const vector of vectors) {
      const { type, offset = "0", stream = 0 } = vector;
      const frame = {
        [FrameType.START]: () => encodeJson(type, vector.json),
        [FrameType.STDIN]: () => encodeInput(Number(offset), Buffer.from(vector.data ?? "", "hex")),
        [FrameType.RESIZE]: () => encodeResize(vector.rows ?? 0, vector.cols ?? 0),
        [FrameType.SIGNAL]: () => encodeSignal(vector.signal ?? 0, vector.tree ?? false),
        [FrameType.ACK]: () => encodeAck(stream, Number(offset)),
        [FrameType.DETACH]: () => encodeFrame(type, new Uint8Array()),
      }[type];
      if (frame === undefined) continue;
      written += 1;
      expect([vector.name, hex(frame())]).toEqual([vector.name, vector.hex]);
    }
    expect(written).toBe(7);
  });

  test("are read however they are cut", () => {
    const all = Buffer.from(vectors.map((vector) => vector.hex).join(""), "hex");
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: all.length })), (cuts) => {
        const places = [0, ...cuts.toSorted((a, b) => a - b), all.length];
        const reader = new FrameReader();
        const seen: string[] = [];
        for (let i = 1; i < places.length; i += 1) {
          for (const { type, payload } of reader.read(all.subarray(places[i - 1], places[i]))) {
            seen.push(hex(encodeFrame(type, payload.bytes)));
          }
        }
        expect(seen).toEqual(vectors.map((vector) => vector.hex));
      }),
    );
    const reader = new FrameReader();
    expect(() => [...reader.read(Buffer.from("11ffffffff", "hex"))]).toThrow("a frame of");
  });
});

describe("streams over WebSockets", () => {
  let daemon: FakeDaemon;
  let gateway: ListeningGateway;
  let key: string;
  let other: string;

  beforeAll(async () => {
    daemon = await fakeDaemon({ project: "ours", labels: {} });
    gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
    const keys = new Keys(join(daemon.dir, "gateway"));
    key = `vmsan_${(await keys.create({ project: "ours" })).text}`;
    other = `vmsan_${(await keys.create({ project: "other" })).text}`;
  });

  afterAll(async () => {
    await gateway?.close();
    await daemon?.close();
  });

  const url = (path: string): string => `${gateway.url.replace("http", "ws")}/v1/vms/vm${path}`;

  /** A stream, and all that is told of it. */
  function open(wish: StreamWish, withKey = key) {
    const out = { 1: "", 2: "" };
    const states: boolean[] = [];
    const gaps: [number, number, number][] = [];
    let socket!: GuestSocket;
    const sockets: WebSocket[] = [];
    const end = new Promise<StreamEnd>((done, fail) => {
      socket = new GuestSocket(
        (path) => {
          const one = new WebSocket(url(path), ["vmsan-stream", `vmsan-key.${withKey}`]);
          sockets.push(one);
          return one;
        },
        wish,
        {
          onOutput: (output, data) => void (out[output] += Buffer.from(data).toString()),
          onGap: (...gap) => void gaps.push(gap),
          onExit: done,
          onFail: fail,
          onConnected: (connected) => void states.push(connected),
        },
      );
    });
    return { socket, out, end, states, gaps, sockets };
  }

  const sh = (script: string, more: object = {}): StreamWish => ({
    id: newStreamId(),
    spec: { kind: "exec", argv: ["sh", "-c", script], env: [], stdin: true, ...more },
  });

  test("a command's input, outputs and end", async () => {
    const { socket, out, end } = open(sh("read a; echo got $a; echo err >&2; exit 7"));
    socket.write(Buffer.from("words\n"));
    expect(await end).toMatchObject({ exitCode: 7 });
    expect(out).toEqual({ 1: "got words\n", 2: "err\n" });
  });

  test("what cannot start says why", async () => {
    const wish = { id: newStreamId(), spec: { kind: "exec", argv: ["/no/such"], env: [] } };
    await expect(open(wish).end).rejects.toMatchObject({ code: "ERR_AGENT_NOT_FOUND" });
  });

  test("cuts cost no byte in either direction", async () => {
    const rounds = 6;
    const piece = 400_000;
    const { socket, out, end, states, sockets } = open(sh(`head -c ${rounds * piece}`));
    const text = Array.from({ length: rounds * 50_000 }, (_, at) => String(at).padStart(8)).join(
      "",
    );
    const connected = (on: boolean): number => states.filter((state) => state === on).length;
    for (let round = 0; round < rounds; round += 1) {
      await vi.waitFor(() => expect(connected(true)).toBeGreaterThan(round), 30_000);
      socket.write(Buffer.from(text.slice(round * piece, (round + 1) * piece)));
      if (round === rounds - 1) break;
      if (round % 2 === 0) daemon.cut();
      else sockets.at(-1)?.close();
      await vi.waitFor(() => expect(connected(false)).toBeGreaterThan(round), 30_000);
    }
    expect(await end).toMatchObject({ exitCode: 0 });
    expect(out[1].length).toBe(text.length);
    expect(out[1] === text).toBe(true);
  });

  test("a terminal that is left goes on, and is shared by all who join", async () => {
    const tty = { rows: 24, cols: 80, term: "xterm-256color" };
    const wish = sh(
      "stty -echo; while read line; do echo said $line; [ $line = bye ] && exit 3; done",
      { tty },
    );
    const first = open(wish);
    first.socket.write(Buffer.from("one\n"));
    await expect.poll(() => first.out[1]).toContain("said one");
    first.socket.close();
    // As after a reload: what was printed is there again.
    const second = open({ id: wish.id });
    await expect.poll(() => second.out[1]).toContain("said one");
    const third = open({ id: wish.id });
    second.socket.write(Buffer.from("two\n"));
    await expect.poll(() => third.out[1]).toContain("said two");
    third.socket.write(Buffer.from("bye\n"));
    expect(await third.end).toMatchObject({ exitCode: 3 });
    expect(await second.end).toMatchObject({ exitCode: 3 });
  });

  test("a browser that leaves is no client any more", async () => {
    const wish = sh("exec sleep 1000", {
      tty: { rows: 24, cols: 80, term: "xterm" },
      detach: true,
    });
    const attached = async (): Promise<number | undefined> => {
      const reply = await fetch(`${gateway.url}/v1/vms/vm/agent/v1/streams`, {
        headers: { "x-api-key": key },
      });
      const { streams } = (await reply.json()) as { streams: { id: string; attached: number }[] };
      return streams.find(({ id }) => id === wish.id)?.attached;
    };
    const first = open(wish);
    await vi.waitFor(async () => expect(await attached()).toBe(1), 15_000);
    first.socket.close();
    await vi.waitFor(async () => expect(await attached()).toBe(0), 15_000);
    const again = open({ id: wish.id });
    await vi.waitFor(async () => expect(await attached()).toBe(1), 15_000);
    again.socket.signal(9, true);
    expect(await again.end).toMatchObject({ signal: "SIGKILL" });
  });

  test("nobody gets one without a key of the VM's project", async () => {
    const attempt = async (protocols: string[], path = "/v1/streams"): Promise<string> =>
      await new Promise((done) => {
        const socket = new WebSocket(url(path), protocols);
        socket.addEventListener("open", () => done("open"));
        socket.addEventListener("error", () => done("refused"));
      });
    const wrong = `${key.slice(0, -1)}${key.endsWith("0") ? "1" : "0"}`;
    expect(await attempt(["vmsan-stream", `vmsan-key.${key}`])).toBe("open");
    for (const protocols of [
      [],
      ["vmsan-stream"],
      ["vmsan-stream", "vmsan-key."],
      ["vmsan-stream", `vmsan-key.${wrong}`],
      ["vmsan-stream", `vmsan-key.${other}`],
      ["vmsan-stream", key],
      // The key alone agrees on nothing.
      [`vmsan-key.${key}`],
    ]) {
      expect([protocols, await attempt(protocols)]).toEqual([protocols, "refused"]);
    }
    const right = ["vmsan-stream", `vmsan-key.${key}`];
    for (const path of ["", "/v1/streams/x", "/v1/streams/../../x", "/v1/hello"]) {
      expect([path, await attempt(right, path)]).toEqual([path, "refused"]);
    }
    const log = (): string => readFileSync(join(daemon.dir, "gateway", "audit.log"), "utf8");
    // Who got one, and who was refused.
    await expect.poll(() => log()).toMatch(/"status":101,"what":"WebSocket"/);
    await expect.poll(() => log().match(/"status":40[14]/g)?.length).toBeGreaterThan(9);
    expect(log()).not.toContain(key.slice(-40));
  });

  test("a handshake that is none is refused, and the gateway goes on", async () => {
    const headers = {
      connection: "Upgrade",
      upgrade: "websocket",
      authorization: `Bearer ${key}`,
    };
    for (const more of [{}, { "sec-websocket-key": "x", "sec-websocket-version": "13" }]) {
      const status = await new Promise((done) => {
        const { port } = gateway;
        const path = "/v1/vms/vm/v1/streams";
        const request = httpRequest({
          host: "127.0.0.1",
          port,
          path,
          headers: { ...headers, ...more },
        });
        request.on("response", (reply) => done(reply.resume().statusCode));
        request.on("upgrade", (_reply, socket) => done(socket.destroy() && "upgraded"));
        request.on("error", done);
        request.end();
      });
      expect(status).toBe(400);
    }
    expect(await open(sh("exit 5")).end).toMatchObject({ exitCode: 5 });
  });
});

describe("the form of a new VM", () => {
  const caller = (admin: boolean) => ({
    key: { id: "0".repeat(8), name: "k", project: "ours", admin, createdAt: "", limits: {} },
  });
  /** Something to say in every field. */
  const samples: Record<string, string> = {
    image: "node:22",
    name: "box",
    vcpus: "2",
    memory: "1024",
    disk: "20",
    policy: "custom",
    domains: "example.com\n*.debian.org\n",
    cidrs: "192.0.2.0/24",
    denied: "198.51.100.0/24",
    allowedPorts: "443, 80",
    udp: "yes",
    icmp: "yes",
    bandwidth: "50",
    ports: "8080:80\n0.0.0.0:5353:53/udp\n[::1]:9000",
    networks: "backend",
    hostPorts: "5432",
    env: "A=1\nB",
    secrets: "TOKEN=a@b=c#d@api.example.com,*.example.org#header,body\nKEY=12345678@example.com",
    user: "1000:1000",
    workdir: "/srv",
    mounts: "data:/data:ro\n/scratch",
    labels: "job=7",
    timeout: "5",
    onTimeout: "remove",
    idle: "0.5",
    onIdle: "stop",
    driver: "qemu",
    diskMode: "flat",
    pull: "always",
    platform: "linux/amd64",
    init: "/sbin/init",
    sysctls: "net.ipv4.ip_forward=1",
    kernelArgs: "quiet",
    bootTimeout: "60",
    warm: "no",
  };

  test("every field is explained, and what it says is taken by the API", () => {
    const fields = GROUPS.flatMap((group) => group.fields);
    expect(fields.map(({ name }) => name).toSorted()).toEqual(Object.keys(samples).toSorted());
    for (const { name, help } of fields) expect([name, help.length > 15]).toEqual([name, true]);
    const request = remoteCreateRequest(caller(true), requestOf(samples, true));
    expect(request).toMatchObject({
      image: "node:22",
      vcpus: 2,
      memMib: 1024,
      diskSizeBytes: 20 * 2 ** 30,
      policy: {
        mode: "custom",
        allowedDomains: ["example.com", "*.debian.org"],
        allowedPorts: [443, 80],
      },
      ports: [
        { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 },
        { protocol: "udp", hostAddress: "0.0.0.0", hostPort: 5353, guestPort: 53 },
        { protocol: "tcp", hostAddress: "::1", hostPort: 9000, guestPort: 9000 },
      ],
      mounts: [
        { kind: "volume", name: "data", target: "/data", readonly: true },
        { kind: "anonymous", target: "/scratch" },
      ],
      networks: [{ network: "backend", aliases: [] }],
      secrets: [
        {
          name: "TOKEN",
          value: "a@b=c#d",
          domains: ["api.example.com", "*.example.org"],
          places: ["header", "body"],
        },
        { name: "KEY", value: "12345678", domains: ["example.com"] },
      ],
      timeoutMs: 300_000,
      idle: { ms: 30_000, action: "stop" },
      sysctls: { "net.ipv4.ip_forward": "1" },
      warm: false,
    });
  });

  test("left as it is, it is a VM with the defaults, for every key", () => {
    for (const admin of [true, false]) {
      expect(remoteCreateRequest(caller(admin), requestOf(firstWishes(), admin))).toEqual(
        remoteCreateRequest(caller(admin), {}),
      );
      // What only an admin may say is not sent by others.
      const { mounts: _, ...rest } = samples;
      expect(() => remoteCreateRequest(caller(admin), requestOf(rest, admin))).not.toThrow();
    }
  });

  test("what cannot be read is said before anything is sent", () => {
    expect(() => requestOf({ ...samples, ports: "x" }, true)).toThrow("No port: x");
    expect(() => requestOf({ ...samples, mounts: "data" }, true)).toThrow("No mount: data");
    const careless = (): unknown => requestOf({ ...samples, secrets: "TOKEN=sk-12345678" }, true);
    expect(careless).toThrow("No secret: TOKEN=….");
    expect(careless).not.toThrow("sk-");
  });
});

test("numbers and foreign texts as people read them", () => {
  expect([0, 1023, 1024, 1536, 10 * 2 ** 20, 2 ** 40].map(bytes)).toEqual([
    "0 B",
    "1023 B",
    "1 KiB",
    "1.5 KiB",
    "10 MiB",
    "1 TiB",
  ]);
  expect([0, 61_000, 3_600_000, 90_000_000].map(duration)).toEqual([
    "0 s",
    "1 min",
    "1 h",
    "1 d 1 h",
  ]);
  expect(plain("a\u202eb\u0000c\nd")).toBe("a\ufffdb\ufffdc\ufffdd");
});
