//! Ranks as threads of one process: the in-memory twin of [`tcp`](crate::tcp), for tests and single-process worlds.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::abort::Abort;
use crate::buffer::bytes_of;
use crate::header::{Header, Operation};
use crate::sum::{check_summable, sum_in_rank_order};
use crate::wire;
use crate::{AbortHandle, Buffer, Collective, DEFAULT_TIMEOUT, DType, Error, Group, Result, Wire, segment};

/// Forms a group of `world_size` ranks; each goes to a thread of its own.
///
/// # Panics
/// If `world_size` is 0.
pub fn group(world_size: u32, generation: u64) -> Vec<Local> {
    assert!(world_size > 0, "a group has at least one rank");
    let shared = Arc::new(Shared {
        round: Mutex::new(Round { offers: (0..world_size).map(|_| None).collect(), ..Round::default() }),
        changed: Condvar::new(),
    });
    (0..world_size)
        .map(|rank| Local {
            group: Group { generation, rank, world_size },
            seat: Arc::new(Seat { rank, shared: Arc::clone(&shared), aborted: Mutex::new(false) }),
            sequence: 0,
            timeout: DEFAULT_TIMEOUT,
            broken: None,
        })
        .collect()
}

/// A rank that is a thread.
#[derive(Debug)]
pub struct Local {
    group: Group,
    seat: Arc<Seat>,
    sequence: u64,
    timeout: Duration,
    /// The first error, which all later calls repeat.
    broken: Option<Error>,
}

#[derive(Debug)]
struct Shared {
    round: Mutex<Round>,
    changed: Condvar,
}

/// A rank's call and the bytes that it brings.
type Offer = (Header, Vec<u8>);

/// One call of all ranks: offers come in, then everybody takes all of them, then the next round begins.
#[derive(Debug, Default)]
struct Round {
    offers: Vec<Option<Offer>>,
    /// What all ranks offered; there once the last came in.
    complete: Option<Arc<Vec<Offer>>>,
    /// Ranks that took the complete round.
    taken: u32,
    /// The first rank that left or failed.
    lost: Option<u32>,
}

#[derive(Debug)]
struct Seat {
    rank: u32,
    shared: Arc<Shared>,
    aborted: Mutex<bool>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, rank: u32) {
        self.lock().lost.get_or_insert(rank);
        self.changed.notify_all();
    }
}

impl Abort for Seat {
    fn abort(&self) {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.lose(self.rank);
    }

