/** What a run must not show, and what it has seen so far. */
import { SpdkError } from "@effect-spdk/core/SpdkError"
import * as Cause from "effect/Cause"

/** What the workload and the oracle share in one run. */
export class Watch {
  readonly violations: Array<string> = []
  /** The log of the run, kept only when somebody reads it. */
  readonly lines: Array<string> | undefined
  private readonly nowMicros: () => number
  /** Something was made to fail in this life, so that what fails later may be its consequence. */
  hasFaults = false
  /** The disk is not there any more. */
  isGone = false

  constructor(isLogged: boolean, nowMicros: () => number) {
    this.lines = isLogged ? [] : undefined
    this.nowMicros = nowMicros
  }

  /** How something ended that began when the disk was gone already. */
  endedWithoutDisk(text: string, end: string, needsDisk: boolean): void {
    if (end === "ok" && needsDisk) this.violated(`${text} succeeded without a disk`)
    if (withDisk.has(end) || end.startsWith("unclosed")) this.violated(`${text} ended with ${end} without a disk`)
  }

  violated(message: string): void {
    this.violations.push(message)
    this.log(`VIOLATION ${message}`)
  }

  log(line: string): void {
    this.lines?.push(`${String(Math.round(this.nowMicros())).padStart(9)}  ${line}`)
  }
}

/** What no removed device says. */
const withDisk = new Set(["IoFailed", "TimedOut", "Corrupted"])

/** Whether it says why something could not be written, and not that a release has taken too long. */
const isUnwritten = (defect: unknown): boolean => {
  const tag = tagOf(defect)
  if (tag === "TimedOut" && defect instanceof SpdkError) {
    return !("limitMillis" in defect.reason) || defect.reason.limitMillis === undefined
  }
  return tag === "IoFailed" || tag === "NoMemory" || tag === "NoSpace"
}

/** How an operation ended, in one word: "ok", "interrupted", "died", or the reason of the error. */
export const endOf = (cause: Cause.Cause<unknown>): string => {
  const defects = cause.reasons.filter(Cause.isDieReason).map(({ defect }) => defect)
  // A blob that cannot be written when its scope closes says so in the only way that a finalizer has. With it the error of the
  // call that came before becomes a defect, too.
  const last = defects.at(-1)
  if (isUnwritten(last) && defects.every((defect) => defect instanceof SpdkError)) return `unclosed: ${tagOf(last)}`
  if (defects.length > 0) return `died: ${describe(defects[0])}`
  for (const reason of cause.reasons) {
    if (Cause.isFailReason(reason)) return tagOf(reason.error)
  }
  return "interrupted"
}

const describe = (defect: unknown): string =>
  defect instanceof Error
    ? `${defect.message} ${(defect.stack ?? "").split("\n").slice(1, 4).join(" ")}`
    : String(defect)

const hasTag = (value: unknown): value is { readonly _tag: string } =>
  typeof value === "object" && value !== null && "_tag" in value && typeof value._tag === "string"

/** The reason of an SpdkError, also inside of the errors of KeyValueStore. */
const tagOf = (error: unknown): string => {
  if (typeof error !== "object" || error === null) return String(error)
  if ("reason" in error && hasTag(error.reason)) return error.reason._tag
  if ("cause" in error) return tagOf(error.cause)
  return hasTag(error) ? error._tag : String(error)
}
