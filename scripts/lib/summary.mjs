/** The counts of a vitest JSON report, and what did not run. */

/** A suite of the libspdk engine says so in its name. */
const isLibspdk = (name) => /libspdk/i.test(name)

/** A test that needs one of SPDK's programs says in its title which one is missing. "no SPDK" is the engine, and no program. */
const missingTool = /\[skipped: no (?!SPDK\b)(.+?)(?: in PATH or beside SPDK| that starts|, which .*)?\]/

/** Every test as `{ suite, name, status }`; a file that failed to load counts as one failed test. */
const testsOf = (report) =>
  report.testResults.flatMap((file) =>
    file.assertionResults.length === 0 && file.status === "failed"
      ? [{ suite: file.name, name: file.name, status: "failed" }]
      : file.assertionResults.map(({ ancestorTitles, title, status, meta }) => ({
          suite: ancestorTitles[0] ?? title,
          name: [...ancestorTitles, title].join(" > "),
          status,
          skippedFor: meta?.skippedFor
        }))
  )

const countBy = (list) => {
  const counts = new Map()
  for (const one of list) counts.set(one, (counts.get(one) ?? 0) + 1)
  return [...counts].map(([one, count]) => `${one} (${count})`).join(", ")
}

/**
 * Counts, and `notes` for the reader. With libspdk at hand, a libspdk test that did not run has failed, and the notes name its
 * suite; a test that lacks one of SPDK's programs is skipped, and the notes name the program. So is one that says what this SPDK lacks.
 */
export const summarise = (report, libspdkAvailable) => {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  const tools = []
  const lacks = []
  const notRun = []
  for (const { suite, name, status, skippedFor } of testsOf(report)) {
    if (status === "passed" || status === "failed") {
      counts[status]++
      continue
    }
    const tool = missingTool.exec(name)
    if (tool !== null) tools.push(tool[1])
    else if (skippedFor !== undefined) lacks.push(skippedFor)
    const isFailure = tool === null && skippedFor === undefined && libspdkAvailable && isLibspdk(suite)
    if (isFailure) notRun.push(suite)
    counts[isFailure ? "failed" : "skipped"]++
  }
  const notes = []
  if (tools.length > 0) notes.push(`skipped because programs are missing: ${countBy(tools)}`)
  if (lacks.length > 0) notes.push(`skipped because of what this SPDK lacks: ${countBy(lacks)}`)
  if (notRun.length > 0)
    notes.push(`failed: SPDK is installed, and these libspdk suites did not run: ${countBy(notRun)}`)
  return { ...counts, notes }
}
