/** SPDK's own `blobcli`, on an image file: what it says of a blobstore, and what it gets out of it. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { readFileSync, writeFileSync } from "node:fs"
import { scratchFile } from "./engines.ts"
import { noHugepages } from "./noHugepages.ts"
import { type SpdkTool, spdkTool } from "./spdkTools.ts"

const program = spdkTool("blobcli")

const preload = program.missing === undefined ? noHugepages() : undefined

export const blobcliTool: SpdkTool =
  program.missing === undefined && preload === undefined
    ? { ...program, missing: "no C compiler, which blobcli needs to run without hugepages" }
    : program

const deadlineMillis = 60_000

/** Runs commands on the image, a file with blocks of `blockSize`, in one process; hands on what each of them printed. */
const blobcli = (
  image: string,
  blockSize: number,
  commands: ReadonlyArray<string>
): Effect.Effect<ReadonlyArray<string>> =>
  Effect.flatMap(Effect.all([scratchFile, scratchFile]), ([config, script]) =>
    Effect.callback<ReadonlyArray<string>>((resume) => {
      const create = { method: "bdev_aio_create", params: { name: "image", filename: image, block_size: blockSize } }
      writeFileSync(config, JSON.stringify({ subsystems: [{ subsystem: "bdev", config: [create] }] }))
      writeFileSync(script, commands.map((command) => `${command}\n`).join(""))
      const child = spawn(program.path, ["-j", config, "-b", "image", "-T", script], {
        env: { ...process.env, LD_PRELOAD: preload },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let stdout = ""
      let stderr = ""
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
      const timer = setTimeout(() => child.kill("SIGKILL"), deadlineMillis)
      child.on("close", (code, signal) => {
        clearTimeout(timer)
        const [, ...outputs] = stdout.split(/^SCRIPT NOW PROCESSING: .*$/m)
        // The last one is the command to exit, which it adds itself.
        const failed = code !== 0 || outputs.length !== commands.length + 1 || /ERROR|Error in/.test(stdout)
        const said = `blobcli ${commands.join("; ")}: ${signal ?? code}\n${stdout}\n${stderr}`
        resume(failed ? Effect.die(new Error(said)) : Effect.succeed(outputs))
      })
      return Effect.sync(() => {
        clearTimeout(timer)
        child.kill("SIGKILL")
      })
    })
  )

const field = (text: string, name: string): string => {
  const found = new RegExp(`^\\s*${name}: (.*)$`, "m").exec(text)
  assert.isNotNull(found, `"${name}" in ${text}`)
  return found?.[1]?.trim() ?? ""
}

export interface SeenBlob {
  readonly id: number
  readonly clusters: number
  readonly xattrNames: ReadonlyArray<string>
  /** All of it, as exported to a file. */
  readonly content: Uint8Array
}

export interface SeenStore {
  /** Of all blobs. */
  readonly ids: ReadonlyArray<number>
  readonly freeClusters: number
  readonly clusterSize: number
  readonly superBlob: string
  /** Those that were asked for. */
  readonly blobs: ReadonlyArray<SeenBlob>
}

/** What blobcli sees in the image. Fails the test when it calls a checksum wrong. */
export const inspect = Effect.fnUntraced(function* (image: string, blockSize: number, ids: ReadonlyArray<number>) {
  const files = yield* Effect.forEach(ids, () => scratchFile)
  const shows = ids.flatMap((id, index) => [`-s ${id}`, `-d ${id} ${files[index]}`])
  const [list = "", store = "", dump = "", ...rest] = yield* blobcli(image, blockSize, [
    "-l blobs",
    "-s bs",
    "-D",
    ...shows
  ])
  assert.include(dump, 'Signature: "SPDKBLOB" (OK)')
  assert.notInclude(dump, "Mismatch")
  const seen: SeenStore = {
    ids: [...list.matchAll(/Found blob with ID# (0x[0-9a-f]+)/g)].map(([, id]) => Number(id)),
    freeClusters: Number(field(store, "# free clusters")),
    clusterSize: Number(field(store, "cluster size")),
    superBlob: field(store, "super blob ID"),
    blobs: ids.map((id, index): SeenBlob => {
      const shown = rest[index * 2] ?? ""
      return {
        id,
        clusters: Number(field(shown, "# of clusters")),
        xattrNames: [...shown.matchAll(/^\(\d+\) Name:(.*)$/gm)].map(([, name]) => name ?? ""),
        content: new Uint8Array(readFileSync(files[index] ?? ""))
      }
    })
  }
  return seen
})
