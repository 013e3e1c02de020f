/**
 * The engines that the contract suites run on. The embedded one is always there. libspdk is there when pkg-config
 * finds SPDK: then its suites must run, and an addon that does not load is a failure and not a reason to skip.
 */
import * as Spdk from "@effect-spdk/core/Spdk"
import type * as SpdkOptions from "@effect-spdk/core/SpdkOptions"
import type { SpdkError } from "@effect-spdk/core/SpdkError"
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { libspdkMissing } from "./libspdkMissing.ts"

export type EngineLayer = Layer.Layer<Spdk.Services, SpdkError>

/** What a suite must know about the engine it runs on: never what to expect of a behaviour, only what exists there. */
export interface Capabilities {
  readonly engine: "libspdk" | "embedded"
  /** The engine takes time from Effect's Clock, so that a TestClock drives its pollers and timers. */
  readonly virtualTime: boolean
  /** SPDK's uring bdev module. */
  readonly uring: boolean
  /** Several paths at a time of NVMe bdevs, by their asymmetric namespace access, with statistics. */
  readonly multipath: boolean
  /** A keyring, for DH-HMAC-CHAP and TLS of NVMe over fabrics. */
  readonly keys: boolean
}

export const embeddedCapabilities: Capabilities = {
  engine: "embedded",
  virtualTime: true,
  uring: false,
  multipath: false,
  keys: false
}

export const libspdkCapabilities: Capabilities = {
  engine: "libspdk",
  virtualTime: false,
  uring: true,
  multipath: true,
  keys: true
}

/** For every file: SPDK keeps about 200 MiB of it for pools of its own. */
export const memoryMiB = 512

/** Registers a suite for libspdk, or one skipped test that carries the suite's name and the reason. */
export const libspdk = (
  name: string,
  register: (name: string, layer: EngineLayer, capabilities: Capabilities) => void,
  options: SpdkOptions.Options = {}
): void => {
  if (libspdkMissing !== undefined) {
    describe(`libspdk ${name} [skipped: ${libspdkMissing}]`, () => {
      it.skip(`skipped: ${libspdkMissing}`, () => {})
    })
    return
  }
  register(
    `libspdk ${name}`,
    Spdk.layer({ name: "contract", memoryMiB, logLevel: "error", ...options }),
    libspdkCapabilities
  )
}

/** Registers a suite for the embedded engine. */
export const embedded = (
  name: string,
  register: (name: string, layer: EngineLayer, capabilities: Capabilities) => void,
  options: SpdkOptions.Options = {}
): void =>
  register(
    `embedded ${name}`,
    Spdk.layerEmbedded({ name: "contract", memoryMiB, logLevel: "error", ...options }),
    embeddedCapabilities
  )

/** A directory of this test process's own, gone when the process ends. Short, because socket paths have 107 bytes. */
export const scratch: string = (() => {
  const path = mkdtempSync(join(tmpdir(), "espdk-"))
  process.on("exit", () => rmSync(path, { recursive: true, force: true }))
  return path
})()

let files = 0
/** A path for a file of the test's own. The directory it is in goes with the process. */
export const scratchFile: Effect.Effect<string> = Effect.sync(() => join(scratch, `file${++files}`))

/** True for the long slice: more steps, same tests. */
export const long: boolean = process.env["EFFECT_SPDK_LONG"] === "1"
