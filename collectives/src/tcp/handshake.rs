//! The messages by which two ranks prove to each other that they belong to the same group.
//!
//! The accepting rank sends a [`Challenge`], the dialling one answers with a [`Hello`], and a [`Welcome`] ends it. Both
//! prove knowledge of the job secret by a keyed hash over both nonces; the secret itself never travels.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use crate::{Refusal, Result};

const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"unimseC\n";

pub(super) const CHALLENGE_BYTES: usize = 24;
pub(super) const HELLO_BYTES: usize = 80;
pub(super) const WELCOME_BYTES: usize = 40;
/// The part of a hello that its proof covers.
const HELLO_BODY: usize = HELLO_BYTES - 32;

pub(super) type Nonce = [u8; 16];

/// The secret of a job, from which the ranks' proofs are made.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Derives the key from a token of any length that the job's ranks, and they alone, were given.
    pub fn new(token: &[u8]) -> Self {
        Self(blake3::derive_key("unimse collectives tcp handshake v1", token))
    }

    fn proof(&self, role: &[u8], challenge: &Nonce, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(role).update(challenge).update(body);
        hasher.finalize()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A number that is used once, from the system's random source.
pub(super) fn nonce() -> Result<Nonce> {
    let read = || -> io::Result<Nonce> {
        let mut nonce = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        Ok(nonce)
    };
    read().map_err(|source| crate::Error::io("read random numbers from /dev/urandom", source))
}

/// What both sides of a connection must agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) generation: u64,
    pub(super) world_size: u32,
    /// The dialling rank.
    pub(super) from: u32,
    /// The accepting rank.
    pub(super) to: u32,
}

pub(super) fn challenge(nonce: &Nonce) -> [u8; CHALLENGE_BYTES] {
    let mut bytes = [0; CHALLENGE_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(nonce);
    bytes
}

/// The nonce in a challenge, or nothing if the other side is no rank.
pub(super) fn read_challenge(bytes: &[u8; CHALLENGE_BYTES]) -> Option<Nonce> {
    (bytes[..8] == MAGIC).then(|| array(bytes, 8))
}

pub(super) fn hello(secret: &Secret, claim: &Claim, challenge: &Nonce, own: &Nonce) -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&claim.world_size.to_le_bytes());
    bytes[16..24].copy_from_slice(&claim.generation.to_le_bytes());
    bytes[24..28].copy_from_slice(&claim.from.to_le_bytes());
    bytes[28..32].copy_from_slice(&claim.to.to_le_bytes());
    bytes[32..48].copy_from_slice(own);
    let proof = secret.proof(b"dial", challenge, &bytes[..HELLO_BODY]);
    bytes[HELLO_BODY..].copy_from_slice(proof.as_bytes());
    bytes
}

/// Why a hello is not let in; nothing if its bytes are no hello at all, which gets no answer.
pub(super) type Rejection = Option<Refusal>;

/// Checks a hello against what this rank expects (`expected.from` is ignored); returns the peer's rank and nonce.
pub(super) fn read_hello(
    secret: &Secret,
    expected: &Claim,
    challenge: &Nonce,
    bytes: &[u8; HELLO_BYTES],
) -> Result<(u32, Nonce), Rejection> {
    if bytes[..8] != MAGIC {
        return Err(None);
    }
    if u32::from_le_bytes(array(bytes, 8)) != VERSION {
        return Err(Some(Refusal::Version));
    }
    // Compares in constant time.
    if secret.proof(b"dial", challenge, &bytes[..HELLO_BODY]) != array(bytes, HELLO_BODY) {
        return Err(Some(Refusal::Secret));
    }
    if u64::from_le_bytes(array(bytes, 16)) != expected.generation {
        return Err(Some(Refusal::Generation));
    }
    if u32::from_le_bytes(array(bytes, 12)) != expected.world_size {
        return Err(Some(Refusal::WorldSize));
    }
    let from = u32::from_le_bytes(array(bytes, 24));
    if u32::from_le_bytes(array(bytes, 28)) != expected.to || from <= expected.to || from >= expected.world_size {
        return Err(Some(Refusal::Rank));
    }
    Ok((from, array(bytes, 32)))
}

