/** The results as an SVG: one bar a row, the ratio to the peer, with a mark where the requirement lies. */
import { formatNumber, type Judged, verdict } from "./Row.ts"

const width = 1000
const rowHeight = 30
const top = 90
const labelRight = 190
const barLeft = 200
const barWidth = 380
const requirementLeft = 650
const numbersLeft = 730
/** Where the bars end. The number beside a longer one still tells. */
const ratioMax = 2

const colours: Readonly<Record<string, string>> = { pass: "#2f7d4f", FAIL: "#b3352c", "": "#5b6b7d" }

const escape = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0) ?? 0};`)

const text = (x: number, y: number, content: string, attributes = 'class="small"'): string =>
  `<text x="${x}" y="${y}" ${attributes}>${escape(content)}</text>`

const verticalLine = (x: number, from: number, to: number, kind: string): string =>
  `<line x1="${x}" x2="${x}" y1="${from}" y2="${to}" class="${kind}"/>`

const position = (ratio: number): number =>
  Math.round(barLeft + (Math.min(Math.max(ratio, 0), ratioMax) / ratioMax) * barWidth)

const requiredRatio = (row: Judged): number | undefined => {
  const found = /[\d.]+$/.exec(row.requirement)
  return found === null ? undefined : Number(found[0])
}

const ratioBar = (row: Judged, ratio: number, y: number): string => {
  const end = position(ratio)
  const limit = requiredRatio(row)
  const mark = limit === undefined || limit > ratioMax ? "" : verticalLine(position(limit), y - 3, y + 23, "mark")
  const colour = colours[verdict(row)] ?? ""
  return [
    `<rect x="${barLeft}" y="${y}" width="${end - barLeft}" height="20" fill="${colour}"/>`,
    mark,
    text(end + 6, y + 15, `×${ratio.toPrecision(2)}`)
  ].join("")
}

const rowOf = (row: Judged, index: number): string => {
  const y = top + index * rowHeight
  const peer = row.peer === null ? "" : `, ${row.peer} ${formatNumber(row.peerValue)}`
  return [
    text(labelRight, y + 15, row.id, 'text-anchor="end"'),
    row.ratio === null ? "" : ratioBar(row, row.ratio, y),
    text(requirementLeft, y + 15, row.requirement),
    text(numbersLeft, y + 15, `${formatNumber(row.value)} ${row.unit}${peer}`)
  ].join("")
}

const legend =
  "Bar: our figure divided by the peer's, both medians of the same run. Solid line: equal. Dashed: what is required. " +
  "Green passes, red fails, grey has no requirement."

const style = [
  "text{font:14px system-ui,sans-serif;fill:#1c2530}",
  ".small{font-size:12px;fill:#44505c}",
  ".mark{stroke:#1c2530;stroke-width:1.5;stroke-dasharray:3 2}",
  ".equal{stroke:#9aa5b1}"
].join("")

export const svg = (rows: ReadonlyArray<Judged>, machine: ReadonlyArray<string>): string => {
  const bottom = top + rows.length * rowHeight + 20
  const height = bottom + machine.length * 18 + 10
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">`,
    `<style>${style}</style><rect width="${width}" height="${height}" fill="#ffffff"/>`,
    text(20, 30, "effect-spdk beside its peers", 'font-weight="bold"'),
    text(20, 50, legend),
    text(requirementLeft, top - 12, "required"),
    text(numbersLeft, top - 12, "measured"),
    verticalLine(position(1), top - 8, bottom - 20, "equal"),
    ...rows.map(rowOf),
    ...machine.map((line, index) => text(20, bottom + index * 18, line)),
    "</svg>",
    ""
  ].join("\n")
}
