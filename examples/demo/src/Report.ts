/** What the demo prints at its end. */
import Table from "cli-table3"
import type { Entry } from "./Catalog.ts"
import { isIntact, type Verified } from "./Transfer.ts"

/** A table is for reading: of many files it shows the largest, and every one that is damaged. */
const rowsMax = 12

const style = { head: [], border: [], compact: true }

const number = (value: number): string => value.toLocaleString("en-US")

/** One row per file: its length, its hash, and whether the device gave it back. */
export const filesTable = (files: ReadonlyArray<Verified>): string => {
  const table = new Table({ head: ["file", "bytes", "SHA-256", "", "read back"], colAligns: ["left", "right"], style })
  const ordered = files.toSorted(
    (left, right) => Number(isIntact(left)) - Number(isIntact(right)) || right.entry.sizeBytes - left.entry.sizeBytes
  )
  const damaged = files.filter((file) => !isIntact(file)).length
  const shown = ordered.slice(0, Math.max(rowsMax, damaged))
  for (const file of shown) {
    const { name, sha256, sizeBytes } = file.entry
    table.push([name, number(sizeBytes), sha256.slice(0, 16), file.action, isIntact(file) ? "same" : "DIFFERS"])
  }
  if (shown.length < files.length) {
    const rest = ordered.slice(shown.length)
    const bytes = rest.reduce((total, file) => total + file.entry.sizeBytes, 0)
    table.push([`and ${rest.length} smaller files`, number(bytes), "", "", "same"])
  }
  return table.toString()
}

/** Everything that is stored, by name. */
export const catalogTable = (entries: Iterable<Entry>): string => {
  const table = new Table({ head: ["file", "bytes", "modified", "SHA-256"], colAligns: ["left", "right"], style })
  for (const entry of [...entries].toSorted((left, right) => (left.name < right.name ? -1 : 1))) {
    table.push([entry.name, number(entry.sizeBytes), entry.mtime, entry.sha256.slice(0, 16)])
  }
  return table.toString()
}

export interface Phase {
  readonly name: string
  readonly bytes: number
  readonly millis: number
}

/** One row per phase, with its throughput. */
export const phasesTable = (phases: ReadonlyArray<Phase>): string => {
  const table = new Table({
    head: ["phase", "MiB", "seconds", "MiB/s"],
    colAligns: ["left", "right", "right", "right"],
    style
  })
  for (const { name, bytes, millis } of phases) {
    const mebibytes = bytes / 2 ** 20
    const seconds = millis / 1000
    table.push([name, mebibytes.toFixed(1), seconds.toFixed(2), seconds === 0 ? "" : (mebibytes / seconds).toFixed(0)])
  }
  return table.toString()
}
