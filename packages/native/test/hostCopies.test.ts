import { afterEach, expect, it, vi } from "vitest"
import { Control } from "../src/Layout.ts"

const place = Symbol.for("@effect-spdk/native/Host")

afterEach(() => Reflect.deleteProperty(globalThis, place))

it("a module that is evaluated again finds the host of its thread", async () => {
  const first = await import("../src/Host.ts")
  const found = first.get()
  vi.resetModules()
  const second = await import("../src/Host.ts")
  expect(second.get).not.toBe(first.get)
  expect(second.get()).toBe(found)
})

it("a host with rings of another layout is none, and the reason says what helps", async () => {
  const other = { _tag: "Loaded", host: {}, path: "/elsewhere/spdk.node" }
  Reflect.set(globalThis, place, { layout: Control.magic + 1, result: other })
  const { get } = await import("../src/Host.ts")
  expect(get()).toMatchObject({
    _tag: "Missing",
    lookedFor: ["/elsewhere/spdk.node"],
    reason: expect.stringContaining("restart the process")
  })
})
