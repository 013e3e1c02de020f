/** SPDK's own programs as hosts of our target, and its rpc.py at the target's controls. The layer must serve `socketPath`. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { type Capabilities, type EngineLayer, long, scratch } from "../support/engines.ts"
import { type Check, contract, fresh, until, within } from "../support/harness.ts"
import { noHugepages } from "../support/noHugepages.ts"
import { exported, freePort, freshNqn, makeTarget } from "../support/nvmf.ts"
import { rpcPyTool, spdkTool, titled } from "../support/spdkTools.ts"

export const socketPath = join(scratch, "nvmf-tools.sock")

const memory = ["--no-huge", "-s", "256"]
const runMillis = 45_000

interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

interface Running {
  /** So far. */
  readonly stdout: () => string
  readonly stop: Effect.Effect<void>
  readonly ended: Effect.Effect<Ran>
}

/** Asynchronous, because the target is in this process. The end of the scope kills it. */
const start = (program: string, args: ReadonlyArray<string>, preload?: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const env = preload === undefined ? process.env : { ...process.env, LD_PRELOAD: preload }
        return spawn(spdkTool(program).path, [...args], { env, stdio: ["ignore", "pipe", "pipe"] })
      }),
      (child) => Effect.sync(() => void child.kill("SIGKILL"))
    ),
    (child): Running => {
      let stdout = ""
      let stderr = ""
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text))
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text))
      return {
        stdout: () => stdout,
        stop: Effect.sync(() => void child.kill("SIGTERM")),
        ended: within(
          `the end of ${program} ${args.join(" ")}`,
          Effect.callback<Ran>((resume) => {
            child.on("error", (error) => resume(Effect.succeed({ code: -1, stdout, stderr: error.message })))
            child.on("close", (code) => resume(Effect.succeed({ code, stdout, stderr })))
          }),
          runMillis
        )
      }
    }
  )

const run = (program: string, args: ReadonlyArray<string>): Effect.Effect<Ran> =>
  Effect.scoped(Effect.flatMap(start(program, args), ({ ended }) => ended))

/** What spdk_nvme_perf says of every queue that it has closed itself, also to SPDK's own target. */
const farewell = /DISCONNECTED\] CQ transport error -6 /

/** As SPDK's log and its programs write them; reports have lines about errors that are none. */
const complaint = /\*ERROR\*|^ERROR|\b[Ff]ailed\b|completed with error/

/** It ended well, and had nothing to complain about. */
const clean = ({ code, stderr, stdout }: Ran): string => {
  const printed = `${stdout}\n${stderr}`
  assert.strictEqual(code, 0, printed)
  const complaints = printed.split("\n").filter((line) => complaint.test(line) && !farewell.test(line))
  assert.deepStrictEqual(complaints, [])
  return stdout
}

const rpcPy = (...args: ReadonlyArray<string>): Effect.Effect<Ran> =>
  run("rpc.py", ["-s", socketPath, "-t", "20", ...args])

const rpcPyJson = (...args: ReadonlyArray<string>): Effect.Effect<unknown> =>
  Effect.map(rpcPy(...args), (ran) => {
    assert.strictEqual(ran.code, 0, ran.stderr)
    return ran.stdout.trim() === "" ? undefined : JSON.parse(ran.stdout)
  })

/** What is looked at of what rpc.py prints of a subsystem. */
interface Told {
  readonly nqn: string
  readonly serial_number?: string
  readonly model_number?: string
  readonly max_namespaces?: number
  readonly allow_any_host?: boolean
  readonly hosts?: ReadonlyArray<object>
  readonly listen_addresses?: ReadonlyArray<object>
  readonly namespaces?: ReadonlyArray<object>
}

/** Queue depth, bytes, kind of I/O, digests. */
type Load = readonly [depth: number, ioBytes: number, kind: "randread" | "randwrite" | "randrw", digests: string]

