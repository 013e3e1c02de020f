/** The event loop of an embedded engine: who has a turn, and when. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { EmbeddedReactor, type Runnable } from "../src/internal/embedded/runtime/reactor.ts"
import { turn } from "./support/embeddedEngine.ts"
import { uncaughtDuring } from "./support/uncaught.ts"

/** Takes a processor for so long. */
const work = (millis: number): void => {
  const end = performance.now() + millis
  while (performance.now() < end);
}

/** How many of the messages have run by the time that Node's loop turns for the first time. */
const ranInOneTurn = (count: number, message: () => void) =>
  Effect.gen(function* () {
    const reactor = new EmbeddedReactor()
    const order: Array<number> = []
    for (let index = 0; index < count; index++) {
      reactor.post(() => {
        order.push(index)
        message()
      })
    }
    yield* turn
    const ran = order.length
    while (order.length < count) yield* turn
    yield* turn
    assert.deepStrictEqual(
      order,
      Array.from({ length: count }, (_, index) => index)
    )
    return ran
  })

describe("messages of a reactor", () => {
  it.live("leave timers and sockets their turn when there are many of them", () =>
    Effect.gen(function* () {
      assert.isAtMost(yield* ranInOneTurn(100_000, () => {}), 2048)
    })
  )

  it.live("leave timers and sockets their turn when each is slow", () =>
    Effect.gen(function* () {
      // None of them says how much it does.
      assert.isAtMost(yield* ranInOneTurn(100, () => work(1)), 20)
    })
  )

  it.live("that were quick and are slow now take one long turn, and no other", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      const quick = { ran: 0 }
      for (let index = 0; index < 10_000; index++) reactor.post(() => void quick.ran++)
      while (quick.ran < 10_000) yield* turn
      const turns: Array<number> = []
      let ran = 0
      for (let index = 0; index < 300; index++) {
        reactor.post(() => {
          ran++
          work(1)
        })
      }
      while (ran < 300) {
        const before = ran
        yield* turn
        turns.push(ran - before)
      }
      // The turn in which the quick ones ended may be used up, and then nothing runs in it.
      const [first = 0, ...others] = turns.filter((count) => count > 0)
      assert.isAtMost(first, 200)
      for (const count of others) assert.isAtMost(count, 8)
    })
  )

  it.live("leave timers and sockets their turn when each does as much as it says", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      let ran = 0
      for (let index = 0; index < 100; index++) {
        reactor.post(() => {
          ran++
          reactor.spent += 200
        })
      }
      yield* turn
      assert.isAtMost(ran, 10)
      while (ran < 100) yield* turn
    })
  )

  it.live("without end leave runnables their turn, and those of another reactor too", () =>
    Effect.gen(function* () {
      let isOver = false
      const counts = yield* Effect.forEach([0.05, 0], (millis) =>
        Effect.sync(() => {
          const reactor = new EmbeddedReactor()
          const count = { messages: 0, runs: 0 }
          const message = () => {
            count.messages++
            work(millis)
            if (!isOver) reactor.post(message)
          }
          // More at once than a turn takes.
          for (let index = 0; index < 3000; index++) reactor.post(message)
          const runnable: Runnable = {
            isScheduled: false,
            run: () => {
              // As they all do: nothing when the turn is over.
              if (!reactor.isExhausted) count.runs++
              return !isOver
            }
          }
          reactor.schedule(runnable)
          return count
        })
      )
      for (let turns = 0; turns < 40; turns++) yield* turn
      isOver = true
      for (const { messages, runs } of counts) {
        assert.isAbove(messages, 100)
        assert.isAtLeast(runs, 10)
      }
    })
  )

  it.live("are left their turn by runnables that take as much as there is", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      let isOver = false
      let messages = 0
      reactor.schedule({
        isScheduled: false,
        run: () => {
          reactor.spent += 5000
          return !isOver
        }
      })
      const message = () => {
        messages++
        if (!isOver) reactor.post(message)
      }
      yield* turn
      reactor.post(message)
      for (let turns = 0; turns < 20; turns++) yield* turn
      isOver = true
      assert.isAtLeast(messages, 10)
    })
  )

  it.live("that throw each time leave runnables their turn", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      let isOver = false
      let runs = 0
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          const message = () => {
            if (!isOver) reactor.post(message)
            throw new Error("a message of the test's")
          }
          for (let index = 0; index < 10; index++) reactor.post(message)
          reactor.schedule({
            isScheduled: false,
            run: () => {
              runs++
              return !isOver
            }
          })
          for (let turns = 0; turns < 5; turns++) yield* turn
          isOver = true
          yield* turn
        })
      )
      assert.isAbove(uncaught.length, 100)
      assert.isAtLeast(runs, 100)
    })
  )

  it.live("are forgotten once they have run", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      const post = (): WeakRef<object> => {
        const held = { bytes: new Uint8Array(1024) }
        reactor.post(() => void held.bytes.fill(1))
        return new WeakRef(held)
      }
      const held = post()
      for (let turns = 0; turns < 5; turns++) yield* turn
      collect()
      assert.isUndefined(held.deref())
    })
  )

  it.live("run in their order and once, also behind those that throw", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      const order: Array<number> = []
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          for (let index = 0; index < 3000; index++) {
            reactor.post(() => {
              order.push(index)
              if (index % 10 === 0) reactor.post(() => order.push(index + 0.5))
              if (index % 100 === 0) throw new Error(`message ${index}`)
            })
          }
          for (let turns = 0; turns < 50 && order.length < 3300; turns++) yield* turn
        })
      )
      assert.strictEqual(uncaught.length, 30)
      const whole = order.filter(Number.isInteger)
      assert.deepStrictEqual(
        whole,
        Array.from({ length: 3000 }, (_, index) => index)
      )
      assert.strictEqual(order.length, 3300)
    })
  )
})

describe("what is called in every turn", () => {
  it.live("goes on, though another of them throws each time", () =>
    Effect.gen(function* () {
      const reactor = new EmbeddedReactor()
      let calls = 0
      const { uncaught } = yield* uncaughtDuring(
        Effect.gen(function* () {
          const stops = [
            reactor.onEveryTurn(() => {
              throw new Error("a poller of the test's")
            }),
            reactor.onEveryTurn(() => void calls++)
          ]
          for (let turns = 0; turns < 10; turns++) yield* turn
          for (const stop of stops) stop()
        })
      )
      assert.isAtLeast(calls, 9)
      assert.isAtLeast(uncaught.length, 9)
    })
  )
})
