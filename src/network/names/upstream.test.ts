import { createSocket, type Socket } from "node:dgram";
import { createServer, type Server } from "node:net";
import dns from "dns-packet";
import { afterEach, expect, test } from "vitest";
import { parsePolicy } from "../policy/parse.ts";
import { resolveQuery, type ResolverContext } from "./resolver.ts";
import { ask, parseResolvConf, parseServer } from "./upstream.ts";

const open: (Socket | Server)[] = [];
afterEach(() => {
  for (const socket of open.splice(0)) socket.close();
});

/** A name server on loopback; `answer` makes the reply to a query, or none. */
async function server(
  answer: (query: dns.DecodedPacket, over: "udp" | "tcp") => Buffer | Buffer[],
): Promise<{ address: string; port: number }> {
  const udp = createSocket("udp4");
  open.push(udp);
  udp.on("message", (message, peer) => {
    for (const bytes of [answer(dns.decode(message), "udp")].flat()) {
      udp.send(bytes, peer.port, peer.address);
    }
  });
  await new Promise<void>((resolve) => udp.bind(0, "127.0.0.1", resolve));
  const { port } = udp.address();
  const tcp = createServer((socket) => {
    socket.on("data", (data) => {
      for (const bytes of [answer(dns.decode(data.subarray(2)), "tcp")].flat()) {
        const framed = Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
        // Byte by byte: the reader must put it together.
        for (const byte of framed) socket.write(Buffer.from([byte]));
      }
    });
    socket.on("error", () => undefined); // the client hangs up when it has its answer
  });
  open.push(tcp);
  await new Promise<void>((resolve) => tcp.listen(port, "127.0.0.1", resolve));
  return { address: "127.0.0.1", port };
}

const texts = (name: string, count: number): dns.Answer[] =>
  Array.from({ length: count }, (_, n) => ({
    type: "TXT",
    name,
    ttl: 1,
    data: `text ${n} ${"x".repeat(80)}`,
  }));

/** A reply to a query. */
function reply(
  query: dns.DecodedPacket,
  answers: dns.Answer[],
  flags = 0,
  id = query.id ?? 0,
): Buffer {
  return dns.encode({ type: "response", id, flags, questions: query.questions ?? [], answers });
}

test("an answer that was cut off is asked for again over TCP", async () => {
  const one = await server((query, over) =>
    over === "udp" ? reply(query, [], dns.TRUNCATED_RESPONSE) : reply(query, texts("a.test", 40)),
  );
  const packet = await ask({ name: "a.test", type: "TXT" }, [one]);
  expect(packet.answers?.length).toBe(40);
});

test("answers with a wrong id or question, and noise, are passed over", async () => {
  const one = await server((query) => [
    Buffer.from("noise"),
    reply(query, texts("a.test", 2), 0, ((query.id ?? 0) + 1) & 65_535),
    reply({ ...query, questions: [{ name: "b.test", type: "TXT" }] }, texts("b.test", 3)),
    reply(query, texts("a.test", 1)),
  ]);
  const packet = await ask({ name: "a.test", type: "TXT" }, [one]);
  expect(packet.answers?.length).toBe(1);
});

test("the next server is asked when one does not answer; none is an error", async () => {
  const silent = createSocket("udp4");
  await new Promise<void>((resolve) => silent.bind(0, "127.0.0.1", resolve));
  const dead = { address: "127.0.0.1", port: silent.address().port };
  silent.close();
  const good = await server((query) => reply(query, texts("a.test", 1)));
  expect((await ask({ name: "a.test", type: "TXT" }, [dead, good])).answers?.length).toBe(1);
  await expect(ask({ name: "a.test", type: "TXT" }, [dead])).rejects.toMatchObject({
    code: "ERR_NETWORK_RESOLVER",
  });
  await expect(ask({ name: "a.test", type: "TXT" }, [])).rejects.toMatchObject({
    code: "ERR_NETWORK_RESOLVER",
  });
});

test("resolv.conf and server addresses", () => {
  expect(
    parseResolvConf(
      "# x\nnameserver 127.0.0.53\n  nameserver fe80::1%eth0 \nsearch a\nnameserver x\n",
    ),
  ).toEqual([
    { address: "127.0.0.53", port: 53 },
    { address: "fe80::1", port: 53 },
  ]);
  expect(parseServer("127.0.0.1#5300")).toEqual({ address: "127.0.0.1", port: 5300 });
  expect(parseServer("dns.example")).toBeUndefined();
});

