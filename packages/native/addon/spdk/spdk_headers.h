// Every SPDK header that the addon uses, as system headers, in one place.
#pragma once

extern "C" {
#include <spdk/bdev.h>
#include <spdk/bdev_module.h>
#include <spdk/blob.h>
#include <spdk/blob_bdev.h>
#include <spdk/cpuset.h>
#include <spdk/env.h>
#include <spdk/event.h>
#include <spdk/json.h>
#include <spdk/keyring.h>
#include <spdk/log.h>
#include <spdk/module/bdev/nvme.h>
#include <spdk/nvme.h>
#include <spdk/nvme_spec.h>
#include <spdk/scheduler.h>
#include <spdk/string.h>
#include <spdk/thread.h>
#include <spdk/version.h>
}

// As in spdk-version.mjs.
#if SPDK_VERSION < SPDK_VERSION_NUM(25, 9, 0)
#error "effect-spdk needs SPDK 25.09 or later"
#endif
