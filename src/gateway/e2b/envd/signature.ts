/** Signed URLs of files: they carry neither headers nor a host name, only proof of the sandbox's token. */
import { hash, timingSafeEqual } from "node:crypto";
import { E2bError } from "../errors.ts";

/** Whether a query is a signed one. */
export function isSigned(query: URLSearchParams): boolean {
  return query.has("signature");
}

const FORM = /^v1_[A-Za-z0-9+/]{43}$/;

/** The signature of a request, as clients make it. */
function signatureOf(query: URLSearchParams, operation: "read" | "write", token: string): Buffer {
  const expiration = query.get("signature_expiration");
  const parts = [query.get("path") ?? "", operation, query.get("username") ?? "", token];
  if (expiration !== null) parts.push(expiration);
  const digest = hash("sha256", parts.join(":"), "base64");
  return Buffer.from(`v1_${digest.replace(/=+$/, "")}`);
}

/** Tells whether a query is signed with a token, the time limit apart; undefined: with none. */
export function signedWith(
  query: URLSearchParams,
  operation: "read" | "write",
): ((token: string) => boolean) | undefined {
  const text = query.get("signature") ?? "";
  if (!FORM.test(text)) return undefined;
  const given = Buffer.from(text);
  return (token) => timingSafeEqual(given, signatureOf(query, operation, token));
}

/** @throws unauthenticated once its time is over */
export function checkExpiration(query: URLSearchParams): void {
  const expiration = query.get("signature_expiration");
  if (expiration === null) return;
  if (/^\d{1,12}$/.test(expiration) && Number(expiration) * 1000 > Date.now()) return;
  throw new E2bError("unauthenticated", "signature is already expired");
}
