/**
 * Docker, Compose and rootless podman of Debian's packages in a guest, in the default disk mode, as
 * the default user with sudo. Only with VMSAN_TEST_CONTAINERS=1: it fetches some 220 packages, and
 * takes many minutes where the guest is emulated.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { layoutOf } from "../../../src/util/paths.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { ownPort } from "../../fixtures/ports.ts";
import { put, tool, umociImage } from "../images.ts";
import { vmsanOk } from "../support.ts";
import { copyFile, mkdir, symlink } from "node:fs/promises";

const wanted = process.env["VMSAN_TEST_CONTAINERS"] === "1";
if (!wanted) {
  process.stderr.write(
    "containers: left out, since it fetches some 220 packages; VMSAN_TEST_CONTAINERS=1 runs it\n",
  );
}
const LIMIT_MS = 1_800_000;
const packages = [
  ["docker.io", "docker-compose", "iptables", "kmod"],
  ["podman", "uidmap", "slirp4netns", "fuse-overlayfs", "dbus-user-session"],
  ["sudo", "ca-certificates", "curl", "procps"],
].flat();

describe.runIf(wanted)("containers in a guest", () => {
  const made = installation("base");
  const work = temporary();
  beforeAll(async () => {
    const recipe = { kind: "debian", packages };
    const runtimes = { containers: { recipe, user: "ubuntu", workdir: "/home/ubuntu" } };
    await writeFile(layoutOf(made.dir).runtimesFile, JSON.stringify({ schema: 1, runtimes }));
    // It is made here: the rung below has less time.
    await vmsanOk(["setup", "--runtime", "containers"], { dir: made.dir, timeoutMs: LIMIT_MS });
  }, LIMIT_MS);
  const guest = booted(made, {
    runtime: "containers",
    memory: "1536m",
    vcpus: 2,
    ports: [`${ownPort}:8080`],
    mounts: ["docker:/var/lib/docker", "/home/ubuntu/.local/share/containers"],
  });

  /** Standard output of a script in the guest, which succeeds. */
  async function sh(script: string): Promise<string> {
    const { stdout, stderr, exitCode } = await guest.vm.exec(["sh", "-ec", script]);
    expect(exitCode, stderr.toString()).toBe(0);
    return stdout.toString();
  }
  /** Wait for a condition in the guest. */
  const until = (condition: string): Promise<string> =>
    sh(`until ${condition} >/dev/null 2>&1; do sleep 1; done`);
  const daemon = (line: string): Promise<string> =>
    sh(`sudo sh -c 'nohup ${line} >/var/log/${line.split(" ")[0]}.log 2>&1 </dev/null &'`);

  test(
    "docker run -p of an image from a file serves a page to the host; build and compose work",
    async () => {
      const web = await umociImage(
        join(work.path, "web"),
        [
          async (rootfs) => {
            await mkdir(join(rootfs, "bin"), { recursive: true });
            await mkdir(join(rootfs, "www"));
            await copyFile("/bin/busybox", join(rootfs, "bin/busybox"));
            for (const name of ["sh", "httpd", "wget", "sleep"]) {
              await symlink("busybox", join(rootfs, "bin", name));
            }
            await put(join(rootfs, "www/index.html"), "a page\n");
          },
        ],
        { cmd: ["/bin/httpd", "-f", "-p", "80", "-h", "/www"] },
      );
      const archive = join(work.path, "web.tar");
      await tool("skopeo", "copy", web, `docker-archive:${archive}:web:1`);
      await guest.vm.upload([archive], "/home/ubuntu");
      // Apart: dockerd gives its own containerd 15 seconds, too few where the processor is emulated.
      await daemon("containerd");
      await until("test -S /run/containerd/containerd.sock");
      await daemon("dockerd --containerd=/run/containerd/containerd.sock");
      await until("sudo docker version");
      expect(await sh("sudo docker info 2>/dev/null")).toMatch(/Storage Driver: overlay2/);
      await sh("sudo docker load -i web.tar && sudo docker run -d --name web -p 8080:80 web:1");
      const page = async (): Promise<string> =>
        await fetch(`http://127.0.0.1:${ownPort}/`).then(
          (reply) => reply.text(),
          () => "",
        );
      await expect.poll(page, { timeout: 300_000, interval: 2000 }).toBe("a page\n");

      await sh(`mkdir -p app && cd app
cat >Dockerfile <<'END'
FROM web:1
RUN echo "a built page" >/www/index.html
END
sudo docker build -t built .
cat >docker-compose.yml <<'END'
version: "3"
services:
  back:
    image: built
  front:
    image: web:1
    command: ["/bin/sh", "-c", "until /bin/wget -qO /www/index.html http://back/; do sleep 1; done; exec /bin/httpd -f -p 80 -h /www"]
    ports: ["8081:80"]
    depends_on: [back]
END
sudo COMPOSE_HTTP_TIMEOUT=900 docker-compose up -d`);
      await until("curl -sf http://127.0.0.1:8081/");
      expect(await sh("curl -s http://127.0.0.1:8081/")).toBe("a built page\n");
    },
    LIMIT_MS,
  );

  test(
    "a fork of it has all of them answering, while the first goes on",
    async () => {
      const [other] = await made.vmsan.fork(guest.id);
      if (other === undefined) throw new Error("no fork");
      expect(other.view.mounts).toContainEqual(
        expect.objectContaining({ name: "docker", target: "/var/lib/docker", copy: true }),
      );
      const pages = "curl -sf http://127.0.0.1:8080/ && curl -sf http://127.0.0.1:8081/";
      // Its processes go on where the first one's were; compose's services still find each other.
      const again =
        "sudo docker exec app_front_1 /bin/wget -qO- http://back/ && sudo docker ps -q | wc -l";
      for (const vm of [other, guest.vm]) {
        const { stdout, stderr } = await vm.exec(["sh", "-c", `${pages} && ${again}`]);
        expect(stdout.toString(), stderr.toString()).toBe(
          "a page\na built page\na built page\n3\n",
        );
      }
      await other.remove();
      await sh(
        "sudo docker rm -f web && cd app && sudo COMPOSE_HTTP_TIMEOUT=900 docker-compose down",
      );
    },
    LIMIT_MS,
  );

  test(
    "rootless podman runs an image and publishes a port",
    async () => {
      await sh("podman load -i web.tar && podman run -d --name pod -p 8090:80 web:1");
      await until("curl -sf http://127.0.0.1:8090/");
      expect(
        await sh("curl -s http://127.0.0.1:8090/; podman exec pod /bin/sh -c 'echo $$' | wc -l"),
      ).toBe("a page\n1\n");
      expect(await sh("podman info --format '{{.Host.Security.Rootless}}'")).toBe("true\n");
    },
    LIMIT_MS,
  );
});