    fn is_aborted(&self) -> bool {
        *self.aborted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that elements of a type consist of.
fn in_bytes(elements: Range<usize>, dtype: DType) -> Range<usize> {
    elements.start * dtype.size()..elements.end * dtype.size()
}

impl Local {
    /// Offers this rank's part of a call and returns everybody's, by rank.
    fn exchange(
        &mut self,
        operation: Operation,
        dtype: DType,
        root: u32,
        len: usize,
        bytes: &[u8],
    ) -> Result<Arc<Vec<Offer>>> {
        self.probe()?;
        if root >= self.group.world_size {
            return Err(Error::Unsupported { operation: operation.name(), what: format!("root {root}") });
        }
        let header = Header { operation, dtype, root, sequence: self.sequence, len: len as u64 };
        self.sequence += 1;
        let outcome = self.take_round(header, bytes);
        outcome.map_err(|error| {
            let error = if self.seat.is_aborted() { Error::Aborted } else { error };
            self.seat.shared.lose(self.group.rank);
            self.broken.insert(error).clone()
        })
    }

    /// Sums some of the elements that the ranks offered into our own.
    fn sum(&self, dtype: DType, own: &mut [u8], elements: Range<usize>, offers: &[Offer]) {
        let place = in_bytes(elements, dtype);
        // The parts lie in words so that they are aligned for every type.
        let stride = place.len().next_multiple_of(8);
        let mut words = vec![0u64; stride / 8 * offers.len()];
        let parts = bytes_of(&mut words);
        for (part, (_, bytes)) in parts.chunks_exact_mut(stride.max(1)).zip(offers) {
            part[..place.len()].copy_from_slice(&bytes[place.clone()]);
        }
        sum_in_rank_order(dtype, &mut own[place], self.group.rank as usize, offers.len(), parts, stride);
    }

    fn take_round(&self, ours: Header, bytes: &[u8]) -> Result<Arc<Vec<Offer>>> {
        let deadline = Instant::now() + self.timeout;
        let me = self.group.rank as usize;
        let mut round = self.seat.shared.lock();
        while round.complete.is_some() {
            round = self.wait(round, ours.operation, deadline)?;
        }
        round.offers[me] = Some((ours, bytes.to_vec()));
        if round.offers.iter().all(Option::is_some) {
            round.complete = Some(Arc::new(round.offers.iter_mut().filter_map(Option::take).collect()));
            self.seat.shared.changed.notify_all();
        }
        let complete = loop {
            if let Some(complete) = &round.complete {
                break Arc::clone(complete);
            }
            round = self.wait(round, ours.operation, deadline)?;
        };
        round.taken += 1;
        if round.taken == self.group.world_size {
            round.taken = 0;
            round.complete = None;
            self.seat.shared.changed.notify_all();
        }
        drop(round);
        match complete.iter().enumerate().find(|(_, (theirs, _))| !ours.agrees_with(theirs)) {
            None => Ok(complete),
            Some((rank, (theirs, _))) => {
                Err(Error::Mismatch { rank: rank as u32, ours: ours.to_string(), theirs: theirs.to_string() })
            }
        }
    }

    /// Waits for a change of the round; fails when a rank is lost or time is up.
    fn wait<'a>(
        &self,
        round: MutexGuard<'a, Round>,
        operation: Operation,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, Round>> {
        if let Some(rank) = round.lost {
            return Err(Error::PeerLost { rank });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let missing = round.offers.iter().position(Option::is_none).unwrap_or(0);
            return Err(Error::Timeout { operation: operation.name(), rank: missing as u32, after: self.timeout });
        }
        let (round, _) = self.seat.shared.changed.wait_timeout(round, left).unwrap_or_else(PoisonError::into_inner);
        Ok(round)
    }
}

impl Collective for Local {
    fn group(&self) -> Group {
        self.group
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    fn abort_handle(&self) -> AbortHandle {
        AbortHandle::new(Arc::clone(&self.seat) as Arc<dyn Abort>)
    }

    fn all_reduce(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let (dtype, len) = (buffer.dtype(), buffer.len());
        check_summable("all_reduce", dtype)?;
        let own = buffer.host_bytes("all_reduce")?;
        let offers = self.exchange(Operation::AllReduce, dtype, 0, len, own)?;
        self.sum(dtype, own, 0..len, &offers);
        Ok(())
    }

    fn all_reduce_compressed(&mut self, values: &mut [f32], wire: Wire) -> Result<()> {
        let (dtype, len) = (wire.dtype(), values.len());
        let mut rounded = Vec::new();
        wire::round_to(values, &mut rounded);
        let own = bytes_of(&mut rounded);
        let offers = self.exchange(Operation::AllReduceCompressed, dtype, 0, len, own)?;
        self.sum(dtype, own, 0..len, &offers);
        wire::widen_to(&rounded, values);
        Ok(())
    }

    fn reduce_scatter(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let (dtype, len) = (buffer.dtype(), buffer.len());
        check_summable("reduce_scatter", dtype)?;
        let own = buffer.host_bytes("reduce_scatter")?;
        let offers = self.exchange(Operation::ReduceScatter, dtype, 0, len, own)?;
        self.sum(dtype, own, segment(len, self.group.world_size, self.group.rank), &offers);
        Ok(())
    }

    fn all_gather(&mut self, mut buffer: Buffer<'_>) -> Result<()> {
        let (dtype, len) = (buffer.dtype(), buffer.len());
        let own = buffer.host_bytes("all_gather")?;
        let offers = self.exchange(Operation::AllGather, dtype, 0, len, own)?;
        for (rank, (_, bytes)) in (0..).zip(offers.iter()) {
            let place = in_bytes(segment(len, self.group.world_size, rank), dtype);
            own[place.clone()].copy_from_slice(&bytes[place]);
        }
        Ok(())
    }

    fn broadcast(&mut self, root: u32, mut buffer: Buffer<'_>) -> Result<()> {
        let (dtype, len) = (buffer.dtype(), buffer.len());
        let own = buffer.host_bytes("broadcast")?;
        let mine: &[u8] = if root == self.group.rank { own } else { &[] };
        let offers = self.exchange(Operation::Broadcast, dtype, root, len, mine)?;
        own.copy_from_slice(&offers[root as usize].1);
        Ok(())
    }

    fn broadcast_bytes(&mut self, root: u32, bytes: &mut Vec<u8>) -> Result<()> {
        let mine: &[u8] = if root == self.group.rank { bytes } else { &[] };
        let offers = self.exchange(Operation::BroadcastBytes, DType::Bytes, root, mine.len(), mine)?;
        bytes.clone_from(&offers[root as usize].1);
        Ok(())
    }

    fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let offers = self.exchange(Operation::AllGatherBytes, DType::Bytes, 0, bytes.len(), bytes)?;
        Ok(offers.iter().map(|(_, bytes)| bytes.clone()).collect())
    }

    fn barrier(&mut self) -> Result<()> {
        self.exchange(Operation::Barrier, DType::Bytes, 0, 0, &[]).map(drop)
    }

    fn probe(&mut self) -> Result<()> {
        // An abort is noted before the loss that it causes, so it is looked for after it.
        let lost = self.seat.shared.lock().lost;
        if self.seat.is_aborted() {
            return Err(Error::Aborted);
        }
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        lost.map_or(Ok(()), |rank| Err(Error::PeerLost { rank }))
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.seat.shared.lose(self.group.rank);
    }
}
