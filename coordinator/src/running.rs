//! Puts the parts together, and takes them apart again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use unimse_proto::server;

use crate::config::Config;
use crate::handle::{About, Handle};
use crate::journal::{self, Journal, SqliteJournal};
use crate::listener::Patience;
use crate::meters::Meters;
use crate::service::{INBOX, Parts, Service};
use crate::state_dir::{self, StateDir};
use crate::telemetry::{self, Telemetry};
use crate::{clock::Clock, dispatch, grpc, http, listener};

/// How long connections may take to end once the loop has.
const FAREWELL: Duration = Duration::from_millis(300);
/// Silence after which the other side of a connection is asked for a sign of life, and how long it may take.
const PING: Duration = Duration::from_secs(5);

/// Why a coordinator does not start, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    StateDir(#[from] state_dir::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The address is taken, or not of this machine.
    #[error(
        "could not listen on {address}\nhint: is another coordinator running there? choose another port with --listen"
    )]
    Bind { address: SocketAddr, source: std::io::Error },
    /// The loop is gone without a word: a mistake of ours.
    #[error("the loop has died; see the log")]
    Died,
}

/// A coordinator at work. Dropping it stops it as a killed process would: without a snapshot, without goodbye.
#[derive(Debug)]
pub struct Running {
    handle: Handle,
    address: SocketAddr,
    ended: oneshot::Receiver<Result<(), journal::Error>>,
    server: JoinHandle<()>,
    dispatch: JoinHandle<()>,
    shutdown: CancellationToken,
    state_dir: Option<StateDir>,
    telemetry: Option<std::thread::JoinHandle<()>>,
    service: Option<std::thread::JoinHandle<()>>,
}

/// Takes the state folder over, brings back what it holds, and serves.
pub async fn start(config: Config) -> Result<Running, Error> {
    let state_dir = StateDir::claim(&config.state)?;
    let journal = SqliteJournal::open(&state_dir.path("journal.db"))?;
    start_on(config, state_dir, Box::new(journal)).await
}

/// Starts on a journal of one's own; the state folder holds only the telemetry then.
pub async fn start_with(config: Config, journal: Box<dyn Journal>) -> Result<Running, Error> {
    let state_dir = StateDir::claim(&config.state)?;
    start_on(config, state_dir, journal).await
}

async fn start_on(config: Config, state_dir: StateDir, mut journal: Box<dyn Journal>) -> Result<Running, Error> {
    // Bound before the epoch grows: an address in use is no new life of the cluster.
    let bound = listener::bind(config.listen).await;
    let (socket, address) = bound.map_err(|source| Error::Bind { address: config.listen, source })?;
    let identity = journal.claim(&uuid::Uuid::new_v4().simple().to_string())?;
    let loaded = journal.load()?;
    let replayed = loaded.turns.len() as u64;
    let (machine, newest) = loaded.replay();
    let (telemetry, telemetry_thread) = Telemetry::open(&state_dir.path("telemetry.db"))?;

    let about = Arc::new(About {
        identity: identity.clone(),
        state_dir: config.state.display().to_string(),
        checkpoint_uri: config.checkpoints.clone(),
        started: Clock::start(newest).now(),
        lease: config.lease,
    });
    tracing::info!(
        cluster = identity.cluster,
        epoch = identity.epoch,
        jobs = machine.state().jobs.len(),
        replayed,
        "state is back"
    );
    let (inbox, messages) = mpsc::channel(INBOX);
    let (deletions, doomed) = mpsc::unbounded_channel();
    let changes = broadcast::Sender::new(4096);
    let meters = Arc::new(Meters::default());
    let parts = Parts {
        journal,
        identity,
        lease: config.lease,
        snapshot_turns: config.snapshot_turns,
        snapshot_bytes: config.snapshot_bytes,
        inbox: messages,
        telemetry: telemetry.clone(),
        changes: changes.clone(),
        deletions,
        meters: meters.clone(),
    };
    let handle = Handle::new(inbox, changes, telemetry, about, meters);
    let (service, ended) = run_loop(move || Service::new(machine, newest, replayed, parts));
    let dispatch = tokio::spawn(dispatch::run(doomed, handle.clone(), config.store_environment));
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(handle.clone(), socket, address, shutdown.clone()));
    state_dir.announce(address)?;
    Ok(Running {
        handle,
        address,
        ended,
        server,
        dispatch,
        shutdown,
        state_dir: Some(state_dir),
        telemetry: Some(telemetry_thread),
        service: Some(service),
    })
}

/// Runs the loop on a thread of its own, where waiting for the disk stops nobody else.
fn run_loop(
    make: impl FnOnce() -> Service + Send + 'static,
) -> (std::thread::JoinHandle<()>, oneshot::Receiver<Result<(), journal::Error>>) {
    let (end, ended) = oneshot::channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime without I/O needs nothing that could be missing");
        // Whoever waited for the end may be gone.
        drop(end.send(runtime.block_on(make().run())));
    };
    let thread = std::thread::Builder::new().name("machine".to_owned()).spawn(work);
    (thread.expect("a process that has just started may have one more thread"), ended)
}

async fn serve(handle: Handle, socket: tokio::net::TcpListener, address: SocketAddr, shutdown: CancellationToken) {
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in server::SERVICES {
        health.set_service_status(name, tonic_health::ServingStatus::Serving).await;
    }
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(server::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by the compiler");
    let grpc = server::routes(grpc::People(handle.clone()), grpc::Agents(handle.clone()))
        .add_service(health_service)
        .add_service(reflection);
    // What is not a gRPC service is a page.
    let pages = http::router(handle, address.ip().to_canonical().is_loopback());
    let routes = tonic::service::Routes::from(grpc.into_axum_router().fallback_service(pages));
    let served = tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .max_concurrent_streams(256)
        .http2_max_header_list_size(64 << 10)
        .http2_max_pending_accept_reset_streams(Some(64))
        .add_routes(routes)
        .serve_with_incoming_shutdown(listener::connections(socket, Patience::default()), shutdown.cancelled())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server has ended");
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients and agents connect to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for an end that nobody asked for: the journal failed.
    pub async fn failed(&mut self) -> Error {
        match (&mut self.ended).await {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) | Err(_) => Error::Died,
        }
    }

    /// Writes a snapshot and ends.
    pub async fn stop(mut self) -> Result<(), Error> {
        self.handle.stop(true).await;
        let ended = (&mut self.ended).await.map_err(|_| Error::Died);
        self.farewell().await;
        Ok(ended??)
    }

    /// Ends as a killed process would, but gives the folder and the port back before it returns.
    pub async fn kill(mut self) {
        self.handle.stop(false).await;
        let _whatever_it_says = (&mut self.ended).await;
        self.farewell().await;
    }

    async fn farewell(&mut self) {
        self.shutdown.cancel();
        if tokio::time::timeout(FAREWELL, &mut self.server).await.is_err() {
            self.server.abort();
        }
        self.dispatch.abort();
        if let Some(service) = self.service.take() {
            // It has said its last word already.
            let _joined = tokio::task::spawn_blocking(move || service.join()).await;
        }
        if let Some(dir) = self.state_dir.take() {
            dir.forget_address();
        }
        // Its thread ends with the last handle, which a connection may still hold: nothing is lost that was acknowledged.
        drop(self.telemetry.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.server.abort();
        self.dispatch.abort();
    }
}
