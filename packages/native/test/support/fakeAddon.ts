/** An addon without SPDK: it answers when the test tells it to, and its queues are `FakeReactor`s. */
import { type Addon, type AddonEvent, EventKind } from "@effect-spdk/native/Addon"
import { FakeReactor } from "./fakeReactor.ts"

export class FakeAddon implements Addon {
  readonly version = "fake"
  readonly reactors = new Map<number, FakeReactor>()
  /** The calls that wait for an answer, by name. */
  readonly asked: Array<{ readonly name: string; readonly request: number }> = []
  readonly released: Array<number> = []
  alive = false
  kicks = 0
  private wake = (_events: boolean, _sharesProcessor: boolean): void => {}
  /** What the host is told about its processor. */
  processorIsShared = false
  /** What the reactor does with the processor when it gets it. */
  onGiveWay = (): void => {}
  private events: Array<AddonEvent> = []

  attach(onWake: (events: boolean, sharesProcessor: boolean) => void): void {
    this.wake = onWake
  }
  sharesProcessor(): boolean {
    return this.processorIsShared
  }
  giveWay(): boolean {
    this.onGiveWay()
    return this.processorIsShared
  }
  keepAlive(alive: boolean): void {
    this.alive = alive
  }
  drain() {
    const events = this.events
    this.events = []
    return { events, droppedLogLines: 0 }
  }

  /** Answers the oldest call of that name. */
  answer(name: string, fields: Partial<AddonEvent> = {}): void {
    const at = this.asked.findIndex((call) => call.name === name)
    const [call] = this.asked.splice(at, 1)
    if (at < 0 || call === undefined) throw new Error(`nobody asked ${name}`)
    this.tell({ ...fields, id: call.request })
  }

  tell(...events: ReadonlyArray<Partial<AddonEvent>>): void {
    for (const event of events) {
      this.events.push({ kind: EventKind.Reply, id: 0, status: 0, a: 0, b: 0, c: 0, text: "", ...event })
    }
    this.wake(this.events.length > 0, this.processorIsShared)
  }

  ring(queue: number): ArrayBuffer | undefined {
    const reactor = new FakeReactor(1024, 4096)
    this.reactors.set(queue, reactor)
    return reactor.memory
  }

  start = (request: number) => this.ask("start", request)
  spawn = (request: number) => this.ask("spawn", request)
  exit = (request: number) => this.ask("exit", request)
  bdevOpen = (request: number) => this.ask("bdevOpen", request)
  bdevClaim = (request: number) => this.ask("bdevClaim", request)
  bdevClaimOf = (request: number) => this.ask("bdevClaimOf", request)
  bdevClose = (request: number) => this.ask("bdevClose", request)
  channelOpen = (request: number) => this.ask("channelOpen", request)
  channelClose = (request: number) => this.ask("channelClose", request)
  pollerRegister = (request: number) => this.ask("pollerRegister", request)
  pollerControl = (request: number) => this.ask("pollerControl", request)
  blobstoreCall = (request: number) => this.ask("blobstoreCall", request)
  dmaAllocate = (request: number) => this.ask("dmaAllocate", request)
  nvmeConnect = (request: number) => {
    this.ask("nvmeConnect", request)
    return request
  }
  nvmeCall = (request: number) => this.ask("nvmeCall", request)
  nvmeOpen = (request: number) => this.ask("nvmeOpen", request)
  nvmeAdmin = (request: number) => this.ask("nvmeAdmin", request)
  nvmeScan = (request: number) => this.ask("nvmeScan", request)
  nvmeAbort = () => {}
  release(start: number): void {
    this.released.push(start)
  }
  kick(): void {
    this.kicks++
  }
  cores = () => [0]
  claimConfig = () => ({ status: 0, text: "" })
  settleConfig = () => {}
  dmaAllocateNow = () => -12
  dmaView = () => undefined
  dmaFree = () => {}
  dmaRenew = () => 0
  usage = () => ({
    threads: 0,
    descriptors: 0,
    channels: 0,
    pollers: 0,
    blobstores: 0,
    blobs: 0,
    nvmeControllers: 0,
    slabs: 0,
    dmaBytes: 0
  })

  private ask(name: string, request: number): void {
    this.asked.push({ name, request })
  }
}
