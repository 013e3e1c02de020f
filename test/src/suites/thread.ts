/** Threads: where they stand, the order of what crosses to them, and that nothing is left when their scope closes. */
import * as CpuSet from "@effect-spdk/core/CpuSet"
import * as DmaBuffer from "@effect-spdk/core/DmaBuffer"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as SpdkThread from "@effect-spdk/core/SpdkThread"
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Capabilities, EngineLayer } from "../support/engines.ts"
import {
  blockSize,
  contract,
  expectInterrupted,
  failsWith,
  fresh,
  mallocOpened,
  pattern,
  sameBytes,
  until,
  within
} from "../support/harness.ts"
import { heldReads } from "../support/held.ts"
import { seeded } from "../support/random.ts"

const usage = Effect.flatMap(Effect.service(Spdk.Spdk), (spdk) => spdk.usage)

const spawn = (prefix: string) => Effect.suspend(() => SpdkThread.spawn({ name: fresh(prefix) }))

export const suite = (name: string, layer: EngineLayer, _capabilities: Capabilities): void =>
  contract(name, layer, (check) => {
    check("lists a thread by name and id while its scope is open", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const thread = yield* spawn("listed").pipe(Scope.provide(scope))
        const listed = (yield* SpdkThread.list).filter((one) => one.name === thread.name)
        assert.deepStrictEqual(
          listed.map((one) => one.id),
          [thread.id]
        )
        const onReactors = (yield* SpdkThread.reactors).flatMap((reactor) => reactor.threads)
        assert.strictEqual(onReactors.filter((one) => one.id === thread.id).length, 1)
        yield* Scope.close(scope, Exit.void)
        assert.isUndefined((yield* SpdkThread.list).find((one) => one.id === thread.id))
      })
    )

    check("has ids of its own, and lets two threads share a name", () =>
      Effect.gen(function* () {
        const shared = fresh("twins")
        const first = yield* SpdkThread.spawn({ name: shared })
        const second = yield* SpdkThread.spawn({ name: shared })
        assert.notStrictEqual(first.id, second.id)
        assert.strictEqual((yield* SpdkThread.list).filter((one) => one.name === shared).length, 2)
      })
    )

    check("stands on the cores that it was given, in either notation", () =>
      Effect.gen(function* () {
        for (const reactor of yield* SpdkThread.reactors) {
          const core = CpuSet.makeUnsafe([reactor.core])
          for (const cpus of [core, CpuSet.toMask(core), CpuSet.toList(core)]) {
            yield* Effect.scoped(
              Effect.gen(function* () {
                const thread = yield* SpdkThread.spawn({ name: fresh("placed"), cpus })
                yield* thread.call(Effect.void)
                const found = (yield* SpdkThread.reactors).filter((one) =>
                  one.threads.some(({ id }) => id === thread.id)
                )
                assert.deepStrictEqual(
                  found.map((one) => one.core),
                  [reactor.core]
                )
                assert.deepStrictEqual(Array.from((yield* thread.stats).cpus), [reactor.core])
              })
            )
          }
        }
      })
    )

    check("names field and rule of bad names and cores", () =>
      Effect.gen(function* () {
        const bad = (cpus: CpuSet.CpuSet | string) =>
          failsWith(SpdkThread.spawn({ name: "bad", cpus }), "InvalidArgument", { field: "cpus" })
        assert.match((yield* bad("[1023]")).rule, /no core with a reactor/)
        assert.match((yield* bad("[]")).rule, /names no core/)
        assert.match((yield* bad("0x0")).rule, /names no core/)
        assert.match((yield* bad(CpuSet.empty)).rule, /names no core/)
        assert.match((yield* bad("[2-1]")).rule, /backwards/)
        assert.match((yield* bad("[1024]")).rule, /above 1023/)
        for (const malformed of ["", "zz", "0x", "[", "[1", "1]", "[a]", "[0,,1]", "[-1]", "0x1.5", "[1;2]", "0xg"]) {
          yield* bad(malformed)
        }
        for (const bad of ["", "x".repeat(257), "a\u0000b"]) {
          yield* failsWith(SpdkThread.spawn({ name: bad }), "InvalidArgument", { field: "name" })
        }
      })
    )

    check("is the current thread inside `on` and `call`, in child fibers too, and nowhere else", () =>
      Effect.gen(function* () {
        const thread = yield* spawn("current")
        const other = yield* spawn("other")
        const here = Effect.map(SpdkThread.current, (current) => current.id)
        const main = yield* here
        assert.notStrictEqual(main, thread.id)
        assert.strictEqual(yield* here.pipe(SpdkThread.on(thread)), thread.id)
        assert.strictEqual(yield* thread.call(here), thread.id)
        assert.strictEqual(yield* thread.call(other.call(here)), other.id)
        assert.strictEqual(yield* here.pipe(SpdkThread.on(other), SpdkThread.on(thread)), other.id)
        const child = Effect.flatMap(Effect.forkChild(here), Fiber.join)
        assert.strictEqual(yield* child.pipe(SpdkThread.on(thread)), thread.id)
        assert.deepStrictEqual(yield* thread.call(Effect.all([here, here], { concurrency: 2 })), [thread.id, thread.id])
        assert.strictEqual(yield* here, main)
      })
    )

    check("a call hands back the result, the failure, the defect", () =>
      Effect.gen(function* () {
        const thread = yield* spawn("results")
        assert.strictEqual(yield* thread.call(Effect.succeed(42)), 42)
        assert.strictEqual(yield* Effect.flip(thread.call(Effect.fail("no" as const))), "no")
        const exit = yield* Effect.exit(thread.call(Effect.die(new Error("broken"))))
        assert.isTrue(Exit.hasDies(exit))
        assert.strictEqual(yield* thread.call(Effect.succeed("still there")), "still there")
      })
    )

    check("a call to the thread one is on does not wait for itself", () =>
      Effect.gen(function* () {
        const thread = yield* spawn("nested")
        const nested = thread.call(thread.call(thread.call(Effect.succeed("inner"))))
        assert.strictEqual(yield* within("the nested call", nested), "inner")
      })
    )

    check("starts messages in the order in which one fiber hands them over", () =>
      Effect.gen(function* () {
        const thread = yield* spawn("ordered")
        const seen: Array<number> = []
        const count = 2000
        for (let index = 0; index < count; index++) {
          // Every seventh message is a call whose result nobody waits for yet.
          const record = Effect.sync(() => void seen.push(index))
          if (index % 7 === 3) yield* Effect.forkChild(thread.call(record), { startImmediately: true })
          else yield* thread.send(record)
        }
        yield* thread.call(Effect.void)
        assert.deepStrictEqual(
          seen,
          Array.from({ length: count }, (_, index) => index)
        )
      })
    )

    check("keeps each fiber's order when many send at once, and loses nothing", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const thread = yield* spawn("many")
          const fibers = 50
          const each = 100
          const seen = Array.from({ length: fibers }, (): Array<number> => [])
          const pauses = Array.from({ length: fibers }, () => random.below(5))
          yield* Effect.forEach(
            Array.from({ length: fibers }),
            (_, fiber) =>
              Effect.gen(function* () {
                for (let index = 0; index < each; index++) {
                  yield* thread.send(Effect.sync(() => void seen[fiber]?.push(index)))
                  if (index % 5 === pauses[fiber]) yield* Effect.yieldNow
                }
              }),
            { concurrency: "unbounded", discard: true }
          )
          yield* thread.call(Effect.void)
          const inOrder = Array.from({ length: each }, (_, index) => index)
          for (const messages of seen) assert.deepStrictEqual(messages, inOrder)
        })
      )
    )

    check("the messages to two threads do not wait for each other", () =>
      Effect.gen(function* () {
        const first = yield* spawn("first")
        const second = yield* spawn("second")
        const gate = yield* Deferred.make<void>()
        const blocked = yield* Effect.forkChild(first.call(Deferred.await(gate)), { startImmediately: true })
        assert.strictEqual(yield* within("the second thread", second.call(Effect.succeed("passes"))), "passes")
        // Nor do two calls on one thread: an effect that waits does not hold the thread.
        assert.strictEqual(yield* within("the first thread", first.call(Effect.succeed("passes"))), "passes")
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(blocked)
      })
    )

    check("interrupting a call interrupts what it runs, at whatever point", () =>
      seeded((random) =>
        Effect.gen(function* () {
          const thread = yield* spawn("interrupted")
          let started = 0
          let finalized = 0
          for (let round = 0; round < 200; round++) {
            const fiber = yield* Effect.forkChild(
              thread.call(
                Effect.acquireUseRelease(
                  Effect.sync(() => void started++),
                  () => Effect.never,
                  () => Effect.sync(() => void finalized++)
                )
              ),
              { startImmediately: true }
            )
            for (let pause = random.below(4); pause > 0; pause--) yield* thread.call(Effect.void)
            yield* Fiber.interrupt(fiber)
            expectInterrupted(yield* Fiber.await(fiber))
            assert.strictEqual(finalized, started)
          }
          assert.isAbove(started, 0)
          assert.strictEqual(yield* thread.call(Effect.succeed("alive")), "alive")
        })
      )
    )

    check("closes with messages pending: each of them runs to an end or never starts", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const thread = yield* spawn("closing").pipe(Scope.provide(scope))
        let started = 0
        let ended = 0
        for (let index = 0; index < 500; index++) {
          yield* thread.send(
            Effect.sync(() => void started++).pipe(
              Effect.andThen(Effect.never),
              Effect.ensuring(Effect.sync(() => void ended++))
            )
          )
        }
        const calls = yield* Effect.forEach(Array.from({ length: 50 }), () =>
          Effect.forkChild(thread.call(Effect.never), { startImmediately: true })
        )
        yield* within("the close", Scope.close(scope, Exit.void))
        assert.strictEqual(ended, started, "what had started was interrupted and finalized")
        const startedAtClose = started
        const exits = yield* within("the calls", Fiber.awaitAll(calls))
        for (const exit of exits) {
          if (Exit.isSuccess(exit)) assert.fail("a call of Effect.never cannot succeed")
          const released = Cause.pretty(exit.cause).includes("released")
          assert.isTrue(released || Cause.hasInterruptsOnly(exit.cause), Cause.pretty(exit.cause))
        }
        yield* Effect.yieldNow
        assert.strictEqual(started, startedAtClose, "nothing starts on a closed thread")
        yield* failsWith(thread.send(Effect.void), "Released", { what: "thread" })
        yield* failsWith(thread.call(Effect.void), "Released", { what: "thread" })
        yield* failsWith(thread.stats, "NotFound")
      })
    )

    check("spawns and exits 300 threads, many at once", () =>
      Effect.gen(function* () {
        const before = yield* usage
        yield* Effect.forEach(
          Array.from({ length: 300 }),
          () => Effect.scoped(Effect.flatMap(spawn("mayfly"), (thread) => thread.call(Effect.void))),
          {
            concurrency: 16,
            discard: true
          }
        )
        assert.deepStrictEqual(yield* usage, before)
      })
    )

    check("takes a channel of its own on each thread, and gives it back", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened()
        yield* bdev.writeBytes(0, pattern(4096, 9))
        const channels = (yield* usage).channels
        yield* Effect.scoped(
          Effect.gen(function* () {
            const threads = yield* Effect.forEach(Array.from({ length: 4 }), () => spawn("io"))
            for (const [index, thread] of threads.entries()) {
              yield* Effect.scoped(
                Effect.gen(function* () {
                  const buffer = yield* DmaBuffer.make(4096)
                  yield* bdev.read(0, buffer)
                  sameBytes(buffer.bytes, pattern(4096, 9), `read on thread ${index}`)
                })
              ).pipe(SpdkThread.on(thread))
            }
            assert.strictEqual((yield* usage).channels, channels + 4)
          })
        )
        assert.strictEqual((yield* usage).channels, channels, "they went with their threads")
        yield* bdev.readBytes(0, blockSize)
      })
    )

    check("does I/O on many threads over one bdev at once, and each reads what it wrote", () =>
      Effect.gen(function* () {
        const bdev = yield* mallocOpened(8 * 64)
        const threads = yield* Effect.forEach(Array.from({ length: 8 }), () => spawn("parallel"))
        yield* Effect.forEach(
          threads,
          (thread, index) =>
            Effect.scoped(
              Effect.gen(function* () {
                const buffer = yield* DmaBuffer.make(8192)
                for (let round = 0; round < 20; round++) {
                  const offset = index * 64 * blockSize + (round % 4) * 8192
                  const bytes = pattern(8192, index * 1000 + round)
                  buffer.bytes.set(bytes)
                  yield* bdev.write(offset, buffer)
                  buffer.bytes.fill(0)
                  yield* bdev.read(offset, buffer)
                  sameBytes(buffer.bytes, bytes, `round ${round} of thread ${index}`)
                }
              })
            ).pipe(SpdkThread.on(thread)),
          { concurrency: "unbounded", discard: true }
        )
      })
    )

    check("closes with I/O in flight on it: the I/O completes, then the thread exits", () =>
      Effect.gen(function* () {
        const held = yield* heldReads()
        const scope = yield* Scope.make()
        const thread = yield* spawn("busy").pipe(Scope.provide(scope))
        const buffer = yield* DmaBuffer.make(4096)
        const reading = yield* Effect.forkChild(held.bdev.read(0, buffer).pipe(SpdkThread.on(thread)), {
          startImmediately: true
        })
        yield* held.holds(1, thread)
        const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void), { startImmediately: true })
        yield* held.roundTrips(20)
        assert.isUndefined(closing.pollUnsafe(), "the thread waits for its request")
        assert.strictEqual(buffer.pins, 1)
        yield* held.letGo
        yield* within("the close", Fiber.join(closing))
        yield* within("the read", Fiber.await(reading))
        assert.strictEqual(buffer.pins, 0)
        assert.isUndefined((yield* SpdkThread.list).find((one) => one.id === thread.id))
      })
    )

    check("counts what the thread does", () =>
      Effect.gen(function* () {
        const thread = yield* spawn("counted")
        const before = yield* thread.stats
        assert.strictEqual(before.id, thread.id)
        assert.strictEqual(before.name, thread.name)
        assert.isAtLeast(before.busyMillis, 0)
        assert.isAtLeast(before.idleMillis, 0)
        yield* until(
          "the thread's time passes",
          Effect.map(thread.stats, (now) => now.busyMillis + now.idleMillis > before.busyMillis + before.idleMillis)
        )
      })
    )

    check("knows the reactors and their cores", () =>
      Effect.gen(function* () {
        const reactors = yield* SpdkThread.reactors
        assert.isAtLeast(reactors.length, 1)
        const cores = reactors.map((reactor) => reactor.core)
        assert.strictEqual(new Set(cores).size, cores.length)
        const main = yield* SpdkThread.current
        assert.strictEqual(reactors.flatMap((one) => one.threads).filter((one) => one.id === main.id).length, 1)
      })
    )
  })
