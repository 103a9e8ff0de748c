// The hash by which Kafka's clients, and the node itself, choose a partition for a key.

const M = 0x5bd1e995;

/** The hash of a key without its sign, as Kafka's default partitioner takes it. */
export function murmur2(key: Buffer): number {
  const blocks = key.length - (key.length % 4);
  let hash = 0x9747b28c ^ key.length;
  for (let at = 0; at < blocks; at += 4) {
    let k = Math.imul(key.readInt32LE(at), M);
    k = Math.imul(k ^ (k >>> 24), M);
    hash = Math.imul(hash, M) ^ k;
  }
  if (key.length > blocks) {
    hash = Math.imul(hash ^ key.readUIntLE(blocks, key.length - blocks), M);
  }
  hash = Math.imul(hash ^ (hash >>> 13), M);
  return (hash ^ (hash >>> 15)) & 0x7fff_ffff;
}
