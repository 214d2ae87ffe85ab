/**
 * The dashboard in Debian's Chromium where it is not the usual day: VMs in every state, two hundred of them, names as long as they may
 * be, nothing at all, and what fails; light, dark, on a phone and by keyboard alone. A gateway serves it, VMs are the fake driver's;
 * lists that would take long to come by are put in on the way.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import type { Browser, Dialog, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { Vmsan } from "../../src/index.ts";
import type { VmView } from "../../src/model/api.ts";
import type { VmStatus } from "../../src/model/vm.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { violations } from "../fixtures/axe.ts";

const CHROMIUM = "/usr/bin/chromium";
const missing = !existsSync(CHROMIUM);
if (missing) process.stderr.write(`skipped: test/gateway/ui-pages.test.ts needs ${CHROMIUM}\n`);
/** Where pictures of all pages are put, if anywhere. */
const shots = process.env["VMSAN_TEST_SHOTS"];

const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };
const LONGEST = "a-name-as-long-as-names-may-be".repeat(3).slice(0, 63);

let daemon: FakeDaemon;
let gateway: ListeningGateway;
let browser: Browser;
let page: Page;
let real: VmView;
/** What the page is told instead of the gateway's answer, by path. */
const told = new Map<string, unknown>();
const complaints: string[] = [];

beforeAll(async () => {
  if (missing) return;
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  const keys = new Keys(layoutOf(daemon.dir).gateway);
  const { text } = await keys.create({ admin: true, project: "default" });
  const vmsan = new Vmsan({ dir: daemon.dir, start: false });
  real = (
    await vmsan.create({
      name: "first",
      networkPolicy: "custom",
      allowedDomains: ["example.com"],
      driver: "fake",
    })
  ).view;
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    // Root may not have the sandbox; the page is ours.
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  const context = await browser.newContext({ viewport: DESKTOP });
  context.setDefaultTimeout(60_000);
  page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.route(
    (url) => told.has(url.pathname),
    async (route) => {
      const { pathname } = new URL(route.request().url());
      if (route.request().method() === "GET") await route.fulfill({ json: told.get(pathname) });
      else await route.fallback();
    },
  );
  await page.goto(`${gateway.url}/ui/#key=${text}`);
  await heading("VMs");
});

afterAll(async () => {
  await browser?.close();
  await gateway?.close();
  await daemon?.close();
});

beforeEach(async () => {
  if (!missing) await page.setViewportSize(DESKTOP);
});

/** Wait until a page with this heading is there. */
async function heading(name: string): Promise<void> {
  await page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
}

/** Open a place, with what is told now. */
async function open(place: string, title: string): Promise<void> {
  await page.goto(`${gateway.url}/ui/#/${place}`);
  await page.reload();
  await heading(title);
}

/** That the page is right for everybody: for axe, and on a phone. @param name of its pictures */
async function looksRight(name: string): Promise<void> {
  const picture = async (kind: string): Promise<void> => {
    if (shots !== undefined) await page.screenshot({ path: join(shots, `${name}-${kind}.png`) });
  };
  expect(await violations(page), name).toEqual([]);
  await picture("desktop");
  if (shots !== undefined) {
    await page.emulateMedia({ colorScheme: "dark", reducedMotion: "reduce" });
    await picture("dark");
    await page.emulateMedia({ colorScheme: "light" });
  }
  await page.setViewportSize(PHONE);
  await picture("phone");
  expect(await page.evaluate("document.documentElement.scrollWidth"), name).toBe(PHONE.width);
  await page.setViewportSize(DESKTOP);
}

let count = 0;

/** A VM in some state. */
function vm(status: VmStatus, more: Partial<VmView> = {}): VmView {
  count += 1;
  const id = `vm-${count.toString(16).padStart(8, "0")}`;
  const { startedAt: _started, ...rest } = real;
  return { ...rest, id, name: `${status}-${count}`, status, ...more };
}

const ERROR = {
  code: "ERR_BOOT_TIMEOUT",
  message: "The guest of vm-00000005 did not answer within 60 s",
  why: "Its console's last line: Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
  fix: "See its console: vmsan logs vm-00000005 --console.",
};

