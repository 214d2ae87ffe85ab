/**
 * What tests take from others and keep below .cache, fetched and built before they come to it, in the order in which they
 * do. What fails here fails again in its test, which says what follows from it. Argument: the step that they belong to, unit or e2e.
 */
import { clusterPrograms } from "../test/cluster/programs.ts";
import { findDocker } from "../test/fixtures/docker-cli.ts";
import { composePlugin } from "../test/fixtures/docker-compose.ts";
import { npmPackages } from "../test/fixtures/kept.ts";
import { pythonWith } from "../test/fixtures/venv.ts";

const makes: Record<string, (() => Promise<unknown>)[]> = {
  unit: [
    async () => await pythonWith("mcp-1.30.0"),
    async () => await pythonWith("mcp-2.3.0"),
    async () => await pythonWith("interpreter-2"),
    async () => await npmPackages("secret-clients"),
    async () => await pythonWith("secret-clients-python"),
    async () => await npmPackages("mcp-inspector"),
  ],
  e2e: [
    findDocker,
    composePlugin,
    async () => await npmPackages("docker-clients"),
    async () => await pythonWith("testcontainers-python-4.15.0"),
    async () => await pythonWith("docker-python-7.2.0"),
    async () => await pythonWith("e2b-python-2.63.0"),
    clusterPrograms,
  ],
};
for (const make of makes[process.argv[2] ?? ""] ?? []) {
  await make().catch((error: unknown) => console.error(String(error).slice(0, 500)));
}
