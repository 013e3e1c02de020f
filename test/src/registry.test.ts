/** A suite that no test file runs, or that one engine, driver or target leaves out without a reason, is a failure here. */
import { assert, describe, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { type Registration, registry } from "./registry.ts"

const here = import.meta.dirname
const namesIn = (folder: string, ending: string) =>
  readdirSync(join(here, folder)).flatMap((name) => (name.endsWith(ending) ? [name.slice(0, -ending.length)] : []))

/** The functions that register a suite, with the start of the run's name. */
const runners = {
  embedded: "embedded",
  libspdk: "libspdk",
  embeddedNvme: "embedded to nvmf_tgt",
  embeddedNvmeToEmbedded: "embedded to embedded",
  libspdkNvme: "libspdk to nvmf_tgt",
  libspdkNvmeToEmbedded: "libspdk to embedded"
} as const

interface Found {
  readonly suite: string
  readonly run: string
}

/** The runs of one test file: for each call of a runner, the suites that its statement names. */
export const runsOf = (text: string): ReadonlyArray<Found> => {
  const suites = [...text.matchAll(/^import \{([^}]*)\} from "\.\/suites\/(\w+)\.ts"$/gm)].flatMap(([, names, suite]) =>
    (names ?? "").split(",").map((name) => ({ suite: suite ?? "", local: name.trim().split(" as ").at(-1) ?? "" }))
  )
  const statements = text.split(/^(?=\w)/m).filter((statement) => !statement.startsWith("import"))
  return statements.flatMap((statement) =>
    Object.entries(runners).flatMap(([runner, name]) => {
      if (!new RegExp(`\\b${runner}\\(`).test(statement)) return []
      const driver = /withDriver\("(\w+)"/.exec(statement)?.[1]
      const run = driver === undefined ? name : `${name} ${driver}`
      return suites.flatMap(({ local, suite }) =>
        new RegExp(`\\b${local}\\b`).test(statement) ? [{ suite, run }] : []
      )
    })
  )
}

const found = namesIn(".", ".test.ts").flatMap((file) =>
  runsOf(readFileSync(join(here, `${file}.test.ts`), "utf8")).map((run) => ({ ...run, file }))
)

/** What is wrong with one suite, or nothing. */
const faultsOf = (suite: string, { leftOut, partOf, runs }: Registration, all: ReadonlyArray<Found>) => {
  const its = new Set(all.flatMap((one) => (one.suite === suite ? [one.run] : [])))
  if (partOf !== undefined) {
    const whole = readFileSync(join(here, "suites", `${partOf}.ts`), "utf8")
    return whole.includes(`"./${suite}.ts"`) ? [] : [`${partOf} does not run ${suite}`]
  }
  return [
    ...runs.flatMap((run) => (its.has(run) ? [] : [`${suite} does not run on ${run}`])),
    ...Object.keys(leftOut).flatMap((run) => (its.has(run) ? [`${suite} runs on ${run}, which is left out`] : [])),
    ...Object.entries(leftOut).flatMap(([run, why]) =>
      why.length < 20 ? [`no reason why ${suite} leaves out ${run}`] : []
    )
  ]
}

describe("the registry of suites", () => {
  it("has each suite, and nothing else", () => {
    assert.deepStrictEqual(Object.keys(registry).toSorted(), namesIn("suites", ".ts").toSorted())
  })

  it("says where each suite runs, as the test files have it", () => {
    assert.deepStrictEqual(
      Object.entries(registry).flatMap(([suite, registration]) => faultsOf(suite, registration, found)),
      []
    )
  })

  it("notices a suite that a test file no longer runs, and a run that is left out without a reason", () => {
    const bdevIo = registry["bdevIo"]
    assert.isDefined(bdevIo)
    if (bdevIo === undefined) return
    const without = found.filter(({ file }) => file !== "libspdk.bdev-io")
    assert.deepStrictEqual(faultsOf("bdevIo", bdevIo, without), ["bdevIo does not run on libspdk"])
    assert.deepStrictEqual(faultsOf("bdevIo", { runs: ["embedded"], leftOut: { libspdk: "" } }, without), [
      "no reason why bdevIo leaves out libspdk"
    ])
  })
})