/** A resolver whose upstream gives `answers` and which admits everything or nothing. */
function resolver(
  answers: dns.Answer[],
  admits = true,
): { context: ResolverContext; asked: string[]; admitted: string[] } {
  const asked: string[] = [];
  const admitted: string[] = [];
  const context: ResolverContext = {
    policy: () => parsePolicy({ allowedDomains: "a.test,*.b.test" }),
    hostAddresses: () => [],
    gateway4: "198.19.0.1",
    gateway6: undefined,
    peers: { addressesOf: () => undefined, namesOf: () => undefined },
    isSecret: () => false,
    ask: async (question) => {
      asked.push(question.name);
      return Promise.resolve(
        dns.decode(
          dns.encode({
            type: "response",
            id: 1,
            questions: [{ name: question.name, type: "A" }],
            answers,
          }),
        ),
      );
    },
    admit: async (_, addresses) => {
      admitted.push(...addresses);
      return Promise.resolve(admits);
    },
    log: () => undefined,
  };
  return { context, asked, admitted };
}

/** Ask a resolver; gives the decoded response. */
async function query(
  context: ResolverContext,
  name: string,
  more: Partial<dns.Packet> = {},
  over: "udp" | "tcp" = "udp",
): Promise<dns.DecodedPacket | undefined> {
  const message = dns.encode({
    type: "query",
    id: 77,
    flags: dns.RECURSION_DESIRED,
    questions: [{ name, type: "A" }],
    ...more,
  });
  const bytes = await resolveQuery(context, message, over);
  return bytes === undefined ? undefined : dns.decode(bytes);
}

const a = (name: string, data: string): dns.Answer => ({ type: "A", name, ttl: 5, data });

test("names that are not allowed never leave the host", async () => {
  const { context, asked } = resolver([]);
  const response = await query(context, "secret-data.evil.test");
  expect((response?.flags ?? 0) & 15).toBe(3);
  expect(asked).toEqual([]);
});

test("records that do not belong to the question are dropped", async () => {
  const { context, admitted } = resolver([
    { type: "CNAME", name: "a.test", ttl: 5, data: "x.cdn.test" },
    a("x.cdn.test", "192.0.2.1"),
    a("unrelated.test", "192.0.2.2"),
    a("a.test", "127.0.0.1"),
  ]);
  const response = await query(context, "a.test");
  expect(response?.answers).toEqual([]);
  // An alias beside an address is not valid: the address decides, and loopback is no answer.
  expect(admitted).toEqual([]);
  const chain = resolver([
    { type: "CNAME", name: "a.test", ttl: 5, data: "x.cdn.test" },
    a("x.cdn.test", "192.0.2.1"),
    a("unrelated.test", "192.0.2.2"),
  ]);
  expect((await query(chain.context, "a.test"))?.answers?.length).toBe(2);
  expect(chain.admitted).toEqual(["192.0.2.1"]);
  const loop = resolver([{ type: "CNAME", name: "a.test", ttl: 5, data: "a.test" }]);
  expect(((await query(loop.context, "a.test"))?.flags ?? 0) & 15).toBe(0);
});

test("addresses that could not be admitted are not given out", async () => {
  const { context } = resolver([a("a.test", "192.0.2.1")], false);
  const response = await query(context, "a.test");
  expect((response?.flags ?? 0) & 15).toBe(2);
  expect(response?.answers).toEqual([]);
});

test("a response that does not fit is marked as cut off, and whole over TCP", async () => {
  const { context } = resolver(Array.from({ length: 60 }, (_, n) => a("a.test", `192.0.2.${n}`)));
  const small = await query(context, "a.test");
  expect(small?.flag_tc).toBe(true);
  expect(small?.answers).toEqual([]);
  expect((await query(context, "a.test", {}, "tcp"))?.answers?.length).toBe(60);
});

test("odd messages", async () => {
  const { context, asked } = resolver([]);
  expect(await resolveQuery(context, Buffer.from("x"), "udp")).toBeUndefined();
  expect(await resolveQuery(context, Buffer.alloc(0), "udp")).toBeUndefined();
  expect(await query(context, "a.test", { type: "response" })).toBeUndefined();
  const two = await query(context, "a.test", {
    questions: [
      { name: "a.test", type: "A" },
      { name: "a.test", type: "A" },
    ],
  });
  expect((two?.flags ?? 0) & 15).toBe(1);
  const chaos = await query(context, "a.test", {
    questions: [{ name: "a.test", type: "TXT", class: "CH" }],
  });
  expect((chaos?.flags ?? 0) & 15).toBe(5);
  expect(asked).toEqual([]);
});
