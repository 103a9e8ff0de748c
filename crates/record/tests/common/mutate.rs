//! Mutations of bytes, seeded: what a fuzzer does between two runs, without one.
//!
//! Knows nothing of batches, so that tests of other formats can use it by its path.

/// One seed gives one sequence of mutations.
#[derive(Debug)]
pub(crate) struct Mutator {
    state: u64,
}

/// Integers that lie at the edge of something.
const INTERESTING: [i64; 12] =
    [0, 1, -1, 2, 7, 127, 128, 255, 1 << 16, i32::MAX as i64, i32::MIN as i64, i64::MAX];

impl Mutator {
    pub(crate) fn new(seed: u64) -> Mutator {
        // Any state but 0, which xorshift never leaves.
        Mutator { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    /// xorshift64*.
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("invariant: less than a usize")
    }

    /// One to four changes of `input`; some take bytes from `other`.
    pub(crate) fn mutate(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            bytes.extend_from_slice(other);
            return;
        }
        let at = self.below(bytes.len());
        let len = 1 + self.below((bytes.len() - at).min(32));
        match self.below(9) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.next().to_le_bytes()[0],
            2 => bytes[at] = bytes[at].wrapping_add(1),
            3 => {
                let value = INTERESTING[self.below(INTERESTING.len())].to_be_bytes();
                let width = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&value[8 - width..]);
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..at + len)),
            6 => {
                let copy = bytes[at..at + len].to_vec();
                bytes.splice(at..at, copy);
            }
            7 => {
                let inserted: Vec<u8> = (0..len).map(|_| self.next().to_le_bytes()[0]).collect();
                bytes.splice(at..at, inserted);
            }
            _ => {
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}
