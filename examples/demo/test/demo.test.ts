/** The demo as a person runs it: its compiled program in a process of its own, its output and its exit status. */
import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"

const program = fileURLToPath(new URL("../../dist/demo/src/main.js", import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), "effect-spdk-demo-test-"))
const inputs = join(scratch, "in put")
/** Where the demo puts its temporary files; it must be empty whenever the demo has ended. */
const temporary = join(scratch, "tmp")

const sizes = { "empty.bin": 0, "one.bin": 1, "block.bin": 4096, "odd.bin": 5000, "deep/large.bin": 1_500_001 }
const totalBytes = Object.values(sizes).reduce((sum, size) => sum + size, 0)

beforeAll(() => {
  mkdirSync(join(inputs, "deep"), { recursive: true })
  mkdirSync(temporary)
  for (const [name, size] of Object.entries(sizes)) {
    writeFileSync(
      join(inputs, name),
      Uint8Array.from({ length: size }, (_, index) => (index * 31 + size) % 251)
    )
  }
})

afterAll(() => rmSync(scratch, { recursive: true, force: true }))

interface Ended {
  readonly code: number | null
  readonly lines: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
}

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line.trim() !== "")

/** Runs the demo; `onOutput` sees what it has printed so far. */
const demo = (args: ReadonlyArray<string>, onOutput: (stdout: string, interrupt: () => void) => void = () => {}) =>
  new Promise<Ended>((resolve, reject) => {
    const env = { ...process.env, TMPDIR: temporary, INIT_CWD: scratch }
    const child = spawn(process.execPath, [program, ...args], { env, stdio: ["ignore", "pipe", "pipe"] })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text
      onOutput(stdout, () => child.kill("SIGINT"))
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, lines: linesOf(stdout), errors: linesOf(stderr) }))
  })

const suite = (engine: "embedded" | "libspdk"): void => {
  const run = (...args: ReadonlyArray<string>) => demo(["--engine", engine, ...args])

  for (const bdev of ["file", "malloc"]) {
    it(`verifies every file of a folder on a ${bdev} bdev`, async () => {
      const { code, lines } = await run("--bdev", bdev, "--path", inputs)
      expect(lines.at(-1)).toBe(`5 files, ${totalBytes} bytes verified`)
      expect(code).toBe(0)
      expect(readdirSync(temporary)).toEqual([])
    })
  }

  it("takes single files, by --path and without, each once, relative to where it was called", async () => {
    const { code, lines } = await run("in put/one.bin", "--path", "in put/odd.bin", "--path", join(inputs, "one.bin"))
    expect(lines.at(-1)).toBe("2 files, 5001 bytes verified")
    expect(code).toBe(0)
  })

  it("ends with one line and status 1 when a path is missing", async () => {
    const { code, errors } = await run("--path", inputs, "--path", "nowhere/at all")
    expect(errors).toEqual(["error: no such file or folder: nowhere/at all"])
    expect(code).toBe(1)
  })

  it("ends with one line and status 1 when the device is too small", async () => {
    const { code, errors } = await run("--path", inputs, "--size", "1 MiB")
    expect(errors).toEqual(["error: the device is too small: it holds 1048576 bytes, the files need 1519616"])
    expect(code).toBe(1)
  })

  it("names the file and ends with status 1 when a byte on the device has changed", async () => {
    const { code, errors, lines } = await run("--path", inputs, "--corrupt")
    expect(errors).toEqual([`error: 1 of 5 files came back different, first ${join("in put", "deep", "large.bin")}`])
    expect(lines.filter((line) => line.includes("DIFFERS"))).toHaveLength(1)
    expect(code).toBe(1)
  })

  it("releases everything and ends with status 130 on SIGINT", async () => {
    const large = join(scratch, "large.bin")
    writeFileSync(large, "")
    truncateSync(large, 256 * 2 ** 20)
    const { code, lines } = await demo(["--engine", engine, "--path", large], (stdout, interrupt) => {
      if (stdout.includes("files:")) interrupt()
    })
    expect(lines.at(-1)).not.toMatch(/verified/)
    expect(code).toBe(130)
    expect(readdirSync(temporary)).toEqual([])
  })
}

describe("embedded demo", () => suite("embedded"))

const pkgConfigModule = "spdk_event"
if (spawnSync("pkg-config", ["--exists", pkgConfigModule]).status === 0)
  describe("libspdk demo", () => suite("libspdk"))
else describe.skip(`libspdk demo [skipped: no SPDK: pkg-config ${pkgConfigModule} not found]`, () => suite("libspdk"))

describe("demo", () => {
  it("refuses an engine that there is not, and an unknown option", async () => {
    expect((await demo(["--engine", "other"])).code).toBe(1)
    expect((await demo(["--nonsense"])).code).toBe(1)
  })

  it("refuses a size that is none", async () => {
    expect((await demo(["--size", "much"])).code).toBe(1)
  })
})
