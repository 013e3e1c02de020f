/** What a vitest JSON report comes to. */

/** A suite of the libspdk engine says so in its name. */
const isLibspdk = (name) => /libspdk/i.test(name)

/** Every test as `{ suite, status }`; a file that failed to load counts as one failed test. */
const testsOf = (report) =>
  report.testResults.flatMap((file) =>
    file.assertionResults.length === 0 && file.status === "failed"
      ? [{ suite: file.name, status: "failed" }]
      : file.assertionResults.map(({ ancestorTitles, title, status, meta }) => ({
          suite: ancestorTitles[0] ?? title,
          status,
          skippedFor: meta?.skippedFor
        }))
  )

/** Counts. With libspdk at hand, a libspdk test that did not run has failed, unless it says what this SPDK lacks. */
export const summarise = (report, libspdkAvailable) => {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const { skippedFor, status, suite } of testsOf(report)) {
    if (status === "passed" || status === "failed") counts[status]++
    else counts[isLibspdk(suite) && libspdkAvailable && skippedFor === undefined ? "failed" : "skipped"]++
  }
  return counts
}
