/** Counts what the cases of a campaign have hit: methods, their fields, kinds of values, and what came back. */
import { allCreations, allMethods, caseOf, type Json, requiredOf } from "./cases.ts"

type Count = Map<string, number>

const add = (counts: Count, key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1)

const kindOfNumber = (value: number): string => {
  if (!Number.isInteger(value)) return "fraction"
  if (value < 0) return "negative"
  if (value === 0) return "zero"
  for (const power of [64, 63, 53, 32, 31]) if (value >= 2 ** power - (power < 53 ? 1 : 0)) return `from 2^${power}`
  return Number.isInteger(Math.log2(value)) ? "power of two" : "other integer"
}

const kindOfMark = (mark: string): string =>
  /^-?[1-9][0-9]*$/.test(mark) ? `bigint ${kindOfNumber(Number(mark))}` : mark

const kindOfText = (value: string): string => {
  if (value === "") return "empty text"
  if (value.includes("\0")) return "text with NUL"
  if (/[\ud800-\udfff](?![\udc00-\udfff])/u.test(value)) return "lone surrogate"
  if (value.length > 256) return "text beyond 256"
  if (value.length >= 63) return "text of 63 to 256"
  return /[^\u0020-\u007e]/.test(value) ? "unicode" : "text"
}

const kindOf = (value: Json): string => {
  if (value === null) return "null"
  if (typeof value === "number") return kindOfNumber(value)
  if (typeof value === "string") return kindOfText(value)
  if (typeof value === "boolean") return "boolean"
  if (Array.isArray(value)) {
    if (value.length === 0) return "empty array"
    return value.length > 63 ? "long array" : "array"
  }
  return "$" in value ? kindOfMark(String(value["$"])) : "object"
}

export interface Coverage {
  readonly methods: number
  readonly creations: number
  readonly fields: number
  /** Never given by any case. */
  readonly untouched: ReadonlyArray<string>
  /** Of how many different kinds of value a field got, the fewest. */
  readonly fewestKinds: readonly [field: string, kinds: number]
  readonly kinds: { readonly [kind: string]: number }
  readonly answers: { readonly [answer: string]: number }
  /** Methods that never succeeded. */
  readonly neverOk: ReadonlyArray<string>
}

export const makeCoverage = () => {
  const calls: Count = new Map()
  const fields: Count = new Map()
  const kinds: Count = new Map()
  const answered: Count = new Map()
  const kindsOfField = new Map<string, Set<string>>()
  const ok = new Set<string>()
  const note = (key: string, kind: string): void => {
    add(fields, key)
    add(kinds, kind)
    const known = kindsOfField.get(key) ?? new Set()
    kindsOfField.set(key, known.add(kind))
  }
  return {
    add: (seed: number, index: number, answers: ReadonlyArray<string>): void => {
      caseOf(seed, index).calls.forEach(({ method, params, via }, at) => {
        add(calls, method)
        const answer = answers[at] ?? "unknown"
        add(answered, answer)
        if (answer === "ok") ok.add(method)
        for (const [field, value] of Object.entries(params)) note(`${method}.${field}`, kindOf(value))
        if (via === "create") return
        for (const field of requiredOf(method)) if (!(field in params)) note(`${method}.${field}`, "missing")
      })
    },
    summary: (): Coverage => {
      const all = [...allMethods, ...allCreations]
      const names = all.flatMap(([method, own]) => own.map((field) => `${method}.${field}`))
      const fewest = names
        .map((field) => [field, kindsOfField.get(field)?.size ?? 0] as const)
        .toSorted(([, a], [, b]) => a - b)[0]
      const sorted = (counts: Count) => Object.fromEntries([...counts].toSorted(([, a], [, b]) => b - a))
      return {
        methods: allMethods.filter(([method]) => calls.has(method)).length,
        creations: allCreations.filter(([method]) => calls.has(method)).length,
        fields: names.filter((field) => fields.has(field)).length,
        untouched: names.filter((field) => !fields.has(field)),
        fewestKinds: fewest ?? ["", 0],
        kinds: sorted(kinds),
        answers: sorted(answered),
        neverOk: all.flatMap(([method]) => (ok.has(method) ? [] : [method]))
      }
    }
  }
}