const loads: ReadonlyArray<Load> = long
  ? [1, 32, 128].flatMap((depth) =>
      [4096, 131_072].flatMap((ioBytes) =>
        (["randread", "randwrite", "randrw"] as const).flatMap((kind) =>
          ["", "-H", "-I", "-H -I"].map((digests): Load => [depth, ioBytes, kind, digests])
        )
      )
    )
  : [
      [1, 4096, "randrw", ""],
      [32, 131_072, "randwrite", "-H -I"],
      [128, 4096, "randread", "-H"],
      [128, 131_072, "randrw", "-I"]
    ]

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check, it) => {
    const withProgram = (program: string, title: string, test: Parameters<Check>[1]): void => {
      const tool = program === "rpc.py" ? rpcPyTool : spdkTool(program)
      if (tool.missing !== undefined) it.skip(titled(title, tool), () => {})
      else check(title, test, { timeoutMillis: 60_000 })
    }
    const transportId = (port: string, nqn: string) =>
      `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port} subnqn:${nqn}`

    withProgram("spdk_nvme_identify", "spdk_nvme_identify reads all that there is to read", () =>
      Effect.gen(function* () {
        const { nqn, port } = yield* exported({ serialNumber: "TOOLS1", modelNumber: "Model 7" })
        const report = clean(yield* run("spdk_nvme_identify", [...memory, "-r", transportId(port, nqn)]))
        assert.match(report, /Serial Number: +TOOLS1/)
        assert.match(report, /Model Number: +Model 7/)
        assert.match(report, /Size \(in LBAs\): +8192 /)
        assert.include(report, nqn)
      })
    )

    withProgram("spdk_nvme_discover", "spdk_nvme_discover finds the subsystem, and hears of the next one", () =>
      Effect.gen(function* () {
        const preload = noHugepages()
        assert.isDefined(preload, "a C compiler, which spdk_nvme_discover needs to run without hugepages")
        const { nqn, port, target } = yield* exported()
        yield* target.discovery.addListener({ trsvcid: port })
        const discovery = `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port}`
        const discover = yield* start("spdk_nvme_discover", ["-r", discovery], preload)
        const told = (name: string) =>
          until(
            `a record of ${name}`,
            Effect.sync(() => discover.stdout().includes(`NVM Subsystem Qualified Name:          ${name}\n`)),
            runMillis
          )
        yield* told(nqn)
        assert.match(discover.stdout(), new RegExp(`Transport Service Identifier: +${port} *\n`))
        assert.match(discover.stdout(), /Subsystem Type: +2 /)
        const next = yield* exported()
        yield* told(next.nqn)
        const ending = yield* Effect.forkScoped(discover.ended, { startImmediately: true })
        yield* discover.stop
        clean(yield* Fiber.join(ending))
      })
    )

    for (const [depth, ioBytes, kind, digests] of loads) {
      const title = `spdk_nvme_perf, queue depth ${depth}, ${ioBytes} bytes, ${kind}${digests && `, ${digests}`}`
      withProgram("spdk_nvme_perf", title, () =>
        Effect.gen(function* () {
          const { namespace, nqn, port, target } = yield* exported({ numBlocks: 65_536 })
          assert.strictEqual(namespace.nsid, 1)
          const before = yield* target.stats
          const mix = kind === "randrw" ? ["-M", "50"] : []
          const options = [
            "-q",
            `${depth}`,
            "-o",
            `${ioBytes}`,
            "-w",
            kind,
            ...mix,
            ...digests.split(" ").filter(Boolean)
          ]
          const report = clean(
            yield* run("spdk_nvme_perf", [...memory, ...options, "-t", "1", "-r", transportId(port, nqn)])
          )
          assert.isAbove(Number(/^Total +: +([\d.]+)/m.exec(report)?.[1]), 0, report)
          const completedOf = ({ pollGroups }: typeof before) =>
            pollGroups.reduce((sum, group) => sum + group.completedNvmeIo, 0)
          assert.isAbove(completedOf(yield* target.stats), completedOf(before))
        })
      )
    }

    withProgram("rpc.py", "rpc.py builds, changes and takes down a subsystem", () =>
      Effect.gen(function* () {
        // The transport stays with the target.
        yield* makeTarget
        const transports = yield* rpcPyJson("nvmf_get_transports", "--trtype", "TCP")
        assert.deepInclude(Array.isArray(transports) ? transports[0] : undefined, { trtype: "TCP" })
        const nqn = freshNqn("by-rpc-py")
        const host = freshNqn("host")
        const port = yield* freePort
        const at = ["-t", "TCP", "-a", "127.0.0.1", "-s", port, "-f", "ipv4"]
        const bdev = fresh("rpcpy")
        const found = () =>
          Effect.map(rpcPyJson("nvmf_get_subsystems"), (all) =>
            (all as ReadonlyArray<Told>).find((one) => one.nqn === nqn)
          )
        const done = (...args: ReadonlyArray<string>) =>
          Effect.map(rpcPy(...args), ({ code, stderr }) => assert.strictEqual(code, 0, `${args.join(" ")}: ${stderr}`))
        yield* done("bdev_malloc_create", "-b", bdev, "1", "512")
        yield* done("nvmf_create_subsystem", nqn, "-s", "RPCPY1", "-d", "By rpc.py", "-m", "4")
        yield* done("nvmf_subsystem_add_ns", nqn, bdev, "-n", "3")
        yield* done("nvmf_subsystem_add_host", nqn, host)
        yield* done("nvmf_subsystem_add_listener", nqn, ...at)
        assert.deepInclude(yield* found(), { serial_number: "RPCPY1", model_number: "By rpc.py", max_namespaces: 4 })
        assert.deepInclude(yield* found(), { allow_any_host: false, hosts: [{ nqn: host }] })
        const address = { trtype: "TCP", adrfam: "IPv4", traddr: "127.0.0.1", trsvcid: port }
        assert.deepInclude((yield* found())?.listen_addresses?.[0], address)
        assert.deepInclude((yield* found())?.namespaces?.[0], { nsid: 3, bdev_name: bdev })
        assert.deepStrictEqual(yield* rpcPyJson("nvmf_subsystem_get_controllers", nqn), [])
        assert.deepStrictEqual(yield* rpcPyJson("nvmf_subsystem_get_qpairs", nqn), [])
        // Scripts before SPDK 26.05 spell it another way.
        const { stdout: help } = yield* rpcPy("nvmf_subsystem_allow_any_host", "--help")
        const allow = help.includes("--allow-any-host") ? "--allow-any-host" : "--enable"
        yield* done("nvmf_subsystem_allow_any_host", nqn, allow)
        yield* done("nvmf_subsystem_remove_host", nqn, host)
        assert.deepInclude(yield* found(), { allow_any_host: true, hosts: [] })
        const refused = yield* rpcPy("nvmf_subsystem_add_listener", nqn, ...at)
        assert.notStrictEqual(refused.code, 0)
        assert.include(refused.stderr + refused.stdout, "Invalid parameters")
        yield* done("nvmf_subsystem_remove_listener", nqn, ...at)
        yield* done("nvmf_subsystem_remove_ns", nqn, "3")
        assert.deepInclude(yield* found(), { listen_addresses: [], namespaces: [] })
        yield* done("nvmf_delete_subsystem", nqn)
        assert.isUndefined(yield* found())
        yield* done("bdev_malloc_delete", bdev)
        assert.isDefined(yield* rpcPyJson("nvmf_get_stats"))
      })
    )
  })
