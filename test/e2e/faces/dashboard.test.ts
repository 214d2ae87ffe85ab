/**
 * The dashboard as a person uses it, in Debian's Chromium: a VM is made, typed in, looked at, forked and removed, by what
 * can be seen and pressed alone. Every page is looked at by axe, light and dark.
 */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";
import type { Browser, Page, Request } from "playwright-core";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { violations } from "../../fixtures/axe.ts";
import { installation } from "../../fixtures/ladder.ts";
import { root, vmsanBin, vmsanJson } from "../support.ts";

const made = installation("base");

/** Milliseconds for what a guest, a loaded machine or both have to do. */
const LONG = 90_000;

let ui: ChildProcess;
let browser: Browser;
let page: Page;
let link: string;
/** What the browser complained of, and what it asked of others than the gateway. */
const complaints: string[] = [];
/** What the page waits for. */
const pending = new Set<Request>();
/** Bytes as they came over the wire until the first terminal stood. */
let loaded = 0;

beforeAll(async () => {
  ui = spawn(vmsanBin, ["ui", "--no-open", "--listen", "127.0.0.1:0"], {
    env: { ...process.env, VMSAN_DIR: made.dir },
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (ui.stdout === null) throw new Error("no output");
  for await (const line of createInterface({ input: ui.stdout })) {
    link = line;
    break;
  }
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    // Root may not have the sandbox; the page is ours.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  context.setDefaultTimeout(LONG);
  page = await context.newPage();
  const { origin } = new URL(link);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // What the policy forbids among them. Requests for what has just been removed may fail.
    const text = message.text();
    if (message.type() === "error" && !text.startsWith("Failed to load resource")) {
      complaints.push(text);
    }
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(origin) && !/^(?:data|blob):/.test(url))
      complaints.push(`asked for ${url}`);
  });
  page.on("request", (request) => pending.add(request));
  page.on("requestfinished", (request) => pending.delete(request));
  page.on("requestfailed", (request) => pending.delete(request));
  page.on("response", (response) => {
    loaded += Number(response.headers()["content-length"] ?? 0);
  });
  await page.goto(link);
  await heading("VMs");
  // Before the installation goes: what is open asks its daemon for more.
  return async () => {
    await browser.close();
    if (ui.exitCode !== null) return;
    ui.kill("SIGINT");
    await once(ui, "exit");
  };
});

// Each step stands on those before it.
let failed = false;
beforeEach(({ skip }) => {
  if (failed) skip();
});
afterEach(async ({ task }) => {
  if (task.result?.state !== "fail") return;
  failed = true;
  const shot = join(root, "test-results", "dashboard.png");
  await page.screenshot({ path: shot });
  const text = await page.locator("body").innerText();
  const waits = [...pending].map((request) => `${request.method()} ${request.url()}`);
  const known = (await made.vmsan.list()).map(({ name, status }) => `${name} ${status}`);
  process.stderr.write(
    `${page.url().split("#")[1]}\n${text}\nwaits for: ${waits.join(", ")}\nVMs: ${known.join(", ")}\nsee ${shot}\n`,
  );
});

/** Wait until a page with this heading is there. */
async function heading(name: string): Promise<void> {
  await page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
}

const button = (name: string) => page.getByRole("button", { name, exact: true });
const tab = async (name: string): Promise<void> =>
  await page
    .getByRole("navigation", { name: "Parts of the VM" })
    .getByRole("link", { name, exact: true })
    .click();
const place = async (name: string): Promise<void> =>
  await page
    .getByRole("navigation", { name: "Main" })
    .getByRole("link", { name, exact: true })
    .click();

/** Wait until the terminal's screen has this text. */
async function screenHas(text: string): Promise<void> {
  await page.locator(".xterm-rows").filter({ hasText: text }).waitFor();
}

/** Type a command; the terminal has the keyboard's focus. */
async function type(command: string): Promise<void> {
  await page.locator('.terminal-box[data-state="open"]').waitFor();
  await page.keyboard.type(`${command}\n`);
}

