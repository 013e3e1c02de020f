/** The demo as a person runs it: its compiled program in a process of its own, its output and its exit status. */
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { describeLibspdk } from "../../support/run.ts"

const program = fileURLToPath(new URL("../../dist/demo/src/main.js", import.meta.url))
const scratch = mkdtempSync(join(tmpdir(), "effect-spdk-demo-test-"))
const inputs = join(scratch, "in put")
/** Where the demo puts its temporary files; it must be empty whenever the demo has ended. */
const temporary = join(scratch, "tmp")

const sizes = { "empty.bin": 0, "one.bin": 1, "block.bin": 4096, "odd.bin": 5000, "deep/large.bin": 1_500_001 }
const totalBytes = Object.values(sizes).reduce((sum, size) => sum + size, 0)
const verified = new RegExp(`^5 files, ${totalBytes} bytes verified, \\d+ MiB/s$`)

const contentOf = (name: string, size: number) =>
  Uint8Array.from({ length: size }, (_, index) => (index * 31 + size + name.length) % 251)

beforeAll(() => {
  mkdirSync(join(inputs, "deep"), { recursive: true })
  mkdirSync(temporary)
  for (const [name, size] of Object.entries(sizes)) writeFileSync(join(inputs, name), contentOf(name, size))
})

afterAll(() => rmSync(scratch, { recursive: true, force: true }))

interface Ended {
  readonly code: number | null
  readonly lines: ReadonlyArray<string>
  readonly errors: ReadonlyArray<string>
}

const linesOf = (text: string): ReadonlyArray<string> => text.split("\n").filter((line) => line.trim() !== "")

/** Goes before a program, which is interrupted as Ctrl-C does it as soon as it prints `text`: nobody else is quick enough for sure. */
const interruptedAt = (text: string): string => {
  const source = `
    const { write } = process.stdout
    process.stdout.write = function (chunk, ...rest) {
      if (String(chunk).includes(${JSON.stringify(text)})) process.kill(process.pid, "SIGINT")
      return write.call(this, chunk, ...rest)
    }`
  return `--import=data:text/javascript,${encodeURIComponent(source)}`
}

/** Runs the demo, with options of Node. */
const demo = (args: ReadonlyArray<string>, ...options: ReadonlyArray<string>) =>
  new Promise<Ended>((resolve, reject) => {
    const env = { ...process.env, TMPDIR: temporary, INIT_CWD: scratch }
    const child = spawn(process.execPath, [...options, program, ...args], { env, stdio: ["ignore", "pipe", "pipe"] })
    let stdout = ""
    let stderr = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
    child.once("error", reject)
    child.once("close", (code) => resolve({ code, lines: linesOf(stdout), errors: linesOf(stderr) }))
  })

/** A device for one test, in the scratch folder. */
let devices = 0
const newDevice = (): string => join(scratch, `device${++devices}.img`)

/** Flips the first byte of the large file, wherever it lies on the device. */
const flipOnDevice = (device: string): void => {
  const start = contentOf("deep/large.bin", sizes["deep/large.bin"]).subarray(0, 4096)
  const at = readFileSync(device).indexOf(start)
  expect(at).toBeGreaterThan(0)
  const file = openSync(device, "r+")
  writeSync(file, Uint8Array.from([(start[0] ?? 0) ^ 1]), 0, 1, at)
  closeSync(file)
}

const large = join("in put", "deep", "large.bin")

type EngineName = "embedded" | "libspdk"

