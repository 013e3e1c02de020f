import * as Poller from "@effect-spdk/core/Poller"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert, describe, it as test, layer } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"

const embedded = Spdk.layerEmbedded({ cores: "[0-1]" })

layer(embedded)("SpdkThread", (it) => {
  describe("spawn", () => {
    it.effect("makes a thread that SPDK lists until its scope closes", () =>
      Effect.gen(function* () {
        const before = yield* SpdkThread.list
        yield* Effect.gen(function* () {
          const thread = yield* SpdkThread.spawn({ name: "storage", cpus: "0x2" })
          const stats = yield* thread.stats
          assert.strictEqual(stats.name, "storage")
          assert.strictEqual(stats.id, thread.id)
          assert.strictEqual(`${stats.cpus}`, "[1]")
          const [, second] = yield* SpdkThread.reactors
          assert.include(
            (second?.threads ?? []).map(({ name }) => name),
            "storage"
          )
        }).pipe(Effect.scoped)
        assert.deepStrictEqual(
          (yield* SpdkThread.list).map(({ id }) => id),
          before.map(({ id }) => id)
        )
      })
    )

    const refused: ReadonlyArray<readonly [field: string, options: SpdkThread.SpawnOptions, rule: RegExp]> = [
      ["name", { name: "" }, /empty/],
      ["name", { name: "a\0b" }, /NUL/],
      ["name", { name: "é".repeat(129) }, /longer than 256 bytes/],
      ["cpus", { name: "x", cpus: "nonsense" }, /hexadecimal core mask/],
      ["cpus", { name: "x", cpus: "[]" }, /names no core/],
      ["cpus", { name: "x", cpus: "[5]" }, /none on core 5, only on \[0-1\]/]
    ]
    it.effect.each(refused)("refuses %s of %j", ([field, options, rule]) =>
      Effect.gen(function* () {
        const { reason } = yield* Effect.flip(SpdkThread.spawn(options))
        if (reason._tag !== "InvalidArgument") return assert.fail(reason.message)
        assert.strictEqual(reason.field, field)
        assert.match(reason.rule, rule)
      }).pipe(Effect.scoped)
    )

    it.effect("needs one core with a reactor, not all of them", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "wide", cpus: "[1-63]" })
        assert.strictEqual(`${(yield* thread.stats).cpus}`, "[1]")
      }).pipe(Effect.scoped)
    )

    it.effect("gives everything back", () =>
      Effect.gen(function* () {
        const { usage } = yield* Spdk.Spdk
        const before = yield* usage
        yield* Effect.forEach(
          Array.from({ length: 50 }, (_, index) => `thread ${index}`),
          (name) => SpdkThread.spawn({ name })
        ).pipe(
          Effect.andThen(Effect.map(usage, ({ threads }) => assert.strictEqual(threads, before.threads + 50))),
          Effect.scoped
        )
        assert.deepStrictEqual(yield* usage, before)
      })
    )
  })

  describe("on", () => {
    it.effect("sets the current thread, for child fibers too", () =>
      Effect.gen(function* () {
        const spdk = yield* Spdk.Spdk
        const thread = yield* SpdkThread.spawn({ name: "here" })
        assert.strictEqual(yield* SpdkThread.current, spdk.mainThread)
        assert.strictEqual(yield* SpdkThread.on(SpdkThread.current, thread), thread)
        const child = Effect.flatMap(Effect.forkChild(SpdkThread.CurrentThread), Fiber.join)
        assert.strictEqual(yield* child.pipe(SpdkThread.on(thread)), thread)
        assert.isUndefined(yield* SpdkThread.CurrentThread)
      }).pipe(Effect.scoped)
    )
  })

  describe("call", () => {
    it.effect("runs the effect on the thread and returns what it returns", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "callee" })
        assert.strictEqual(yield* thread.call(SpdkThread.CurrentThread), thread)
        assert.strictEqual(yield* Effect.flip(thread.call(Effect.fail("no" as const))), "no")
        const defect = yield* Effect.exit(thread.call(Effect.die("broken")))
        assert.deepStrictEqual(defect, Exit.die("broken"))
      }).pipe(Effect.scoped)
    )

    it.effect("starts the effects of many fibers in the order of their calls", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "order" })
        const started: Array<number> = []
        const indexes = Array.from({ length: 1000 }, (_, index) => index)
        yield* Effect.forEach(
          indexes,
          (index) => {
            const effect = Effect.andThen(
              Effect.sync(() => started.push(index)),
              Effect.yieldNow
            )
            return index % 3 === 0 ? thread.send(effect) : thread.call(effect)
          },
          { concurrency: "unbounded" }
        )
        yield* thread.call(Effect.void)
        assert.deepStrictEqual(started, indexes)
      }).pipe(Effect.scoped)
    )

    it.effect("may be nested on the same thread", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "nested" })
        assert.strictEqual(yield* thread.call(thread.call(thread.call(Effect.succeed(3)))), 3)
      }).pipe(Effect.scoped)
    )

    it.effect("crosses to the main thread as well", () =>
      Effect.gen(function* () {
        const { mainThread } = yield* Spdk.Spdk
        assert.strictEqual(yield* mainThread.call(SpdkThread.current), mainThread)
      })
    )

    it.effect("is interrupted with its caller, on the way and while it runs", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "interrupted" })
        let begun = false
        const onTheWay = yield* Effect.forkChild(
          thread.call(
            Effect.sync(() => {
              begun = true
            })
          ),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(onTheWay)
        yield* thread.call(Effect.void)
        assert.isFalse(begun)

        const running = yield* Deferred.make<void>()
        let interrupted = false
        const fiber = yield* Effect.forkChild(
          thread.call(
            Effect.andThen(Deferred.succeed(running, undefined), Effect.never).pipe(
              Effect.onInterrupt(() =>
                Effect.sync(() => {
                  interrupted = true
                })
              )
            )
          )
        )
        yield* Deferred.await(running)
        yield* Fiber.interrupt(fiber)
        assert.isTrue(interrupted)
      }).pipe(Effect.scoped)
    )

    it.effect("fails with Released once the thread's scope has closed", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "gone" }).pipe(Effect.scoped)
        let ran = false
        const effect = Effect.sync(() => {
          ran = true
        })
        for (const operation of [thread.call(effect), thread.send(effect)]) {
          const { reason } = yield* Effect.flip(operation)
          assert.strictEqual(reason._tag, "Released")
          assert.match(reason.message, /"gone".*thread has already been released/)
        }
        assert.isFalse(ran)
        assert.strictEqual((yield* Effect.flip(thread.stats)).reason._tag, "NotFound")
      })
    )

    it.effect("fails with Released when the scope closes while the message is on its way", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const thread = yield* SpdkThread.spawn({ name: "closing" }).pipe(Scope.provide(scope))
        const fiber = yield* Effect.forkChild(Effect.flip(thread.call(Effect.void)), { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Released")
      })
    )
  })

  describe("send", () => {
    it.effect("does not wait for the effect", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "mailbox" })
        const done = yield* Deferred.make<SpdkThread.SpdkThread | undefined>()
        const gate = yield* Deferred.make<void>()
        yield* thread.send(
          Effect.andThen(Deferred.await(gate), SpdkThread.CurrentThread).pipe(
            Effect.flatMap((current) => Deferred.succeed(done, current))
          )
        )
        yield* Deferred.succeed(gate, undefined)
        assert.strictEqual(yield* Deferred.await(done), thread)
      }).pipe(Effect.scoped)
    )

    it.effect("runs the effect under the services of the sender", () =>
      Effect.gen(function* () {
        const thread = yield* SpdkThread.spawn({ name: "services" })
        const done = yield* Deferred.make<string>()
        yield* thread.send(Effect.flatMap(Spdk.Spdk, (spdk) => Deferred.succeed(done, spdk.kind)))
        assert.strictEqual(yield* Deferred.await(done), "embedded")
      }).pipe(Effect.scoped)
    )

    it.effect("is interrupted when the thread's scope closes", () =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        let interrupted = false
        yield* Effect.gen(function* () {
          const thread = yield* SpdkThread.spawn({ name: "short" })
          yield* thread.send(
            Effect.andThen(Deferred.succeed(begun, undefined), Effect.never).pipe(
              Effect.onInterrupt(() =>
                Effect.sync(() => {
                  interrupted = true
                })
              )
            )
          )
          yield* Deferred.await(begun)
        }).pipe(Effect.scoped)
        assert.isTrue(interrupted)
      })
    )

    it.effect("logs a defect, because nobody waits for it", () =>
      Effect.gen(function* () {
        const lines: Array<string> = []
        const logger = Logger.make<unknown, void>(({ cause, logLevel }) => {
          lines.push(`${logLevel} ${JSON.stringify(cause)}`)
        })
        yield* Effect.gen(function* () {
          const thread = yield* SpdkThread.spawn({ name: "defect" })
          yield* thread.send(Effect.die("broken invariant"))
          yield* thread.call(Effect.void)
        }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger])))
        assert.strictEqual(lines.length, 1)
        assert.match(lines[0] ?? "", /^Error .*broken invariant/)
      })
    )
  })
})

test.effect("a thread of one engine is none of another's", () =>
  Effect.gen(function* () {
    const other = yield* Layer.build(Layer.fresh(embedded))
    const thread = yield* SpdkThread.spawn({ name: "foreign" }).pipe(Effect.provide(other))
    const { reason } = yield* Poller.make().pipe(SpdkThread.on(thread), Effect.flip)
    assert.strictEqual(reason._tag, "Released")
  }).pipe(Effect.scoped, Effect.provide(embedded))
)
