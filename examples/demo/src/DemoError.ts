/** How the demo ends when it cannot do its work: one line for the person who ran it, and exit status 1. */
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"

export class DemoError extends Schema.TaggedError<DemoError>("effect-spdk/demo/DemoError")("DemoError", {
  message: Schema.String
}) {
  /** `main` prints the line itself. */
  override readonly [Runtime.errorReported] = false
}
