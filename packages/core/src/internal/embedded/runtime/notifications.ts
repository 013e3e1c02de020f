/**
 * What happened to bdevs, as notify_get_notifications tells it. SPDK keeps the last 1024.
 */
const capacity = 1024

export const notificationTypes = [
  "fsdev_register",
  "fsdev_unregister",
  "bdev_register",
  "bdev_unregister",
  "bdev_resize"
] as const
export type NotificationType = (typeof notificationTypes)[number]

export interface Notification {
  readonly id: number
  readonly type: NotificationType
  readonly ctx: string
}

export class Notifications {
  private readonly events: Array<Notification> = []
  private nextId = 0

  add(type: NotificationType, ctx: string): void {
    this.events.push({ id: this.nextId++, type, ctx })
    if (this.events.length > capacity) this.events.shift()
  }

  since(id: number, max: number): ReadonlyArray<Notification> {
    const first = this.events[0]
    const from = first === undefined ? 0 : Math.max(0, id - first.id)
    return this.events.slice(from, from + max)
  }
}