const suite = (engine: EngineName): void => {
  const run = (...args: ReadonlyArray<string>) => demo(["--engine", engine, ...args])

  for (const bdev of ["file", "malloc"]) {
    it(`verifies every file of a folder on a ${bdev} bdev`, async () => {
      const { code, lines } = await run("--bdev", bdev, "--path", inputs)
      expect(lines.at(-1)).toMatch(verified)
      expect(code).toBe(0)
      expect(readdirSync(temporary)).toEqual([])
    })
  }

  it("stores large files, which two threads hash, under the hashes that they have", async () => {
    const folder = join(scratch, `large-${engine}`)
    mkdirSync(folder)
    const contents = [9 * 2 ** 20 + 1, 10 * 2 ** 20].map((size, index) => contentOf(String(index), size))
    for (const [index, content] of contents.entries()) writeFileSync(join(folder, String(index)), content)
    const { code, lines } = await demo(["--engine", engine, "--device", newDevice(), folder])
    expect(code).toBe(0)
    for (const content of contents) {
      const sha256 = createHash("sha256").update(content).digest("hex").slice(0, 16)
      expect(lines.filter((line) => line.includes(sha256) && line.includes("same"))).toHaveLength(1)
    }
  })

  it("stores more chunks at once than it has buffers, of files that wait for each other", async () => {
    const many = join(scratch, `many-${engine}`)
    mkdirSync(many)
    // Sparse, but each with a byte of its own in its last chunk.
    for (let index = 0; index < 20; index++) {
      const path = join(many, `${index}.bin`)
      writeFileSync(path, Uint8Array.of(index))
      truncateSync(path, 6 * 2 ** 20)
      appendFileSync(path, Uint8Array.of(index))
    }
    const { code, lines } = await run("--path", many)
    rmSync(many, { recursive: true })
    expect(lines.at(-1)).toMatch(new RegExp(`^20 files, ${20 * (6 * 2 ** 20 + 1)} bytes verified`))
    expect(code).toBe(0)
  })

  it("takes single files, by --path and without, each once, relative to where it was called", async () => {
    const { code, lines } = await run("in put/one.bin", "--path", "in put/odd.bin", "--path", join(inputs, "one.bin"))
    expect(lines.at(-1)).toMatch(/^2 files, 5001 bytes verified/)
    expect(code).toBe(0)
  })

  it("skips in a second run what has not changed, by time and by hash, and stores what has", async () => {
    const device = newDevice()
    const own = join(scratch, `own-${engine}`)
    mkdirSync(own)
    for (const name of ["same", "touched", "changed"]) writeFileSync(join(own, name), contentOf(name, 9000))
    const first = await run("--device", device, own)
    expect(first.lines.at(-2)).toBe("3 files stored, 0 unchanged")
    const later = new Date(Date.now() + 60_000)
    utimesSync(join(own, "touched"), later, later)
    writeFileSync(join(own, "changed"), contentOf("has changed", 9000))
    utimesSync(join(own, "changed"), later, later)
    const second = await run("--device", device, own)
    expect(second.errors).toEqual([])
    expect(second.lines.at(-2)).toBe("1 files stored, 2 unchanged")
    expect(second.lines.at(-1)).toMatch(/^3 files, 27000 bytes verified/)
    const third = await run("--device", device, own)
    expect(third.lines.at(-2)).toBe("0 files stored, 3 unchanged")
    const list = await run("--device", device, "--list")
    expect(list.lines.at(-1)).toBe("3 files, 27000 bytes")
  })

  it("lists, gets back with time and bytes, and deletes", async () => {
    const device = newDevice()
    expect((await run("--device", device, "in put")).code).toBe(0)
    const list = await run("--device", device, "--list")
    expect(list.lines.filter((line) => line.includes("in put/"))).toHaveLength(5)
    const out = join(scratch, `out-${engine}`)
    const got = await run(
      "--device",
      device,
      "--get",
      "in put/deep/large.bin",
      "--get",
      "in put/empty.bin",
      "--out",
      out
    )
    expect(got.lines.at(-1)).toBe("2 files, 1500001 bytes verified")
    expect(readFileSync(join(out, large)).equals(readFileSync(join(scratch, large)))).toBe(true)
    // Node keeps times as floating-point milliseconds.
    expect(Math.abs(statSync(join(out, large)).mtimeMs - statSync(join(scratch, large)).mtimeMs)).toBeLessThan(2)
    expect(statSync(join(out, "in put/empty.bin")).size).toBe(0)
    const deleted = await run("--device", device, "--delete", "in put/odd.bin")
    expect(deleted.lines.at(-1)).toBe("1 files, 5000 bytes deleted")
    const gone = await run("--device", device, "--get", "in put/odd.bin", "--out", out)
    expect([gone.code, gone.errors]).toEqual([1, ["error: no such file on the device: in put/odd.bin"]])
    expect((await run("--device", device, "--list")).lines.at(-1)).toBe(`4 files, ${totalBytes - 5000} bytes`)
  })

  it("grows a device that is too small when it is told to", async () => {
    const device = newDevice()
    expect((await run("--device", device, "--size", "8 MiB", "in put/one.bin")).code).toBe(0)
    const big = join(scratch, `big-${engine}`)
    writeFileSync(big, contentOf("big", 5_000_000))
    const small = await run("--device", device, big)
    const needed = /^error: the device is too small: it holds 8388608 bytes, the files need (\d+)$/.exec(
      small.errors.join("\n")
    )?.[1]
    expect([small.code, needed]).toEqual([1, expect.any(String)])
    const grown = await run("--device", device, "--size", needed ?? "", big)
    expect([grown.errors, grown.lines.at(-1)]).toEqual([[], expect.stringMatching(/^1 files, 5000000 bytes verified/)])
    expect((await run("--device", device, "--list")).lines.at(-1)).toBe("2 files, 5000001 bytes")
  })

  it("ends with one line and status 1 when a path is missing", async () => {
    const { code, errors } = await run("--path", inputs, "--path", "nowhere/at all")
    expect(errors).toEqual(["error: no such file or folder: nowhere/at all"])
    expect(code).toBe(1)
  })

  it("says what a new device must have, and that is enough", async () => {
    const { code, errors } = await run("--path", inputs, "--size", "1 MiB")
    const needed = /^error: the device is too small: it holds 1048576 bytes, the files need (\d+)$/.exec(
      errors.join("\n")
    )?.[1]
    expect([code, needed]).toEqual([1, expect.any(String)])
    expect((await run("--path", inputs, "--size", needed ?? "")).lines.at(-1)).toMatch(verified)
  })

  it("names the file and ends with status 1 when a byte on the device has changed", async () => {
    const { code, errors, lines } = await run("--path", inputs, "--corrupt")
    expect(errors).toEqual(["error: 1 of 5 files came back different, first in put/deep/large.bin"])
    expect(lines.filter((line) => line.includes("DIFFERS"))).toHaveLength(1)
    expect(code).toBe(1)
  })

  it("notices a byte that changed between two runs, in what it skips and in what it gets", async () => {
    const device = newDevice()
    await run("--device", device, "--path", inputs)
    flipOnDevice(device)
    const second = await run("--device", device, "--path", inputs)
    expect(second.errors).toEqual(["error: 1 of 5 files came back different, first in put/deep/large.bin"])
    const out = join(scratch, `damaged-${engine}`)
    const got = await run("--device", device, "--get", "in put/deep/large.bin", "--out", out)
    expect(got.errors).toEqual(["error: in put/deep/large.bin has changed on the device: its SHA-256 is another one"])
    expect([second.code, got.code]).toEqual([1, 1])
    expect(readdirSync(join(out, "in put", "deep"))).toEqual([])
  })

  it("releases everything and ends with status 130 on SIGINT, and the device is whole", async () => {
    const sparse = join(scratch, "large.bin")
    writeFileSync(sparse, "")
    truncateSync(sparse, 256 * 2 ** 20)
    const stop = interruptedAt("files:")
    const { code, lines } = await demo(["--engine", engine, "--path", sparse], stop)
    expect(lines.at(-1)).not.toMatch(/verified/)
    expect(code).toBe(130)
    expect(readdirSync(temporary)).toEqual([])
    const device = newDevice()
    expect((await run("--device", device, "--size", "512 MiB", inputs)).code).toBe(0)
    expect((await demo(["--engine", engine, "--device", device, sparse], stop)).code).toBe(130)
    expect((await run("--device", device, inputs)).lines.at(-2)).toBe("0 files stored, 5 unchanged")
    expect((await run("--device", device, "--list")).lines.at(-1)).toBe(`5 files, ${totalBytes} bytes`)
  })
}

