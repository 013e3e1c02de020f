/**
 * SPDK's blobstore: scoped blobs on any bdev, on libspdk or in TypeScript, in one on-disk format.
 *
 * @since 0.1.0
 */
export * as Blob from "./Blob.ts"
export * as BlobKeyValueStore from "./BlobKeyValueStore.ts"
export * as Blobstore from "./Blobstore.ts"
export * as Check from "./Check.ts"
