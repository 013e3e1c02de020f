/**
 * What a configuration sets and this engine has nothing for: it is accepted, because no result depends on it, and named in a
 * warning, once.
 */
export class WithoutEffect {
  private readonly log: (level: "warning", message: string) => void
  private readonly known = new Set<string>()
  private held: Array<string> | undefined = undefined

  constructor(log: (level: "warning", message: string) => void) {
    this.log = log
  }

  /** Says nothing until `release`, which then says all of it in one line. */
  hold(): void {
    this.held ??= []
  }

  release(): void {
    const names = this.held ?? []
    this.held = undefined
    this.warn(names)
  }

  note(...names: ReadonlyArray<string>): void {
    const news = names.filter((name) => !this.known.has(name))
    for (const name of news) this.known.add(name)
    if (this.held === undefined) this.warn(news)
    else this.held.push(...news)
  }

  private warn(names: ReadonlyArray<string>): void {
    if (names.length > 0) this.log("warning", `accepted, without effect on the embedded engine: ${names.join(", ")}`)
  }
}
