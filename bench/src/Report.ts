/** The table that the bench prints. */
import Table from "cli-table3"
import { formatNumber, type Judged, verdict } from "./Row.ts"

export const table = (rows: ReadonlyArray<Judged>): string => {
  const printed = new Table({
    head: ["id", "what", "value", "unit", "peer", "its value", "ratio", "required", ""],
    colAligns: ["left", "left", "right", "left", "left", "right", "right", "left", "left"],
    style: { head: [], border: [], compact: true }
  })
  for (const row of rows) {
    printed.push([
      row.id,
      row.what,
      formatNumber(row.value),
      row.unit,
      row.peer ?? "",
      formatNumber(row.peerValue),
      row.ratio === null ? "" : row.ratio.toPrecision(3),
      row.requirement,
      verdict(row)
    ])
  }
  return printed.toString()
}
