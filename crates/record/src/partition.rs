//! Which partition a key belongs to: the same one that Kafka's clients choose.

/// The partition of `key` among `partitions`, as the default partitioner of Kafka's Java client computes it.
///
/// It is `toPositive(murmur2(key)) % partitions` of `org.apache.kafka.common.utils.Utils`: Austin Appleby's
/// `MurmurHash2` (32 bits) with Kafka's seed, its sign bit cleared. With 0 partitions, which no topic has, the
/// answer is 0.
///
/// ```
/// use logmill_record::murmur2_partition;
///
/// let partition = murmur2_partition(b"sensor-7", 4);
/// assert!(partition < 4);
/// assert_eq!(partition, murmur2_partition(b"sensor-7", 4));
/// ```
#[must_use]
pub fn murmur2_partition(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7FFF_FFFF) % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_B28C;
    const M: u32 = 0x5BD1_E995;

    // As in Java, where a length is 32 bits; no key comes near it.
    #[expect(clippy::cast_possible_truncation, reason = "the hash is defined on 32 bits of the length")]
    let mut hash = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, &byte) in tail.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn hashes_as_kafkas_java_client() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
    }

    #[test]
    fn no_partitions_is_no_panic() {
        assert_eq!(murmur2_partition(b"key", 0), 0);
    }
}