const STATES: [status: VmStatus, means: string, way?: string, more?: Partial<VmView>][] = [
  ["paused", "stand still", "Resume"],
  ["suspended", "in a file", "Wake"],
  ["stopped", "switched off", "Start", { stopReason: "time-limit" }],
  ["error", "can be started again", "Start", { error: ERROR }],
  ["creating", "starts by itself"],
];

describe.skipIf(missing)("the dashboard", () => {
  test.each(STATES)(
    "a VM that is %s says what that means, and what to do",
    async (status, means, way, more) => {
      const one = vm(status, more);
      told.set("/v1/vms", { vms: [one] });
      told.set(`/v1/snapshots`, { snapshots: [] });
      await open(`vms/${one.id}`, one.name ?? "");
      await page.getByText(means).waitFor();
      if (more?.error !== undefined) await page.getByText("Kernel panic").waitFor();
      await looksRight(`${status}-overview`);
      for (const tab of ["terminal", "files"]) {
        await open(`vms/${one.id}/${tab}`, one.name ?? "");
        const note = page.locator(".empty");
        await note.getByText(means).waitFor();
        expect(await note.getByRole("button").allInnerTexts()).toEqual(
          way === undefined ? [] : [way],
        );
      }
      for (const tab of ["files", "network", "logs", "snapshots"]) {
        if (shots === undefined) continue;
        await open(`vms/${one.id}/${tab}`, one.name ?? "");
        await looksRight(`${status}-${tab}`);
      }
    },
  );

  test("two hundred VMs in all states, with the longest names, are found", async () => {
    const states: VmStatus[] = ["running", "paused", "suspended", "stopped", "error", "creating"];
    const many = Array.from({ length: 200 }, (_, at) =>
      vm(states[at % states.length] ?? "running", {
        ...(at % 7 === 0 ? { name: `${LONGEST.slice(0, 60)}${at}` } : {}),
        ports:
          at % 5 === 0
            ? [{ protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8000 + at, guestPort: 80 }]
            : [],
      }),
    );
    told.set("/v1/vms", { vms: many });
    await open("vms", "VMs");
    const rows = page.locator("tbody tr");
    await expect.poll(async () => await rows.count()).toBe(200);
    await looksRight("many");
    await page.getByLabel("Search VMs").fill("asleep");
    await expect
      .poll(async () => await rows.count())
      .toBe(many.filter(({ status }) => status === "suspended").length);
    await page.getByLabel("Search VMs").fill("no such");
    await page.getByText("Nothing is called like that.").waitFor();
    const long = many[0];
    await open(`vms/${long?.id}`, long?.name ?? "");
    await looksRight("long-name");
  });

  test("nothing at all is said to be nothing, with what to do about it", async () => {
    const empty: [place: string, title: string, path: string, answer: object, said: string][] = [
      ["vms", "VMs", "/v1/vms", { vms: [] }, "No VMs yet"],
      ["snapshots", "Snapshots", "/v1/snapshots", { snapshots: [] }, "No snapshots yet"],
      [
        "images",
        "Images",
        "/v1/images",
        { images: [], blobBytes: 0, diskBytes: 0 },
        "No images of registries yet",
      ],
      ["volumes", "Volumes", "/v1/volumes", { volumes: [] }, "No volumes yet"],
      ["networks", "Networks", "/v1/networks", { networks: [] }, "No private networks yet"],
    ];
    for (const [place, title, path, answer, said] of empty) {
      told.set(path, answer);
      await open(place, title);
      await page.getByText(said).waitFor();
      await looksRight(`empty-${place}`);
    }
    await open("vms/vm-gone", "vm-gone");
    await page.getByText("There is no such VM").waitFor();
    await looksRight("gone");
  });

  test("a VM that cannot be made says why, and the form is still filled in; by keyboard alone", async () => {
    told.delete("/v1/vms");
    await open("vms", "VMs");
    const press = async (key: string): Promise<void> => await page.keyboard.press(key);
    /** Go on to the control that is called so. */
    const tabTo = async (name: string, forth = true): Promise<void> => {
      for (let steps = 0; steps < 120; steps += 1) {
        await press(forth ? "Tab" : "Shift+Tab");
        const called = await page.evaluate(`(() => {
          const { activeElement: at } = document;
          return at.ariaLabel ?? at.labels?.[0]?.innerText ?? at.innerText ?? "";
        })()`);
        if (String(called).trim() === name) return;
      }
      throw new Error(`no way by Tab to ${name}`);
    };
    await tabTo("New VM");
    await press("Enter");
    await heading("New VM");
    await looksRight("create");
    await tabTo("Name");
    // One of that name is there.
    await page.keyboard.type("first");
    await tabTo("Memory");
    await press("ControlOrMeta+a");
    await page.keyboard.type("256");
    await tabTo("Make it");
    await press("Enter");
    const job = page.locator(".job.failed");
    await job.getByText("ERR_").waitFor();
    await looksRight("failed-create");
    await tabTo("Change what was asked");
    await press("Enter");
    await heading("New VM");
    expect(await page.getByLabel("Name", { exact: true }).inputValue()).toBe("first");
    expect(await page.getByLabel("Memory", { exact: true }).inputValue()).toBe("256");
    await tabTo("Name");
    await press("ControlOrMeta+a");
    await page.keyboard.type("second");
    await press("Enter");
    await heading("second");
    await page.locator("header .status.running").waitFor();
    await looksRight("running");
    // What was made is no draft any more.
    await open("create", "New VM");
    expect(await page.getByLabel("Name", { exact: true }).inputValue()).toBe("");
  });

  test("a tab with work that is not done asks before it is left, and no other does", async () => {
    const dialogs: string[] = [];
    const heard = (dialog: Dialog): void => {
      dialogs.push(dialog.type());
      void dialog.accept();
    };
    page.on("dialog", heard);
    await open("create", "New VM");
    // It never answers.
    await page.route("**/v1/vms", (route) =>
      route.request().method() === "POST" ? undefined : route.fallback(),
    );
    await page.getByLabel("Name", { exact: true }).fill("third");
    await page.getByRole("button", { name: "Make it" }).click();
    await page.locator(".job").getByText("New VM third").waitFor();
    expect(dialogs).toEqual([]);
    await page.reload();
    await heading("VMs");
    expect(dialogs).toEqual(["beforeunload"]);
    await page.getByRole("link", { name: "New VM" }).first().click();
    await page.reload();
    expect(dialogs).toEqual(["beforeunload"]);
    await page.unroute("**/v1/vms");
    page.off("dialog", heard);
  });

  test("a terminal takes what comes without keys (emoji, dictation), and keys once", async () => {
    told.delete("/v1/vms");
    await open(`vms/${real.id}/terminal`, "first");
    const shows = async (text: string): Promise<void> =>
      await page.locator(".xterm-rows").filter({ hasText: text }).waitFor();
    await page.locator(".terminal-box[data-state=open]").waitFor();
    // Nothing of the shell's own line editor, which depends on its language.
    await page.keyboard.type("echo rea''dy; od -An -tx1 -w99");
    await page.keyboard.press("Enter");
    await shows("ready");
    await page.keyboard.type("(");
    await page.keyboard.insertText("é😀漢");
    await page.keyboard.type("eins)");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Control+d");
    await shows("28 c3 a9 f0 9f 98 80 e6 bc a2 65 69 6e 73 29 0a");
  });

  test("a gateway that is gone is said to be gone, and what is shown stays", async () => {
    told.set("/v1/vms", { vms: [vm("running", { name: "kept" })] });
    await open("vms", "VMs");
    await page.getByRole("link", { name: "kept" }).waitFor();
    told.delete("/v1/vms");
    await page.context().setOffline(true);
    await page.getByText("This list may be old").waitFor();
    await page.getByRole("link", { name: "kept" }).waitFor();
    await looksRight("offline");
    await page.context().setOffline(false);
    await page.getByText("This list may be old").waitFor({ state: "detached" });
  });

  test("has met no error of its own", () => {
    expect(complaints).toEqual([]);
  });
});
