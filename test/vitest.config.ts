/**
 * The unit tests of the two packages, the contract suites on each engine, the examples, the bench and the scripts.
 * SPDK starts once per process, so that every file has a process of its own. Busy machines have two cores, and SPDK's own
 * nvmf_tgt polls on a whole one: the libspdk files that start it, or that measure a connection's limits, take turns.
 */
import "./src/support/node20.ts"
import { defineConfig } from "vitest/config"
import { SkippedSuites } from "./src/support/reporter.ts"

/** The long slice soaks for minutes; the short one answers within seconds. */
const testTimeout = process.env["EFFECT_SPDK_LONG"] === "1" ? 1_800_000 : 60_000

/** Where `npm test` wants the results as JSON. */
const report = process.env["EFFECT_SPDK_TEST_REPORT"]

/** Files of libspdk with connections, beside which nothing else runs. */
const libspdkFabrics = "src/libspdk.nvm*.test.ts"

const shared = {
  pool: "forks" as const,
  isolate: true,
  maxWorkers: 2,
  testTimeout,
  hookTimeout: 60_000,
  teardownTimeout: 30_000,
  // The packages are linked, not installed: run what was built, as a user's Node does, instead of transforming it.
  server: { deps: { external: [/\/packages\/[^/]+\/dist\//, /\.node$/] } }
}

export default defineConfig({
  test: {
    root: import.meta.dirname,
    reporters: [
      "default",
      new SkippedSuites(),
      ...(report === undefined ? [] : [["json", { outputFile: report }] satisfies [string, object]])
    ],
    projects: [
      {
        extends: false,
        test: { ...shared, name: "native", root: "../packages/native", include: ["test/**/*.test.ts"] }
      },
      { extends: false, test: { ...shared, name: "core", root: "../packages/core", include: ["test/**/*.test.ts"] } },
      {
        extends: false,
        test: { ...shared, name: "blobstore", root: "../packages/blobstore", include: ["test/**/*.test.ts"] }
      },
      {
        extends: false,
        test: { ...shared, name: "nvmf", root: "../packages/nvmf", include: ["test/**/*.test.ts"] }
      },
      {
        extends: false,
        test: {
          ...shared,
          name: "embedded",
          root: ".",
          include: ["src/embedded.*.test.ts", "src/wire.*.test.ts", "src/registry.test.ts"]
        }
      },
      { extends: false, test: { ...shared, name: "bench", root: "../bench", include: ["test/**/*.test.ts"] } },
      { extends: false, test: { ...shared, name: "scripts", root: "../scripts", include: ["test/**/*.test.mjs"] } },
      {
        extends: false,
        test: {
          ...shared,
          name: "examples",
          root: "../examples",
          include: ["*/test/**/*.test.ts"]
        }
      },
      {
        extends: false,
        test: { ...shared, name: "libspdk", root: ".", include: ["src/libspdk.*.test.ts"], exclude: [libspdkFabrics] }
      },
      {
        extends: false,
        test: { ...shared, name: "libspdk-fabrics", root: ".", include: [libspdkFabrics], fileParallelism: false }
      }
    ]
  }
})
