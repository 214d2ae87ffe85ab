/** What the words of `vmsan build` mean, and that nothing in them is passed over. */
import { expect, test } from "vitest";
import { hostsOf } from "../../../client/builds/hosts.ts";
import { contextsOf, labelsOf, mapOf, outputOf, secretsOf } from "./build-words.ts";

process.env["VMSAN_TEST_WORD"] = "from the environment";

test("pairs are arguments, of names alone with the variable's value, or labels", () => {
  const words = ["A=1", "B=x=y", "VMSAN_TEST_WORD", "VMSAN_TEST_NONE"];
  expect(mapOf(words)).toEqual({ A: "1", B: "x=y", VMSAN_TEST_WORD: "from the environment" });
  expect(labelsOf(["a=b=c", "plain", "none="])).toEqual({ a: "b=c", plain: "", none: "" });
});

test("hosts are names with addresses", () => {
  const words = ["a.test:10.0.0.1", "six:::1", "both=10.0.0.2", "both=[fd00::1]"];
  expect(hostsOf(words)).toEqual({
    "a.test": ["10.0.0.1"],
    six: ["::1"],
    both: ["10.0.0.2", "fd00::1"],
  });
  expect(() => hostsOf(["gw:host-gateway"])).toThrow(/--add-host/);
  expect(() => hostsOf(["nothing"])).toThrow(/--add-host/);
});

test("contexts are images", () => {
  expect(contextsOf(["base=docker-image://r.test:5/x@sha256:00"])).toEqual({
    base: "r.test:5/x@sha256:00",
  });
  for (const word of ["base=./dir", "base=https://x.test/y.git", "docker-image://x"]) {
    expect(() => contextsOf([word])).toThrow(/--build-context/);
  }
});

test("secrets are files or variables, and fields that nobody knows are refused", () => {
  const value = Buffer.from("from the environment");
  const words = ["id=a,src=/f", "type=file,id=b,source=g", "id=c,env=VMSAN_TEST_WORD"];
  expect(secretsOf([...words, "id=VMSAN_TEST_WORD", "type=env,id=d,src=VMSAN_TEST_WORD"])).toEqual({
    a: "/f",
    b: "g",
    c: value,
    VMSAN_TEST_WORD: value,
    d: value,
  });
  for (const word of [
    "id=a",
    "src=/f",
    "id=a,src=/f,mode=0400",
    "type=ssh,id=a,src=/f",
    "id=a,env=VMSAN_TEST_NONE",
  ]) {
    expect(() => secretsOf([word])).toThrow(/--secret/);
  }
});

test("results go where they may", () => {
  expect(outputOf("out")).toEqual({ dir: "out" });
  expect(outputOf("-")).toEqual({ dest: "-", format: "rootfs" });
  expect(outputOf("type=oci,dest=a.tar")).toEqual({ dest: "a.tar", format: "oci-archive" });
  for (const word of ["type=image,push=true", "type=registry", "type=local", "type=cacheonly"]) {
    expect(() => outputOf(word)).toThrow(/--output/);
  }
});
