//! Random numbers as pure functions of what they are for: no generator, no state, the same on every machine and in every version.

/// A number in [0, 1) that depends on `domain` and `parts` alone.
///
/// Every part is hashed with its length, so that neighbouring parts cannot run into one another.
pub(crate) fn unit(domain: &str, parts: &[&[u8]]) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash = hasher.finalize();
    let bytes: [u8; 8] = std::array::from_fn(|at| hash.as_bytes()[at]);
    // 53 bits are what a double can tell apart in [0, 1).
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}
