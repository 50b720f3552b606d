//! Which partition a key belongs to: the same as the Java client would choose, so that outboxd and other producers agree.

/// The partition of `key` among `count` partitions, as the default partitioner of the Java client computes it.
pub fn of_key(key: &[u8], count: i32) -> i32 {
    hash(key) % count
}

/// What is divided by the number of partitions: murmur2 without its sign.
pub fn hash(key: &[u8]) -> i32 {
    murmur2(key) & 0x7fff_ffff
}

/// The partition that all events without a key of batch `n` go to: one partition a batch costs a transaction less than all of them.
pub fn of_batch(n: u64, count: i32) -> i32 {
    i32::try_from(n % u64::from(count.unsigned_abs().max(1))).expect("a remainder is below the partition count")
}

/// Murmur2 with the seed of the Java client (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(bytes: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = SEED ^ bytes.len() as u32;
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MIX);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(MIX) ^ mixed.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, &byte| tail << 8 | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    (hash ^ hash >> 15) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_the_java_client() {
        let vectors = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_within_the_count() {
        for count in [1, 2, 12, 1_000] {
            for key in ["", "21", "foobar", "order-42"] {
                assert!((0..count).contains(&of_key(key.as_bytes(), count)));
            }
            assert!((0..count).contains(&of_batch(u64::MAX, count)));
        }
    }
}
