//! The stream of one worker agent.
//!
//! Words are handed to the loop in the order in which they come; acknowledgements go out in that order too, when what they cover is
//! durable. The first report that cannot be kept ends the session: the agent comes back and repeats it and all that followed.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::{FuturesOrdered, unfold};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use unimse_core::machine::{Event, Report, ReportKind};
use unimse_core::worker::WorkerInfo;
use unimse_proto::server::{FromAgents, Sessions};
use unimse_proto::session::{AgentReport, FromAgent, Hello, ToAgent};
use unimse_proto::{Error, Stream};

use crate::handle::Handle;
use crate::journal::Encoded;
use crate::service::{Failure, Link, SessionKey, Word};

/// Orders that wait for a slow agent before it loses its session.
const ORDERS: usize = 256;
/// Reports on their way to the disk before the agent has to wait.
const IN_FLIGHT: usize = 64;
/// Bounds of what an agent may say of itself.
const LONGEST_NAME: usize = 253;
const MOST_SLOTS: usize = 1024;
const MOST_TRAINERS: usize = 4096;

/// Serves agents.
#[derive(Debug)]
pub(crate) struct Agents(pub(crate) Handle);

impl Sessions for Agents {
    async fn open(&self, hello: Hello, words: FromAgents) -> Result<Stream<ToAgent>, Error> {
        check(&hello)?;
        let node = hello.info.node.clone();
        let (orders, queue) = mpsc::channel(ORDERS);
        let over = CancellationToken::new();
        let session = match self.0.hello(hello, Link::new(orders, over.clone())).await? {
            Ok(session) => session,
            Err(rejection) => {
                tracing::warn!(node, reason = rejection.reason, "refused a worker");
                let refused = ToAgent::Refused { reason: rejection.reason, register_anew: rejection.register_anew };
                return Ok(Box::pin(futures::stream::iter([Ok(refused)])));
            }
        };
        let (acks, acked) = watch::channel(0);
        let (problem, last_word) = oneshot::channel();
        let reader = Reader { handle: self.0.clone(), session, over: over.clone(), acks };
        tokio::spawn(async move {
            let ended = reader.run(words).await;
            let worker = session.worker;
            match &ended {
                Ok(why) => tracing::info!(%worker, node, why, "session ended"),
                Err(error) => tracing::warn!(%worker, node, %error, "session ended"),
            }
            reader.handle.closed(session).await;
            // Whoever reads the stream may be gone.
            drop(problem.send(ended.err()));
        });
        Ok(Box::pin(outgoing(Outgoing { queue, acked, over, last_word: Some(last_word) })))
    }
}

fn check(hello: &Hello) -> Result<(), Error> {
    let WorkerInfo { node, incarnation, host, slots, version } = &hello.info;
    for (what, text) in [("node", node), ("incarnation", incarnation), ("host", host), ("version", version)] {
        if text.is_empty() || text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
            let reason = format!("the {what} of a worker has 1 to {LONGEST_NAME} printable characters");
            return Err(Error::Invalid { reason });
        }
    }
    if slots.len() > MOST_SLOTS || hello.trainers.len() > MOST_TRAINERS {
        let reason = format!("a worker has at most {MOST_SLOTS} slots and {MOST_TRAINERS} trainers");
        return Err(Error::Invalid { reason });
    }
    Ok(())
}

/// What leaves to the agent: orders before acknowledgements, and the reason of the end last.
struct Outgoing {
    queue: mpsc::Receiver<ToAgent>,
    /// Only the newest number counts; a slow agent gets one acknowledgement for many reports.
    acked: watch::Receiver<u64>,
    over: CancellationToken,
    last_word: Option<oneshot::Receiver<Option<Error>>>,
}

fn outgoing(start: Outgoing) -> impl futures::Stream<Item = Result<ToAgent, Error>> + Send {
    unfold(start, |mut out| async move {
        tokio::select! {
            biased;
            Some(order) = out.queue.recv() => return Some((Ok(order), out)),
            Ok(()) = out.acked.changed() => {
                let seq = *out.acked.borrow_and_update();
                return Some((Ok(ToAgent::Ack { seq }), out));
            }
            () = out.over.cancelled() => {}
        }
        // What was queued before the end still goes out.
        if let Ok(order) = out.queue.try_recv() {
            return Some((Ok(order), out));
        }
        let error = out.last_word.take()?.await.ok().flatten()?;
        Some((Err(error), out))
    })
}

struct Reader {
    handle: Handle,
    session: SessionKey,
    over: CancellationToken,
    acks: watch::Sender<u64>,
}

impl Reader {
    /// Reads until the session ends; says why it ended.
    async fn run(&self, mut words: FromAgents) -> Result<&'static str, Error> {
        let _ends_the_stream_too = self.over.clone().drop_guard();
        let mut kept = FuturesOrdered::new();
        loop {
            tokio::select! {
                () = self.over.cancelled() => return Ok("the coordinator ended it"),
                Some((seq, outcome)) = kept.next(), if !kept.is_empty() => {
                    let outcome: Result<Result<(), Failure>, _> = outcome;
                    outcome.unwrap_or(Err(Failure::Stopped))?;
                    self.acks.send_replace(seq);
                }
                word = words.next(), if kept.len() < IN_FLIGHT => match word? {
                    None => return Ok("the agent ended it"),
                    Some(FromAgent::Heartbeat) => self.handle.heartbeat(self.session).await?,
                    Some(FromAgent::Report { seq, report }) => {
                        let outcome = self.handle.word(self.session, self.sort(seq, report)).await?;
                        kept.push_back(async move { (seq, outcome.await) });
                    }
                    Some(FromAgent::Hello(_)) => {
                        return Err(Error::Invalid { reason: "hello was said already".to_owned() });
                    }
                },
            }
        }
    }

    fn sort(&self, seq: u64, report: AgentReport) -> Word {
        let event = |event| {
            let encoded = Encoded::event(&event);
            Word::Event(event, encoded)
        };
        match report {
            AgentReport::Event(report) => {
                event(Event::Report { worker: self.session.worker, seq, report: finite(report) })
            }
            AgentReport::Leaving => event(Event::WorkerLeaves { worker: self.session.worker }),
            AgentReport::Left => event(Event::WorkerLeft { worker: self.session.worker }),
            AgentReport::Steps(steps) => Word::Steps(steps),
            AgentReport::Logs(logs) => Word::Logs(logs),
        }
    }
}

/// The journal is JSON, which knows no NaN: a metric that is no number is as good as absent.
fn finite(mut report: Report) -> Report {
    let keep = |metrics: &mut BTreeMap<String, f64>| metrics.retain(|_, value| value.is_finite());
    match &mut report.kind {
        ReportKind::Evaluated { metrics, .. } | ReportKind::Committed { metrics, .. } => keep(metrics),
        ReportKind::Ready(_)
        | ReportKind::PeerLost { .. }
        | ReportKind::Finished { .. }
        | ReportKind::Exited { .. } => {}
    }
    report
}
