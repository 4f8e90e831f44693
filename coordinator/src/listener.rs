//! Connections: as many as there is room for, each given up when it stays silent.
//!
//! HTTP/2 pings each way keep a live connection from ever being silent; what sends nothing is dead, or an attack.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Connections at a time; more are closed at once.
const MOST: usize = 1024;

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Before its first byte.
    pub(crate) first: Duration,
    /// Later, between two.
    pub(crate) between: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(10), between: Duration::from_mins(1) }
    }
}

/// Accepts connections until it is dropped.
pub(crate) fn connections(listener: TcpListener, patience: Patience) -> impl Stream<Item = io::Result<Guarded>> {
    let room = Arc::new(Semaphore::new(MOST));
    unfold((listener, room), move |(listener, room)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Ok(permit) = room.clone().try_acquire_owned() else {
                        tracing::warn!(%peer, most = MOST, "too many connections, closed one");
                        continue;
                    };
                    let _slower_without = stream.set_nodelay(true);
                    return Some((Ok(Guarded::new(stream, permit, patience)), (listener, room)));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: give those that have one time to end.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    })
}

/// Binds, and says what became of port 0.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A connection that fails when nothing arrives for too long.
#[derive(Debug)]
pub(crate) struct Guarded {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    patience: Patience,
    _room: OwnedSemaphorePermit,
}

impl Guarded {
    fn new(stream: TcpStream, room: OwnedSemaphorePermit, patience: Patience) -> Self {
        Self { stream, deadline: Box::pin(sleep_until(Instant::now() + patience.first)), patience, _room: room }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            let deadline = Instant::now() + self.patience.between;
            self.deadline.as_mut().reset(deadline);
            return Poll::Ready(read);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing was heard for too long")))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Guarded {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_given_up() {
        let (listener, address) = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let patience = Patience { first: Duration::from_secs(30), between: Duration::from_millis(50) };
        let mut incoming = Box::pin(connections(listener, patience));
        let mut peer = TcpStream::connect(address).await.unwrap();
        let mut guarded = incoming.next().await.unwrap().unwrap();
        peer.write_all(b"x").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(guarded.read(&mut buffer).await.unwrap(), 1);
        let error = guarded.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
