{
  "variables": { "effect_spdk_sanitize%": "", "effect_spdk_werror%": "", "effect_spdk_debug%": "", "effect_spdk_link%": "shared" },
  "targets": [
    {
      "target_name": "spdk",
      "sources": [
        "node/addon.cc",
        "node/blobstore.cc",
        "node/dma.cc",
        "node/environment.cc",
        "node/nvme.cc",
        "node/queues.cc",
        "node/wake.cc",
        "spdk/blob.cc",
        "spdk/blob_device.cc",
        "spdk/blobstore.cc",
        "spdk/blobstore_calls.cc",
        "spdk/blobstore_queries.cc",
        "spdk/claims.cc",
        "spdk/descriptor.cc",
        "spdk/idle.cc",
        "spdk/nvme_admin.cc",
        "spdk/nvme_controller.cc",
        "spdk/nvme_identity.cc",
        "spdk/nvme_namespace.cc",
        "spdk/nvme_passthru.cc",
        "spdk/nvme_qpair.cc",
        "spdk/nvme_recovery.cc",
        "spdk/nvme_thread.cc",
        "spdk/lost_writes.cc",
        "spdk/stack.cc",
        "spdk/queue.cc",
        "spdk/queue_abort.cc",
        "spdk/queue_bdev.cc",
        "spdk/queue_blob.cc",
        "spdk/queue_complete.cc",
        "spdk/queue_control.cc",
        "spdk/queue_nvme.cc",
        "spdk/queue_take.cc",
        "spdk/runtime.cc",
        "spdk/runtime_census.cc",
        "spdk/runtime_exit.cc",
        "spdk/store_device.cc",
        "spdk/target.cc"
      ],
      # The last one: a worker that is being terminated takes no exception, and the process must not end for that.
      "defines": [
        "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
        "NAPI_VERSION=9",
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-rtti"],
      "cflags_cc": [
        "-std=c++20",
        "-O3",
        "-fno-exceptions",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Wconversion",
        "<!@(node spdk-flags.mjs --cflags)"
      ],
      "ldflags": ["-Wl,-z,nodelete"],
      "libraries": ["<!@(node spdk-flags.mjs --libs <(effect_spdk_link))"],
      "conditions": [
        ["effect_spdk_debug!='' or effect_spdk_sanitize!=''", { "defines": ["EFFECT_SPDK_DEBUG"] }],
        ["effect_spdk_werror!=''", { "cflags_cc": ["-Werror"] }],
        ["effect_spdk_sanitize!=''", {
          "cflags_cc": ["-fsanitize=<(effect_spdk_sanitize)", "-fno-omit-frame-pointer", "-g"],
          "ldflags": ["-fsanitize=<(effect_spdk_sanitize)"]
        }]
      ]
    }
  ]
}
