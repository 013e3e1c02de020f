/** The results as an SVG: one bar a row, the ratio to the peer, with a mark where the requirement lies. */
import { formatNumber, type Judged, verdict } from "./Row.ts"

const width = 1000
const rowHeight = 30
const top = 70
const labelWidth = 330
const barWidth = 400
const ratioMax = 2

const colours = { pass: "#2f7d4f", FAIL: "#b3352c", "": "#5b6b7d" }

const escape = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0) ?? 0};`)

const text = (x: number, y: number, content: string, extra = ""): string =>
  `<text x="${x}" y="${y}" ${extra}>${escape(content)}</text>`

/** Latency and idle rows may pass the right edge: the bar ends there, the number does not. */
const position = (ratio: number): number => (Math.min(ratio, ratioMax) / ratioMax) * barWidth

const requiredRatio = (row: Judged): number | undefined => {
  const found = /([\d.]+)$/.exec(row.requirement)
  return found === null ? undefined : Number(found[1])
}

const bar = (row: Judged, index: number): string => {
  const y = top + index * rowHeight
  const label = text(labelWidth - 10, y + 15, row.id, 'text-anchor="end"')
  const numbers = `${formatNumber(row.value)} ${row.unit}${row.peer === null ? "" : ` · ${row.peer} ${formatNumber(row.peerValue)}`}`
  const right = text(labelWidth + barWidth + 70, y + 15, numbers, 'class="small"')
  if (row.ratio === null) return label + right
  const limit = requiredRatio(row)
  const mark =
    limit === undefined || limit > ratioMax
      ? ""
      : `<line x1="${labelWidth + position(limit)}" x2="${labelWidth + position(limit)}" y1="${y - 2}" y2="${y + 22}" class="mark"/>`
  return [
    label,
    `<rect x="${labelWidth}" y="${y}" width="${position(row.ratio).toFixed(1)}" height="20" fill="${colours[verdict(row) as keyof typeof colours]}"/>`,
    mark,
    text(labelWidth + position(row.ratio) + 6, y + 15, `×${row.ratio.toPrecision(2)}`, 'class="small"'),
    right
  ].join("")
}

const style =
  "text{font:14px system-ui,sans-serif;fill:#1c2530}.small{font-size:12px;fill:#44505c}.mark{stroke:#1c2530;stroke-dasharray:3 2}"

export const svg = (rows: ReadonlyArray<Judged>, machine: ReadonlyArray<string>): string => {
  const bottom = top + rows.length * rowHeight + 20
  const height = bottom + machine.length * 18 + 10
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<style>${style}</style><rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(20, 30, "effect-spdk beside its peers", 'font-weight="bold"'),
    text(20, 50, "Bar: ratio of ours to the peer's in the same run. Dashed: what is required.", 'class="small"'),
    ...rows.map(bar),
    ...machine.map((line, index) => text(20, bottom + index * 18, line, 'class="small"')),
    "</svg>",
    ""
  ].join("\n")
}
