//! A permutation of 0..n that is a pure function of (seed, epoch), computed one element at a time.
//!
//! A shuffle in memory would do, but a library's shuffle may change with its version, and a checkpoint of last year must resume in
//! the same order. This one is fixed here for ever: a Feistel network over the smallest square power of two that holds n, with
//! cycle walking (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). Any position is found in constant time and
//! no memory, from any cursor.
//!
//! Definition: `h` = half the bits, at least 1, with 4^h >= n; the keys are ten little-endian u64 read from BLAKE3's extended output
//! in key-derivation mode, context `unimse data order v1`, over seed and epoch as little-endian u64. A round maps (l, r) to
//! (r, l xor F(r xor key)), where F is the low h bits of the finaliser of `SplitMix64`. Results outside 0..n are mapped again.

/// Four rounds give no visible pattern on large domains; on the tiny ones of tests more are needed.
const ROUNDS: usize = 10;

/// One epoch's permutation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    keys: [u64; ROUNDS],
    half_bits: u32,
    len: u64,
}

impl Permutation {
    pub(super) fn new(seed: u64, epoch: u64, len: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("unimse data order v1");
        hasher.update(&seed.to_le_bytes()).update(&epoch.to_le_bytes());
        let mut output = hasher.finalize_xof();
        let keys = std::array::from_fn(|_| {
            let mut key = [0; 8];
            output.fill(&mut key);
            u64::from_le_bytes(key)
        });
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { keys, half_bits: bits.div_ceil(2).max(1), len }
    }

    /// Where `position`, below the length, goes.
    pub(super) fn apply(&self, position: u64) -> u64 {
        debug_assert!(position < self.len, "position {position} of {}", self.len);
        let mut value = self.encrypt(position);
        // The domain is at most four times (for n = 1, 2 and 4^h + 1) as large as n, so this ends after a few rounds.
        while value >= self.len {
            value = self.encrypt(value);
        }
        value
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits & mask, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ mix(right ^ key) & mask);
        }
        left << self.half_bits | right
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
