import { expect, test } from "vitest";
import { remotePath, uploadTargets } from "./copy.ts";

test("upload: where the files go", () => {
  expect(uploadTargets(["a", "b"], "/srv")).toEqual({ sources: ["a", "b"], destination: "/srv" });
  expect(uploadTargets(["./a", "/remote/a"], undefined)).toEqual({
    sources: ["./a"],
    destination: "/remote/a",
  });
  expect(uploadTargets(["a", "b", "/srv/"], undefined)).toEqual({
    sources: ["a", "b"],
    destination: "/srv/",
  });
  expect(uploadTargets(["/a", "/b", "/c"], undefined).destination).toBe("./");
  expect(uploadTargets(["a", "b"], undefined)).toEqual({ sources: ["a", "b"], destination: "./" });
  expect(uploadTargets(["/a"], undefined)).toEqual({ sources: ["/a"], destination: "./" });
});

test("cp: which side is the VM's", () => {
  expect(remotePath("web:/srv/a")).toEqual({ vm: "web", path: "/srv/a" });
  expect(remotePath("vm-0123abcd:")).toEqual({ vm: "vm-0123abcd", path: "." });
  expect(remotePath("./web:/x")).toBeUndefined();
  expect(remotePath("/abs")).toBeUndefined();
});
