/** One finished comparison. The six fields of `--json`, and what the table needs besides. */
import type { Case } from "./Case.ts"

export interface Row {
  readonly id: string
  readonly value: number
  readonly unit: string
  readonly peer: string | null
  readonly peerValue: number | null
  readonly ratio: number | null
}

export interface Judged extends Row {
  readonly what: string
  readonly requirement: string
  /** Undefined where nothing is required. */
  readonly passed: boolean | undefined
}

const compact = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 4, notation: "compact" })

export const formatNumber = (value: number | null): string => (value === null ? "" : compact.format(value))

/** Compares the ratio, or the value itself where there is no peer, with what the case requires. */
export const judge = (benchCase: Case, row: Row): Judged => {
  const { required, what } = benchCase
  if (required === undefined) return { ...row, what, requirement: "", passed: undefined }
  const measured = row.ratio ?? row.value
  return "atLeast" in required
    ? { ...row, what, requirement: `≥ ${required.atLeast}`, passed: measured >= required.atLeast }
    : { ...row, what, requirement: `≤ ${required.atMost}`, passed: measured <= required.atMost }
}

export const verdict = (row: Judged): string => (row.passed === undefined ? "" : row.passed ? "pass" : "FAIL")

export const toJson = ({ id, peer, peerValue, ratio, unit, value }: Row): Row => ({
  id,
  value,
  unit,
  peer,
  peerValue,
  ratio
})
