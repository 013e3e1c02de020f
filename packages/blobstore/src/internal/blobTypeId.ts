/** In a module of its own, so that the public face and the implementation share it without a cycle. */
export const BlobTypeId = "~@effect-spdk/blobstore/Blob"
