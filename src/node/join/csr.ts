/**
 * Certificate signing requests (PKCS #10, RFC 2986) with an elliptic curve's key: Node.js makes keys and
 * signatures, but not these. Pure but for the key.
 */
import { generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { isIP, isIPv4 } from "node:net";

/** A new key and the request for its certificate, both PEM. */
export interface KeyAndRequest {
  key: string;
  request: string;
}

/** Whom a certificate is to be for. */
export interface Subject {
  commonName: string;
  organization?: string;
  /** Names and addresses that a server is reached by. */
  hosts?: readonly string[];
}

/** Tag of a sequence. */
export const SEQUENCE = 0x30;
const SET = 0x31;
const OCTETS = 0x04;

/** One element of DER: a tag, a length, a content. */
export function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const hex = length.toString(16);
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, "hex");
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length]), bytes, content]);
}

/** An object identifier. */
function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const digits = [arc & 0x7f];
    for (let more = arc >> 7; more > 0; more >>= 7) digits.unshift(0x80 | (more & 0x7f));
    bytes.push(...digits);
  }
  return der(0x06, Buffer.from(bytes));
}

const utf8 = (text: string): Buffer => der(0x0c, Buffer.from(text, "utf8"));

/** One part of a name. */
const named = (type: string, text: string): Buffer =>
  der(SET, der(SEQUENCE, oid(type), utf8(text)));

/** An IP address's bytes. */
function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  const { hostname } = new URL(`http://[${address}]`);
  const [head = "", tail = ""] = hostname.slice(1, -1).split("::");
  const words = (text: string): string[] => (text === "" ? [] : text.split(":"));
  const [front, back] = [words(head), words(tail)];
  const middle = Array.from({ length: 8 - front.length - back.length }, () => "0");
  const all = [...front, ...middle, ...back];
  return Buffer.from(all.map((word) => word.padStart(4, "0")).join(""), "hex");
}

/** subjectAltName, as one extension. */
export function alternativeNames(hosts: readonly string[]): Buffer {
  const names = hosts.map((host) =>
    isIP(host) === 0 ? der(0x82, Buffer.from(host, "ascii")) : der(0x87, addressBytes(host)),
  );
  return der(SEQUENCE, oid("2.5.29.17"), der(OCTETS, der(SEQUENCE, ...names)));
}

/** ecdsa-with-SHA256 */
export const ECDSA_SHA256 = der(SEQUENCE, oid("1.2.840.10045.4.3.2"));

/** Whole bytes as a string of bits. */
export const bits = (bytes: Uint8Array): Buffer => der(0x03, Buffer.from([0]), bytes);

/** A subject's distinguished name. */
export function nameOf({ commonName, organization }: Subject): Buffer {
  return der(
    SEQUENCE,
    ...(organization === undefined ? [] : [named("2.5.4.10", organization)]),
    named("2.5.4.3", commonName),
  );
}

/** Base64 in lines between words. */
export function pem(kind: string, bytes: Buffer): string {
  const lines = bytes.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${kind}-----\n${lines.join("\n")}\n-----END ${kind}-----\n`;
}

/** The request for a certificate of a key. */
function requestFor(privateKey: KeyObject, publicKey: KeyObject, subject: Subject): string {
  const { hosts = [] } = subject;
  // extensionRequest of PKCS #9
  const wishes = (): Buffer =>
    der(SEQUENCE, oid("1.2.840.113549.1.9.14"), der(SET, der(SEQUENCE, alternativeNames(hosts))));
  const info = der(
    SEQUENCE,
    der(0x02, Buffer.from([0])),
    nameOf(subject),
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa0, ...(hosts.length === 0 ? [] : [wishes()])),
  );
  const signature = sign("sha256", info, { key: privateKey, dsaEncoding: "der" });
  return pem("CERTIFICATE REQUEST", der(SEQUENCE, info, ECDSA_SHA256, bits(signature)));
}

/** A new key on the curve P-256, and the request for its certificate. */
export function newKeyAndRequest(subject: Subject): KeyAndRequest {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    request: requestFor(privateKey, publicKey, subject),
  };
}
