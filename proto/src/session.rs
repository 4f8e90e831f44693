//! The stream between a worker agent and the coordinator.
//!
//! The agent says [`Hello`] and hears [`ToAgent::Welcome`] or [`ToAgent::Refused`]. It then sends heartbeats and numbered reports, each of
//! which it keeps until an [`ToAgent::Ack`] covers its number. When the stream ends it opens another one, says Hello again and repeats what
//! was not acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use unimse_core::id::{Generation, JobId, Rank, Step, WorkerId};
use unimse_core::machine::{Order, Report, TrainerStatus};
use unimse_core::time::Timestamp;
use unimse_core::view::Progress;
use unimse_core::worker::WorkerInfo;

use crate::connect::within_cap;
use crate::wire::worker_service_client::WorkerServiceClient;
use crate::{Error, MAX_MESSAGE, connect, wire};

/// How long the coordinator may take to accept the stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Words that wait for the network before [`Sender::send`] waits too.
const QUEUE: usize = 64;

/// The first word of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    pub info: WorkerInfo,
    /// The trainer processes that it has.
    pub trainers: Vec<TrainerStatus>,
    /// The cluster that it belonged to.
    pub cluster: Option<String>,
    /// The highest coordinator epoch it has seen.
    pub epoch: u64,
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent {
    Hello(Hello),
    /// Renews the lease.
    Heartbeat,
    /// `seq` counts the reports of one worker, from 1.
    Report {
        seq: u64,
        report: AgentReport,
    },
}

/// What an agent keeps until it is acknowledged.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentReport {
    /// Something that changes the state of a job.
    Event(Report),
    /// The agent was asked to end: its trainers save and stop.
    Leaving,
    /// The last trainer is gone, and so will be the agent.
    Left,
    /// Finished steps; repeating them does no harm.
    Steps(Steps),
    /// Lines of a trainer; repeating them does no harm.
    Logs(Logs),
}

/// Finished optimiser steps of a job, and how fast it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    pub job: JobId,
    pub generation: Generation,
    pub rank: Rank,
    pub progress: Progress,
    pub records: Vec<StepRecord>,
}

/// One finished step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    pub step: Step,
    pub at: Timestamp,
    /// Digest of the sample ids consumed: 16 letters of hex.
    pub digest: String,
    /// `train/loss`, `train/lr` and so on.
    pub values: BTreeMap<String, f64>,
}

/// Lines that a trainer has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    pub job: JobId,
    pub generation: Generation,
    pub rank: Rank,
    pub lines: Vec<LogLine>,
}

/// One line of a trainer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the lines of one trainer process, from 0.
    pub number: u64,
    pub at: Timestamp,
    pub level: String,
    pub text: String,
}

/// What the coordinator says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToAgent {
    /// The agent is registered; silence for the length of the lease means lost.
    Welcome {
        worker: WorkerId,
        cluster: String,
        epoch: u64,
        lease: Duration,
    },
    /// The agent is not registered; `register_anew` asks it to kill its trainers and come back as a new incarnation.
    Refused {
        reason: String,
        register_anew: bool,
    },
    Order(Order),
    /// Every report up to that number is durable.
    Ack {
        seq: u64,
    },
}

/// The agent's way to the coordinator.
#[derive(Clone, Debug)]
pub struct Sender {
    words: mpsc::Sender<wire::SessionRequest>,
    endpoint: String,
}

impl Sender {
    /// Queues a word; waits while the network is slow.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a word of more than [`MAX_MESSAGE`] bytes, [`Error::Unreachable`] when the stream has ended.
    pub async fn send(&self, word: FromAgent) -> Result<(), Error> {
        let word = encode(word)?;
        let ended =
            |_| Error::Unreachable { endpoint: self.endpoint.clone(), reason: "the session has ended".to_owned() };
        self.words.send(word).await.map_err(ended)
    }
}

/// The coordinator's words, in order.
#[derive(Debug)]
pub struct Receiver {
    words: tonic::Streaming<wire::SessionResponse>,
    endpoint: String,
}

impl Receiver {
    /// The next word; none when the coordinator has ended the session.
    pub async fn next(&mut self) -> Result<Option<ToAgent>, Error> {
        match self.words.message().await {
            Ok(Some(word)) => Ok(Some(word.try_into()?)),
            Ok(None) => Ok(None),
            Err(status) => Err(Error::from_status(&status, &self.endpoint)),
        }
    }
}

/// Opens a session. What the coordinator thinks of the hello is the first word that the receiver hears.
pub async fn open(endpoint: &str, hello: Hello) -> Result<(Sender, Receiver), Error> {
    let channel = connect::dial(endpoint).await?;
    let endpoint = endpoint.to_owned();
    let mut client =
        WorkerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let (words, queue) = mpsc::channel(QUEUE);
    // A queue that has just been made takes one word.
    words
        .send(encode(FromAgent::Hello(hello))?)
        .await
        .map_err(|error| Error::Internal { reason: error.to_string() })?;
    let opened = tokio::time::timeout(OPEN_TIMEOUT, client.session(ReceiverStream::new(queue)));
    let answer = match opened.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => return Err(Error::from_status(&status, &endpoint)),
        Err(_) => {
            let reason = format!("it did not accept the session within {} s", OPEN_TIMEOUT.as_secs());
            return Err(Error::Unreachable { endpoint, reason });
        }
    };
    Ok((Sender { words, endpoint: endpoint.clone() }, Receiver { words: answer.into_inner(), endpoint }))
}

/// A word that is too large would end the stream with everything in it; it is refused before.
fn encode(word: FromAgent) -> Result<wire::SessionRequest, Error> {
    within_cap(word.into())
}
