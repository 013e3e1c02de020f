/**
 * Fibers that do random things to the same few blobs over a simulated disk, beside a model that knows what every sector may hold: with
 * failures, and with power that goes at any request and takes any part of what was not flushed. One seed decides a round.
 */
import { assert, describe, it } from "@effect/vitest"
import { makeRandom, rounds, seed } from "./golden/random.ts"
import { storm } from "./support/storm.ts"

const count = rounds(20, 20_000)
const perTest = 10

describe("fibers that get in each other's way, of the portable driver", () => {
  for (let first = 0; first < count; first += perTest) {
    it(`hold what the model says, EFFECT_SPDK_SEED=${seed}, rounds ${first} to ${first + perTest - 1}`, () => {
      for (let round = first; round < first + perTest; round++) {
        const own = makeRandom(seed + round).word()
        const wrong = storm(own)
        assert.deepStrictEqual(wrong, [], `round ${round} of EFFECT_SPDK_SEED=${seed}, storm(${own})`)
      }
    })
  }
})
