//! What everybody outside of the loop calls.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use unimse_core::id::JobId;
use unimse_core::machine::{Answer, Event};
use unimse_core::time::Timestamp;
use unimse_proto::session::Hello;

use crate::journal::{Encoded, Identity};
use crate::meters::Meters;
use crate::service::{Failure, Link, Message, Present, Rejection, SessionKey, Word};
use crate::telemetry::Telemetry;

/// What stays the same as long as the process lives.
#[derive(Clone, Debug)]
pub struct About {
    pub identity: Identity,
    pub state_dir: String,
    /// Store for checkpoints of jobs that name none.
    pub checkpoint_uri: String,
    pub started: Timestamp,
    pub lease: Duration,
}

/// A cheap way to the loop; every clone leads to the same one.
#[derive(Clone, Debug)]
pub struct Handle {
    inbox: mpsc::Sender<Message>,
    changes: broadcast::Sender<JobId>,
    telemetry: Telemetry,
    about: Arc<About>,
    meters: Arc<Meters>,
}

impl Handle {
    pub(crate) fn new(
        inbox: mpsc::Sender<Message>,
        changes: broadcast::Sender<JobId>,
        telemetry: Telemetry,
        about: Arc<About>,
        meters: Arc<Meters>,
    ) -> Self {
        Self { inbox, changes, telemetry, about, meters }
    }

    /// Applies an event; what comes back is durable.
    pub async fn apply(&self, event: Event) -> Result<Answer, Failure> {
        let encoded = Encoded::event(&event);
        let (reply, answer) = oneshot::channel();
        self.send(Message::Apply { event, encoded, reply }).await?;
        answer.await.unwrap_or(Err(Failure::Stopped))
    }

    /// Looks at the state after everything that was applied before.
    pub async fn query<T, F>(&self, look: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&Present<'_>) -> T + Send + 'static,
    {
        let (reply, seen) = oneshot::channel();
        // Somebody who no longer waits for the answer is no mistake.
        let query = Box::new(move |present: &Present<'_>| drop(reply.send(look(present))));
        self.send(Message::Query(query)).await?;
        seen.await.map_err(|_| Failure::Stopped)
    }

    /// Jobs that have something new to show. A receiver that lags looks at all.
    pub fn changes(&self) -> broadcast::Receiver<JobId> {
        self.changes.subscribe()
    }

    pub fn about(&self) -> &About {
        &self.about
    }

    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(crate) async fn hello(&self, hello: Hello, link: Link) -> Result<Result<SessionKey, Rejection>, Failure> {
        let register = Event::Register { info: hello.info.clone(), trainers: hello.trainers.clone() };
        let encoded = Encoded::event(&register);
        let (reply, answer) = oneshot::channel();
        self.send(Message::Hello { hello: Box::new(hello), register, encoded, link, reply }).await?;
        answer.await.map_err(|_| Failure::Stopped)
    }

    /// Hands over a report; the outcome comes in its own time, and in order with those handed over before.
    pub(crate) async fn word(
        &self,
        session: SessionKey,
        word: Word,
    ) -> Result<oneshot::Receiver<Result<(), Failure>>, Failure> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Word { session, word, reply }).await?;
        Ok(answer)
    }

    pub(crate) async fn heartbeat(&self, session: SessionKey) -> Result<(), Failure> {
        self.send(Message::Heartbeat(session)).await
    }

    pub(crate) async fn closed(&self, session: SessionKey) {
        // A loop that has ended has closed all sessions.
        let _stopped = self.send(Message::Closed(session)).await;
    }

    pub(crate) async fn stop(&self, snapshot: bool) {
        let _stopped = self.send(Message::Stop { snapshot }).await;
    }

    async fn send(&self, message: Message) -> Result<(), Failure> {
        self.inbox.send(message).await.map_err(|_| Failure::Stopped)
    }
}