/** Each test runs the program several times, on a machine that may do other things too. */
const patient = { timeout: 240_000 }

describe("embedded demo", patient, () => suite("embedded"))

describeLibspdk("demo", patient, () => suite("libspdk"))
describeLibspdk("and embedded demo", patient, () => {
  const orders: ReadonlyArray<readonly [EngineName, EngineName]> = [
    ["embedded", "libspdk"],
    ["libspdk", "embedded"]
  ]
  for (const [writer, reader] of orders) {
    it(`reads on ${reader} what ${writer} has stored`, async () => {
      const device = newDevice()
      expect((await demo(["--engine", writer, "--device", device, inputs])).lines.at(-1)).toMatch(verified)
      const { errors, lines } = await demo(["--engine", reader, "--device", device, inputs])
      expect(errors).toEqual([])
      expect(lines.slice(-2)).toEqual(["0 files stored, 5 unchanged", expect.stringMatching(verified)])
    })
  }
})

describe("demo", patient, () => {
  const embedded = (...args: ReadonlyArray<string>) => demo(["--engine", "embedded", ...args])

  it("refuses an engine that there is not, and an unknown option", async () => {
    expect((await demo(["--engine", "other"])).code).toBe(1)
    expect((await demo(["--nonsense"])).code).toBe(1)
  })

  it("refuses a size that is none", async () => {
    expect((await demo(["--size", "much"])).code).toBe(1)
  })

  it("refuses what does not go together, and questions to a device that is not there", async () => {
    expect((await embedded("--list", "--device", newDevice(), "in put")).errors[0]).toMatch(/do not go together/)
    expect((await embedded("--list")).errors).toEqual(["error: --list, --get and --delete need --device"])
    const device = newDevice()
    expect((await embedded("--list", "--device", device)).errors).toEqual([`error: no such device: ${device}`])
    expect(existsSync(device)).toBe(false)
  })

  it("does not touch a file that is no blobstore", async () => {
    const device = newDevice()
    writeFileSync(device, "a letter")
    const { code, errors } = await embedded("--device", device, "in put")
    expect([code, errors]).toEqual([1, [`error: ${device} holds something else than a blobstore`]])
    expect(readFileSync(device, "utf8")).toBe("a letter")
  })

  it("does not load a device whose metadata is damaged", async () => {
    const device = newDevice()
    await embedded("--device", device, "in put")
    const file = openSync(device, "r+")
    writeSync(file, Uint8Array.from([0xff]), 0, 1, 40)
    closeSync(file)
    const { code, errors } = await embedded("--device", device, "--list")
    expect([code, errors]).toEqual([1, [expect.stringMatching(/^error: .*Corrupted/)]])
  })
})