/// The answer to a hello: an acceptance with a proof, or a refusal.
pub(super) fn welcome(secret: &Secret, answer: Result<&Nonce, Refusal>, challenge: &Nonce) -> [u8; WELCOME_BYTES] {
    let mut bytes = [0; WELCOME_BYTES];
    match answer {
        Ok(theirs) => bytes[8..].copy_from_slice(secret.proof(b"accept", challenge, theirs).as_bytes()),
        Err(refusal) => bytes[0] = 1 + refusal as u8,
    }
    bytes
}

/// Checks the answer to our hello.
pub(super) fn read_welcome(
    secret: &Secret,
    challenge: &Nonce,
    own: &Nonce,
    bytes: &[u8; WELCOME_BYTES],
) -> Result<(), Refusal> {
    match bytes[0] {
        0 if secret.proof(b"accept", challenge, own) == array(bytes, 8) => Ok(()),
        0 | 2 => Err(Refusal::Secret),
        3 => Err(Refusal::Generation),
        4 => Err(Refusal::WorldSize),
        5 => Err(Refusal::Rank),
        _ => Err(Refusal::Version),
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: Claim = Claim { generation: 7, world_size: 4, from: 2, to: 1 };

    fn judged(change: impl FnOnce(&mut [u8; HELLO_BYTES])) -> Result<(u32, Nonce), Rejection> {
        let secret = Secret::new(b"job");
        let mut bytes = hello(&secret, &CLAIM, &[1; 16], &[2; 16]);
        change(&mut bytes);
        read_hello(&secret, &CLAIM, &[1; 16], &bytes)
    }

    #[test]
    fn a_true_hello_is_welcomed_and_the_welcome_is_believed() {
        let secret = Secret::new(b"job");
        let (from, theirs) = judged(|_| ()).unwrap();
        assert_eq!((from, theirs), (2, [2; 16]));
        let answer = welcome(&secret, Ok(&theirs), &[1; 16]);
        assert_eq!(read_welcome(&secret, &[1; 16], &[2; 16], &answer), Ok(()));
    }

    #[test]
    fn each_difference_has_its_own_refusal() {
        let secret = Secret::new(b"job");
        let other = |claim: Claim| {
            read_hello(&secret, &CLAIM, &[1; 16], &hello(&secret, &claim, &[1; 16], &[2; 16])).unwrap_err()
        };
        assert_eq!(other(Claim { generation: 6, ..CLAIM }), Some(Refusal::Generation));
        assert_eq!(other(Claim { world_size: 3, ..CLAIM }), Some(Refusal::WorldSize));
        assert_eq!(other(Claim { to: 0, ..CLAIM }), Some(Refusal::Rank));
        assert_eq!(other(Claim { from: 1, ..CLAIM }), Some(Refusal::Rank));
        assert_eq!(other(Claim { from: 4, ..CLAIM }), Some(Refusal::Rank));
        assert_eq!(judged(|bytes| bytes[0] = 0), Err(None));
        assert_eq!(judged(|bytes| bytes[8] = 9), Err(Some(Refusal::Version)));
        assert_eq!(judged(|bytes| bytes[24] = 3), Err(Some(Refusal::Secret)), "a changed field breaks the proof");
        for refusal in [Refusal::Version, Refusal::Secret, Refusal::Generation, Refusal::WorldSize, Refusal::Rank] {
            let answer = welcome(&secret, Err(refusal), &[1; 16]);
            assert_eq!(read_welcome(&secret, &[1; 16], &[2; 16], &answer), Err(refusal));
        }
    }

    #[test]
    fn a_hello_cannot_be_replayed_to_another_challenge() {
        let secret = Secret::new(b"job");
        let heard = hello(&secret, &CLAIM, &[1; 16], &[2; 16]);
        assert_eq!(read_hello(&secret, &CLAIM, &[9; 16], &heard), Err(Some(Refusal::Secret)));
    }

    #[test]
    fn a_welcome_without_the_secret_is_not_believed() {
        let forged = welcome(&Secret::new(b"other"), Ok(&[2; 16]), &[1; 16]);
        assert_eq!(read_welcome(&Secret::new(b"job"), &[1; 16], &[2; 16], &forged), Err(Refusal::Secret));
    }

    #[test]
    fn a_secret_does_not_show_in_logs() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2")), "Secret(..)");
    }
}
