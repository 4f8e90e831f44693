//! The connection to the coordinator: dialled again for as long as the agent lives.

use std::time::Duration;

use rand::RngExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use unimse_proto::session::{self, FromAgent, Hello, ToAgent};

/// How long a connection may take to come about.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that may wait for the network.
const QUEUE: usize = 64;
/// Pauses between dials grow up to this, so that a coordinator that comes back is noticed within about a second.
const LONGEST_PAUSE: Duration = Duration::from_millis(800);
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What the agent hears of a session.
#[derive(Debug)]
pub(super) enum Heard {
    Message(ToAgent),
    /// It never came about, or is over.
    Closed {
        reason: String,
    },
}

/// One attempt at a session; dropping it closes the connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) outgoing: mpsc::Sender<FromAgent>,
    pub(super) incoming: mpsc::Receiver<Heard>,
    task: JoinHandle<()>,
}

impl Session {
    /// Begins to dial after a pause; messages can be queued at once.
    pub(super) fn dial(endpoint: &str, hello: Hello, pause: Duration) -> Self {
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (sender, incoming) = mpsc::channel(QUEUE);
        let endpoint = endpoint.to_owned();
        let task = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let reason = run(&endpoint, hello, to_send, &sender).await;
            let _ = sender.send(Heard::Closed { reason }).await;
        });
        Self { outgoing, incoming, task }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries messages both ways until one way fails; returns why.
async fn run(
    endpoint: &str,
    hello: Hello,
    mut to_send: mpsc::Receiver<FromAgent>,
    heard: &mpsc::Sender<Heard>,
) -> String {
    let (sender, mut receiver) = match timeout(DIAL_TIMEOUT, session::open(endpoint, hello)).await {
        Ok(Ok(halves)) => halves,
        Ok(Err(error)) => return error.to_string(),
        Err(_) => return format!("cannot reach {endpoint}: no answer within {} s", DIAL_TIMEOUT.as_secs()),
    };
    let send = async {
        while let Some(message) = to_send.recv().await {
            if let Err(error) = sender.send(message).await {
                return error.to_string();
            }
        }
        std::future::pending().await
    };
    let receive = async {
        loop {
            match receiver.next().await {
                Ok(Some(message)) => {
                    if heard.send(Heard::Message(message)).await.is_err() {
                        return "the agent has closed it".to_owned();
                    }
                }
                Ok(None) => return "the coordinator has closed it".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    };
    tokio::select! {
        reason = send => reason,
        reason = receive => reason,
    }
}

/// The pause before a dial, after so many that failed: growing, and spread out so that agents do not all come at once.
pub(super) fn pause(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let longest = (FIRST_PAUSE * 2_u32.pow(failures.min(6) - 1)).min(LONGEST_PAUSE);
    longest.mul_f64(rand::rng().random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_but_never_beyond_a_second() {
        assert_eq!(pause(0), Duration::ZERO);
        for failures in 1..2000 {
            let pause = pause(failures);
            assert!(pause > Duration::ZERO && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
        }
        assert!(pause(1) < FIRST_PAUSE && pause(9) >= LONGEST_PAUSE / 2);
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_closes_the_session_with_its_reason() {
        let info = unimse_core::worker::WorkerInfo {
            node: "n".into(),
            incarnation: "i".into(),
            host: "127.0.0.1".into(),
            slots: Vec::new(),
            version: "0".into(),
        };
        let hello = Hello { info, trainers: Vec::new(), cluster: None, epoch: 0 };
        // Bound and dropped, so nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut session = Session::dial(&format!("http://127.0.0.1:{port}"), hello, Duration::ZERO);
        let Some(Heard::Closed { reason }) = session.incoming.recv().await else { panic!("nobody is there") };
        assert!(reason.contains(&port.to_string()), "{reason}");
    }
}
