// The functions that JavaScript calls for SPDK threads with their rings, and for bdevs, channels and pollers.
#pragma once

#include <napi.h>

namespace effect_spdk {

// spawn(request, name, cpuMask, sqEntries, cqEntries) -> reply a: queue id, b: SPDK thread id
void Spawn(const Napi::CallbackInfo& info);
// ring(queue): ArrayBuffer
Napi::Value RingBuffer(const Napi::CallbackInfo& info);
// exit(request, queue) - closes the queue and its SPDK thread.
void Exit(const Napi::CallbackInfo& info);
// kick(queue) - wakes a sleeping reactor.
void Kick(const Napi::CallbackInfo& info);
// bdevOpen(request, name, write) -> reply a: descriptor id, text: JSON
void BdevOpen(const Napi::CallbackInfo& info);
// bdevClaim(request, name) -> reply a: the id that bdevClose gives it back by; with a status, text: who has claimed it
void BdevClaim(const Napi::CallbackInfo& info);
// bdevClaimOf(request, name) -> reply text: who has claimed it, or nothing; a: 1 when nobody has, and it is open for writing
void BdevClaimOf(const Napi::CallbackInfo& info);
// bdevClose(request, target) - a bdev, a blob or a namespace; waits for its channels.
void BdevClose(const Napi::CallbackInfo& info);
// channelOpen(request, queue, target) -> reply a: slot, b: generation
void ChannelOpen(const Napi::CallbackInfo& info);
// channelClose(request, queue, slot, generation) - waits for its requests.
void ChannelClose(const Napi::CallbackInfo& info);
// pollerRegister(request, queue, id, name, periodMicros)
void PollerRegister(const Napi::CallbackInfo& info);
// pollerControl(request, queue, id, action) -> reply a: runs, b: busy
void PollerControl(const Napi::CallbackInfo& info);

}  // namespace effect_spdk
