//! From `Ready` to the first step: the group is connected, and all ranks hold the same state.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use unimse_checkpoint::{Checkpoint, Digest, ManifestKey, Store};
use unimse_collectives::{Collective, tcp};
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Rank, Step};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Form, ReportKind};
use unimse_core::shard::Cursor;

use super::held::Held;
use super::life::Life;
use super::mailbox::Next;
use super::saving::with_causes;
use super::{Description, Halt, failed, invalid};
use crate::protocol::Seat;

/// How long ranks may take to connect once all of them are known to listen.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(1);

/// What each rank tells the others first.
#[derive(Debug, Serialize, Deserialize)]
struct Hand {
    holds: Option<Step>,
    /// The hash of its description.
    description: String,
    data: String,
}

impl Life<'_> {
    /// Says that this rank is ready and waits for its peers; the inner error is the newer seat that came instead.
    #[expect(clippy::type_complexity, reason = "the inner result says whether to go on with another seat")]
    pub(super) fn form(&mut self, seat: Seat) -> Result<Result<(Box<dyn Collective>, Form), Seat>, Halt> {
        if !self.replica.is_whole() {
            self.held = None;
        }
        let listener = listen(&self.begin.host).map_err(invalid)?;
        let address = listener.address().to_string();
        let holds = self.held.as_ref().map(Held::step);
        tracing::info!(generation = %seat.generation, rank = %seat.rank, address, holds = ?holds.map(|step| step.0), "ready");
        self.mouth.event(seat, ReportKind::Ready(Readiness { address, nccl_id: None, holds }));
        let form = match self.mailbox.next(seat.generation) {
            Next::Form(form) => form,
            Next::Seat(seat) => return Ok(Err(seat)),
        };
        self.mailbox.guard(seat.generation, listener.abort_handle());
        let peers: Result<Vec<SocketAddr>, _> = form.peers.iter().map(|peer| peer.parse()).collect();
        let rendezvous = tcp::Rendezvous {
            secret: tcp::Secret::new(format!("{}/{}", self.begin.cluster, self.begin.job).as_bytes()),
            generation: seat.generation.0,
            rank: seat.rank.0,
            peers: peers
                .map_err(|error| failed(format!("cannot use the peers' addresses {:?}: {error}", form.peers)))?,
        };
        let met = Box::new(tcp::connect(&rendezvous, listener, CONNECT_TIMEOUT)?);
        let group = self.replica.join(seat.generation, met)?;
        Ok(Ok((group, form)))
    }

    /// Brings all ranks to the same state: that of a peer's memory, of a checkpoint, or of the beginning.
    pub(super) fn agree(&mut self, form: &Form, group: &mut dyn Collective) -> Result<(), Halt> {
        if self.held.is_some() {
            self.replica.rewind()?;
        }
        let own = self.replica.description();
        let hand = Hand { holds: self.held.as_ref().map(Held::step), description: hash(&own), data: own.data.clone() };
        let hands = group.all_gather_bytes(&serde_json::to_vec(&hand).map_err(failed)?)?;
        let hands: Vec<Hand> =
            hands.iter().map(|hand| serde_json::from_slice(hand)).collect::<Result<_, _>>().map_err(failed)?;
        if let Some(other) = hands.iter().position(|other| other.data != hand.data) {
            return Err(Halt::End(invalid(format!(
                "the data of rank {other} ({}) differ from those of rank {} ({}); hint: all workers must see the same files",
                hands[other].data,
                group.rank(),
                hand.data
            ))));
        }
        match (form.source, &form.resume) {
            (Some((root, step)), resume) => self.copy_from(root, step, resume.as_ref(), &hands, group)?,
            (None, Some(at)) => self.load(at)?,
            (None, None) => {
                self.held = None;
                self.replica.initialise()?;
                if !self.alike(group)? {
                    // Kinds of processors may draw different numbers from one seed.
                    tracing::warn!("the ranks drew different initial values; all take those of rank 0");
                    self.replica.receive(Rank(0), group)?;
                }
                self.held = Some(Held::at(Cursor::START));
                tracing::info!("starts from scratch");
            }
        }
        if self.alike(group)? {
            return Ok(());
        }
        // Training from different numbers would go wrong without a word.
        Err(Halt::End(failed(
            "the ranks do not hold the same parameters; hint: check that all workers run the same version; this is a bug, \
             please report it with the job file",
        )))
    }

    /// Takes the state from a peer's memory, if anybody needs it.
    fn copy_from(
        &mut self,
        root: Rank,
        step: Step,
        durable: Option<&CheckpointRef>,
        hands: &[Hand],
        group: &mut dyn Collective,
    ) -> Result<(), Halt> {
        let source = hands.get(root.0 as usize);
        let source = source.filter(|source| source.holds == Some(step)).ok_or_else(|| {
            failed(format!("rank {root} was to bring the state of step {step}, but does not hold it"))
        })?;
        if hands.iter().any(|hand| hand.description != source.description) {
            let mut text = serde_json::to_vec(&self.replica.description()).map_err(failed)?;
            group.broadcast_bytes(root.0, &mut text)?;
            let description: Description = serde_json::from_slice(&text).map_err(failed)?;
            self.replica.adopt(&description)?;
        }
        let mut held = serde_json::to_vec(&self.held).map_err(failed)?;
        group.broadcast_bytes(root.0, &mut held)?;
        if hands.iter().any(|hand| hand.holds != Some(step)) {
            // Until all of it has arrived, the memory holds nothing of use.
            let own = if group.rank() == root.0 { self.held.take() } else { None };
            self.held = None;
            let received = self.replica.receive(root, group);
            self.held = own;
            received?;
            tracing::info!(%step, from = %root, "state copied from a peer's memory");
        }
        let held: Option<Held> = serde_json::from_slice(&held).map_err(failed)?;
        let mut held = held.ok_or_else(|| failed(format!("rank {root} holds no state")))?;
        let durable = durable.map(|at| at.step);
        if held.saved > durable {
            // It was written, but the coordinator never accepted it.
            held.owed = true;
            held.saved = durable;
        }
        self.held = Some(held);
        if group.rank() == root.0 {
            self.tell_again(step);
        }
        Ok(())
    }

    fn load(&mut self, at: &CheckpointRef) -> Result<(), Halt> {
        self.held = None;
        let began = std::time::Instant::now();
        let blame = |error: unimse_checkpoint::Error| {
            let message = with_causes(&error);
            if error.is_corruption() {
                ExitCause::CheckpointDamaged { manifest: at.manifest.clone(), message }
            } else {
                failed(message)
            }
        };
        let store = Store::open(&at.uri, self.surroundings.environment.clone()).map_err(blame)?;
        let key: ManifestKey = at.manifest.parse().map_err(|error| invalid(format!("cannot resume: {error}")))?;
        let digest: Option<Digest> = match at.digest.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| invalid(format!("cannot resume: `{text}` is no digest")))?),
        };
        let runtime = &self.runtime;
        let checkpoint = runtime.block_on(Checkpoint::open(&store, &key, digest)).map_err(blame)?;
        let manifest = checkpoint.manifest();
        let mut read = |wanted: &dyn Fn(&str) -> bool| runtime.block_on(checkpoint.read_where(wanted)).map_err(blame);
        self.replica.load(manifest, &mut read)?;
        let order = self.replica.order();
        let data = manifest.cursor;
        // Another batch size or data set changes what a step is, so the place in the data is found anew by the step.
        let same = data.seed == self.begin.spec.train.seed && data.index < order.len();
        let cursor = if same {
            Cursor { epoch: data.epoch, index: data.index, step: data.step }
        } else {
            order.cursor_at(manifest.step)
        };
        let mut held = Held::at(cursor);
        held.saved = Some(manifest.step);
        // What came after belongs to a future that is lost.
        let _ = self.recent.up_to(manifest.step);
        held.evaluated = (!manifest.metrics.is_empty()).then(|| (manifest.step, manifest.metrics.clone()));
        self.held = Some(held);
        let milliseconds = began.elapsed().as_millis() as u64;
        tracing::info!(step = %manifest.step, bytes = manifest.bytes(), milliseconds, "checkpoint loaded");
        Ok(())
    }

    /// Whether all ranks hold the same parameters.
    fn alike(&mut self, group: &mut dyn Collective) -> Result<bool, Halt> {
        let own = self.replica.fingerprint().to_le_bytes();
        let all = group.all_gather_bytes(&own)?;
        Ok(all.iter().all(|other| other[..] == own))
    }
}

fn hash(description: &Description) -> String {
    let text = serde_json::to_vec(description).unwrap_or_default();
    blake3::hash(&text).to_hex().to_string()
}

/// Listens on the interface that the host's name stands for, so that a worker on loopback is not open to the network.
fn listen(host: &str) -> Result<tcp::Listener, String> {
    let resolved =
        (host, 0).to_socket_addrs().map_err(|error| format!("cannot find the own host `{host}`: {error}"))?;
    let mut reason = format!("the own host `{host}` has no address");
    for address in resolved {
        match tcp::Listener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => reason = format!("cannot listen on `{host}` ({address}): {}", with_causes(&error)),
        }
    }
    Err(format!("{reason}; hint: start the agent with --host and an address of this machine"))
}
