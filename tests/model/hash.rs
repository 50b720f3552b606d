//! States are remembered by 64 bits: of ten million, two are taken for one with a chance of 1 in 400,000.

use std::hash::{BuildHasher, Hash, Hasher};

/// Odd, and without a pattern.
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of a whole state.
pub fn hash(state: &impl Hash) -> u64 {
    let mut mixer = Mixer { sum: STEP, word: 0, bytes: 0 };
    state.hash(&mut mixer);
    mixer.mix();
    mixer.sum
}

/// Packs what it is given into words, and folds each into the sum by a long multiplication.
struct Mixer {
    sum: u64,
    word: u64,
    bytes: u8,
}

impl Mixer {
    #[inline(always)]
    fn mix(&mut self) {
        let product = u128::from(self.sum ^ self.word) * u128::from(FACTOR);
        self.sum = (product as u64 ^ (product >> 64) as u64).wrapping_add(STEP);
        (self.word, self.bytes) = (0, 0);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.sum
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    #[inline(always)]
    fn write_u8(&mut self, byte: u8) {
        self.word = self.word << 8 | u64::from(byte);
        self.bytes += 1;
        if self.bytes == 8 {
            self.mix();
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    /// The variant of an enum.
    fn write_isize(&mut self, variant: isize) {
        self.write_u8(variant as u8);
    }
}

/// For sets of what is a hash already.
#[derive(Clone, Copy, Default)]
pub struct Plain;

/// Gives back what it was given.
#[derive(Default)]
pub struct Same(u64);

impl BuildHasher for Plain {
    type Hasher = Same;

    fn build_hasher(&self) -> Same {
        Same(0)
    }
}

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are kept");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