describe("a person", () => {
  test("is signed in by the address, which shows the key no longer", async () => {
    expect(link).toMatch(/\/ui\/#key=vmsan_[0-9a-f]{48}$/);
    expect(page.url()).not.toContain("key");
    // Whoever asks again is led to the gateway that runs.
    const again = await vmsanJson<{ url: string; link: string }>(["ui", "--no-open"], made);
    expect(again.url).toBe(new URL(link).origin);
    expect(again.link).not.toBe(link);
    expect(await violations(page)).toEqual([]);
  });

  test("makes a VM with a form that is explained", async () => {
    await page.getByRole("link", { name: "New VM" }).first().click();
    await heading("New VM");
    for (const folded of await page.locator("summary").all()) await folded.click();
    expect(await violations(page)).toEqual([]);
    await page.getByLabel("Name", { exact: true }).fill("box");
    await page.getByLabel("May reach").selectOption({ label: "Nothing" });
    await button("Make it").click();
    await heading("box");
    await page.locator("header .status.running").waitFor();
  });

  test("types in its terminal, reloads the page, and goes on", async () => {
    await tab("Terminal");
    await type("cd /tmp && kept=$((6*7)) && echo first-$kept");
    await screenHas("first-42");
    expect(await violations(page)).toEqual([]);
    await page.keyboard.press("Control+Shift+L");
    await page.locator(".sessions a:focus").waitFor();
    await page.reload();
    // What was printed before is there again, and the shell is the same one.
    await screenHas("first-42");
    await type("echo second-$kept in $PWD");
    await screenHas("second-42 in /tmp");
    // All scripts and styles that a first visit loads, and what was asked of the API.
    expect(loaded).toBeLessThan(2 * 250_000);
  });

  test("sees a connection refused as it falls, and allows it", async () => {
    await type("curl -m 5 http://203.0.113.7:8080/; echo tried-$?");
    await screenHas("tried-");
    await tab("Network");
    await page.getByRole("cell", { name: "203.0.113.7:8080" }).first().waitFor();
    await page.getByRole("cell", { name: "refused" }).first().waitFor();
    expect(await violations(page)).toEqual([]);
    await button("Change what it may reach").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("May reach").selectOption({ label: "Only what is listed" });
    await dialog.getByLabel("Names", { exact: true }).fill("example.com");
    expect(await violations(page)).toEqual([]);
    await dialog.getByRole("button", { name: "Put in force" }).click();
    await dialog.waitFor({ state: "detached" });
    await tab("Overview");
    await page.getByText("what is listed").waitFor();
  });

  test("uploads a file, sees it in the guest, takes it back, and removes it", async () => {
    await tab("Files");
    await page.getByRole("row", { name: ".profile" }).waitFor();
    const content = "brought by hand\n";
    await page.getByLabel("Files to upload").setInputFiles({
      name: "note.txt",
      mimeType: "text/plain",
      buffer: Buffer.from(content),
    });
    const row = page.getByRole("row", { name: "note.txt" });
    await row.waitFor();
    expect(await violations(page)).toEqual([]);
    const download = page.waitForEvent("download");
    await button("Download note.txt").click();
    expect(await readFile(await (await download).path(), "utf8")).toBe(content);
    await tab("Terminal");
    await type("cat ~/note.txt && ls -l ~/note.txt | cut -d' ' -f3");
    await screenHas("brought by hand");
    await screenHas("ubuntu");
    await tab("Files");
    await button("Remove note.txt").click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await row.waitFor({ state: "detached" });
  });

  test("reads the console and what a shell has said, and watches figures", async () => {
    await tab("Logs");
    await page
      .getByRole("log")
      .filter({ hasText: /\[ +\d/ })
      .waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByRole("navigation", { name: "Logs" }).getByText("shell:main").click();
    await page.getByRole("log").filter({ hasText: "second-42" }).waitFor();
    await tab("Overview");
    await page.getByRole("img", { name: /^Memory: [\d.]+ MiB of 512 MiB/ }).waitFor();
    await page.getByRole("img", { name: /^Processors: \d+ %/ }).waitFor();
    expect(await violations(page)).toEqual([]);
  });

  test("takes a snapshot and makes a second VM of it, which goes on where the first was", async () => {
    await button("Snapshot").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Name").fill("before");
    expect(await violations(page)).toEqual([]);
    await dialog.getByRole("button", { name: "Take it" }).click();
    await tab("Snapshots");
    await page.getByRole("row", { name: "before" }).waitFor();
    expect(await violations(page)).toEqual([]);
    await place("Snapshots");
    await button("New VM").click();
    await dialog.getByLabel("Name").fill("second");
    await dialog.getByRole("button", { name: "Make it" }).click();
    await heading("second");
    await page.locator("header .status.running").waitFor();
    await tab("Terminal");
    await screenHas("second-42 in /tmp");
    await type("echo third-$kept at $(hostname)");
    await screenHas("third-42 at second");
    // It hangs in the tree below the snapshot.
    await place("Snapshots");
    await page.locator(".tree li li").getByRole("link", { name: "second" }).waitFor();
    expect(await violations(page)).toEqual([]);
  });

  test("looks at images, volumes, networks and the host", async () => {
    await place("Images");
    await heading("Images");
    expect(await violations(page)).toEqual([]);
    await place("Volumes");
    await heading("Volumes");
    await button("New volume").click();
    await page.getByRole("dialog").getByLabel("Name").fill("data");
    await page.getByRole("dialog").getByRole("button", { name: "Make it" }).click();
    await page.getByRole("row", { name: "data" }).waitFor();
    expect(await violations(page)).toEqual([]);
    await button("Remove data").click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.getByRole("row", { name: "data" }).waitFor({ state: "detached" });
    await place("Networks");
    await button("New network").click();
    await page.getByRole("dialog").getByLabel("Name").fill("backend");
    await page.getByRole("dialog").getByRole("button", { name: "Make it" }).click();
    await page.getByRole("heading", { name: "backend" }).waitFor();
    expect(await violations(page)).toEqual([]);
    await button("Remove backend").click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.getByText("No private networks yet").waitFor();
    await place("Host");
    await button("Check").click();
    await page.locator(".checks li").first().waitFor();
    expect(await violations(page)).toEqual([]);
  });

  test("pauses a VM, puts it to sleep, and is told what that means; its terminal goes on", async () => {
    const state = async (of: string): Promise<void> =>
      await page.locator(`header .status.${of}`).waitFor();
    const note = page.locator(".empty");
    await place("VMs");
    await heading("VMs");
    await page.getByRole("link", { name: "second", exact: true }).click();
    await heading("second");
    await tab("Terminal");
    await screenHas("third-42 at second");
    for (const [does, is, back] of [
      ["Pause", "paused", "Resume"],
      ["Sleep", "suspended", "Wake"],
    ] as const) {
      await button(does).click();
      await state(is);
      await note.getByText("The VM is").waitFor();
      expect(await violations(page)).toEqual([]);
      await note.getByRole("button", { name: back, exact: true }).click();
      await state("running");
      await screenHas("third-42 at second");
      await type(`echo after-${is}-$kept`);
      await screenHas(`after-${is}-42`);
    }
  });

  test("removes all of it, by keyboard and on a phone", async () => {
    await page.setViewportSize({ width: 390, height: 844 });
    await place("VMs");
    await heading("VMs");
    for (const name of ["second", "box"]) {
      const row = page.getByRole("link", { name, exact: true });
      await row.waitFor();
      expect(await violations(page)).toEqual([]);
      await row.press("Enter");
      await heading(name);
      await button("Remove").press("Enter");
      const dialog = page.getByRole("dialog");
      await dialog.getByRole("button", { name: "Remove" }).press("Enter");
      await heading("VMs");
    }
    await page.getByText("No VMs yet").waitFor();
    await place("Snapshots");
    await button("Remove snapshot before").click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await page.getByText("No snapshots yet").waitFor();
    // Nothing is wider than the phone.
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(390);
    expect(await violations(page)).toEqual([]);
    expect(await made.vmsan.list()).toEqual([]);
    expect(await made.vmsan.snapshots.list()).toEqual([]);
  });

  test("has met no error, no forbidden script or style, and no other origin", () => {
    expect(complaints).toEqual([]);
  });

  test("signs out, and is refused once the key is gone", async () => {
    await button("Sign out").click();
    await page.getByLabel("API key").waitFor();
    expect(await violations(page)).toEqual([]);
    await page.getByLabel("API key").fill("vmsan_wrong");
    await button("Sign in").click();
    await page.getByText("ERR_GATEWAY_UNAUTHORIZED").waitFor();
    expect(await violations(page)).toEqual([]);
  });
});
