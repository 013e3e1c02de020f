/** What a seed is about: a blobstore and its users, or a target and its host. */
import { type NetFault, netFaults, netPlanOf, type NetPlan } from "./netPlan.ts"
import { runNet } from "./netRun.ts"
import { describeNet, shrinkNet } from "./netShrink.ts"
import { type FaultKind, faultKinds, type Plan, planOf, type Work } from "./plan.ts"
import { run } from "./run.ts"
import { describePlan, shrink } from "./shrink.ts"

export type AnyWork = Work | "fabrics"
export type AnyFault = FaultKind | NetFault

export const works: ReadonlyArray<AnyWork> = ["blobs", "keys", "both", "fabrics"]
export const faults: ReadonlyArray<AnyFault> = [...new Set<AnyFault>([...faultKinds, ...netFaults])]

export interface SubjectOptions {
  readonly fault?: AnyFault | undefined
  readonly work?: AnyWork | undefined
  /** See PlanOptions. */
  readonly plain?: boolean | undefined
}

export interface Subject {
  readonly run: (options?: { readonly log?: boolean }) => {
    readonly violations: ReadonlyArray<string>
    readonly lines: ReadonlyArray<string>
    readonly trace: string
    readonly steps: number
  }
  readonly shrink: () => Subject
  readonly describe: () => string
}

const ofPlan = (plan: Plan): Subject => ({
  run: (options = {}) => run(plan, options),
  shrink: () => ofPlan(shrink(plan)),
  describe: () => describePlan(plan)
})

const ofNetPlan = (plan: NetPlan): Subject => ({
  run: (options = {}) => runNet(plan, options),
  shrink: () => ofNetPlan(shrinkNet(plan)),
  describe: () => describeNet(plan)
})

const knownFault = <A extends AnyFault>(fault: AnyFault | undefined, known: ReadonlyArray<A>, work: string) => {
  const found = known.find((one) => one === fault)
  if (fault !== undefined && found === undefined) throw new Error(`${work} have no fault ${fault}: ${known.join(", ")}`)
  return found
}

/** Without a kind of work, every twentieth seed is one of NVMe/TCP: it takes as long as several others. */
const isOfFabrics = (seed: number, { fault, plain, work }: SubjectOptions): boolean =>
  work === "fabrics" ||
  (work === undefined &&
    plain !== true &&
    seed % 20 === 19 &&
    (fault === undefined || netFaults.some((one) => one === fault)))

export const subjectOf = (seed: number, options: SubjectOptions = {}): Subject => {
  if (isOfFabrics(seed, options))
    return ofNetPlan(netPlanOf(seed, { fault: knownFault(options.fault, netFaults, "fabrics") }))
  const { plain, work } = options
  const fault = knownFault(options.fault, faultKinds, "blobs and keys")
  return ofPlan(planOf(seed, { fault, work: work === "fabrics" ? undefined : work, plain }))
}
