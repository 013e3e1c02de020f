/**
 * The packages as a stranger gets them: packed, installed in a project outside of this repository, compiled with strict types, and run.
 * `npm run test:long` does it with every package manager and Node that the registry has.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, describe, expect, it } from "vitest"

const isLong = process.env.EFFECT_SPDK_LONG === "1"
const root = fileURLToPath(new URL("../../", import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), "effect-spdk-install-"))
// Tens of thousands of files in the long form.
afterAll(() => rm(scratch, { recursive: true, force: true }), 600_000)

const readJson = (path) => JSON.parse(readFileSync(path, "utf8"))
const { devDependencies, packageManager } = readJson(join(root, "package.json"))
const names = ["native", "core", "blobstore", "nvmf"]

const run = (cwd, command, args, env = {}) => {
  const { error, status, stderr, stdout } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    timeout: 300_000,
    env: { ...process.env, npm_config_update_notifier: "false", ...env }
  })
  expect(status, `${command} ${args.join(" ")}\n${error ?? ""}${stdout}${stderr}`).toBe(0)
  return stdout
}

const tarballs = () => {
  const folder = join(scratch, "tarballs")
  mkdirSync(folder, { recursive: true })
  // What `prepack` would build has been built.
  for (const name of names) {
    run(join(root, "packages", name), "npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", folder])
  }
  return Object.fromEntries(
    names.map((name) => {
      const file = readdirSync(folder).find((entry) => entry.startsWith(`effect-spdk-${name}-`))
      return [`@effect-spdk/${name}`, `file:${join(folder, file)}`]
    })
  )
}

const program = `
import * as Blobstore from "@effect-spdk/blobstore/Blobstore"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as NvmfTarget from "@effect-spdk/nvmf/NvmfTarget"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const Storage = Blobstore.layer({ onEmpty: "init" }).pipe(
  Layer.provide(Bdev.layerMalloc({ size: "8 MiB" })),
  Layer.provideMerge(Spdk.layerEmbedded())
)

const program = Effect.gen(function* () {
  const store = yield* Blobstore.Blobstore
  const blob = yield* store.create({ size: "1 MiB" })
  yield* blob.writeBytes(0, new Uint8Array(100).fill(7))
  yield* blob.sync
  const bytes = yield* blob.readBytes(0, 100)
  return bytes.every((byte) => byte === 7) && typeof NvmfTarget.layer === "function" ? "read as written" : "wrong"
}).pipe(Effect.scoped, Effect.provide(Storage))

const text: string = await Effect.runPromise(program)
console.log(text)
`

const compilers = {
  nodenext: { module: "nodenext", moduleResolution: "nodenext" },
  bundler: { module: "esnext", moduleResolution: "bundler", noEmit: true }
}

const project = (name, dependencies) => {
  const folder = join(scratch, name)
  mkdirSync(folder)
  const { devDependencies: ofCore, peerDependencies } = readJson(join(root, "packages/core/package.json"))
  // The oldest that the range names; the newest is what this repository has.
  const effect = name === "oldest" ? peerDependencies.effect.replace(/^\D*/, "") : ofCore.effect
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({
      name: "a-project",
      private: true,
      type: "module",
      dependencies: { ...dependencies, effect },
      devDependencies: { typescript: devDependencies.typescript, "@types/node": devDependencies["@types/node"] },
      // For the managers that would look for the ones between the packages in the registry.
      overrides: dependencies,
      pnpm: { overrides: dependencies }
    })
  )
  writeFileSync(join(folder, "main.ts"), program)
  for (const [compiler, options] of Object.entries(compilers)) {
    writeFileSync(
      join(folder, `tsconfig.${compiler}.json`),
      JSON.stringify({
        compilerOptions: {
          ...options,
          strict: true,
          exactOptionalPropertyTypes: true,
          noUncheckedIndexedAccess: true,
          target: "es2022",
          types: ["node"]
        },
        include: ["main.ts"]
      })
    )
  }
  return folder
}

const compile = (folder) => {
  for (const compiler of Object.keys(compilers)) {
    run(folder, process.execPath, [join(folder, "node_modules/typescript/bin/tsc"), "-p", `tsconfig.${compiler}.json`])
  }
}

const runProgram = (folder, command = process.execPath) => {
  expect(run(folder, command, ["main.js"]).trim().split("\n").at(-1)).toBe("read as written")
}

/** A program that the registry has, in a folder of its own; undefined where it has none for this machine. */
const tool = (spec, binary) => {
  const folder = mkdtempSync(join(scratch, "tool-"))
  writeFileSync(join(folder, "package.json"), `{ "private": true }`)
  const { status } = spawnSync("npm", ["install", "--silent", "--no-audit", "--no-fund", spec], { cwd: folder })
  return status === 0 ? join(folder, "node_modules", ".bin", binary) : undefined
}

describe("the packed packages", () => {
  const dependencies = tarballs()

  it("install with npm in a project outside of the repository, compile and run", { timeout: 300_000 }, () => {
    const folder = project("npm", dependencies)
    run(folder, "npm", ["install", "--silent", "--prefer-offline", "--no-audit", "--no-fund"])
    compile(folder)
    runProgram(folder)
    expect(readdirSync(join(folder, "node_modules")), "needed by those alone who compile the addon").not.toContain(
      "node-gyp"
    )
    const help = run(folder, "npx", ["effect-spdk", "--help"])
    expect(help).toContain("effect-spdk build")
  })

  if (!isLong) return

  it("install with pnpm", { timeout: 300_000 }, () => {
    const folder = project("pnpm", dependencies)
    run(folder, "npm", ["exec", "--yes", "--prefer-offline", packageManager, "--", "install", "--ignore-scripts"])
    compile(folder)
    runProgram(folder)
  })

  it("install and run with Bun", { timeout: 300_000 }, ({ skip }) => {
    const bun = tool("bun", "bun")
    if (bun === undefined) return skip("the registry has no Bun for this machine")
    const folder = project("bun", dependencies)
    run(folder, bun, ["install"])
    compile(folder)
    runProgram(folder)
    runProgram(folder, bun)
  })

  it.for(["20", "22", "24"])("run on Node %s", { timeout: 300_000 }, (major, { skip }) => {
    const node = tool(`node@${major}`, "node")
    if (node === undefined) return skip(`the registry has no Node ${major} for this machine`)
    const folder = project(`node-${major}`, dependencies)
    const path = `${join(node, "..")}${delimiter}${process.env.PATH}`
    run(folder, "npm", ["install", "--silent", "--prefer-offline", "--no-audit", "--no-fund"], { PATH: path })
    compile(folder)
    runProgram(folder, node)
  })

  it("work with the oldest Effect of their range", { timeout: 300_000 }, () => {
    const folder = project("oldest", dependencies)
    run(folder, "npm", ["install", "--silent", "--prefer-offline", "--no-audit", "--no-fund"])
    compile(folder)
    runProgram(folder)
  })
})
