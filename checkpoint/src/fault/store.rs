//! The decorator itself.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::{Fault, Faults, Operation};

/// A store that does what [`Faults`] say and otherwise what the store below does.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl FaultStore {
    /// Wraps `inner`; the rules are shared with the caller's `faults`.
    pub fn new(inner: Arc<dyn ObjectStore>, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone() }
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

/// Makes the error of a refusal; `None` for faults that are not refusals.
fn refusal(fault: Fault, key: &Path) -> Option<Error> {
    let generic = |source: io::Error| Error::Generic { store: "FaultStore", source: Box::new(source) };
    match fault {
        Fault::Unavailable => Some(generic(io::Error::other("injected: 503 slow down"))),
        Fault::DiskFull => Some(generic(io::Error::from(io::ErrorKind::StorageFull))),
        Fault::PermissionDenied => Some(Error::PermissionDenied { path: key.to_string(), source: "injected".into() }),
        Fault::Conflict => Some(Error::AlreadyExists { path: key.to_string(), source: "injected: 409".into() }),
        Fault::LoseReply | Fault::Hang | Fault::FlipBit(_) | Fault::Truncate(_) | Fault::IgnoreCreate => None,
    }
}

/// Refuses or hangs as told; other faults are the operation's own business.
async fn obstruct(fault: Option<Fault>, key: &Path) -> Result<()> {
    match fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(fault) => refusal(fault, key).map_or(Ok(()), Err),
        None => Ok(()),
    }
}

/// Turns success into a lost reply, if told so.
fn lose<T>(fault: Option<Fault>, result: Result<T>) -> Result<T> {
    match (fault, result) {
        (Some(Fault::LoseReply), Ok(_)) => Err(Error::Generic {
            store: "FaultStore",
            source: Box::new(io::Error::new(io::ErrorKind::TimedOut, "injected: the reply was lost")),
        }),
        (_, result) => result,
    }
}

fn damage(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::FlipBit(bit)) if !bytes.is_empty() => {
            let place = (bit / 8) as usize % bytes.len();
            let mut bytes = BytesMut::from(bytes.as_ref());
            bytes[place] ^= 1 << (bit % 8);
            bytes.freeze()
        }
        Some(Fault::Truncate(length)) => bytes.slice(..bytes.len().min(length as usize)),
        _ => bytes,
    }
}

fn damage_payload(fault: Option<Fault>, payload: PutPayload) -> PutPayload {
    match fault {
        Some(Fault::FlipBit(_) | Fault::Truncate(_)) => damage(fault, Bytes::from(payload)).into(),
        _ => payload,
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let fault = self.faults.judge(Operation::Put, location);
        obstruct(fault, location).await?;
        if fault == Some(Fault::IgnoreCreate) {
            options.mode = PutMode::Overwrite;
        }
        lose(fault, self.inner.put_opts(location, damage_payload(fault, payload), options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.faults.judge(Operation::Begin, location);
        obstruct(fault, location).await?;
        let inner = lose(fault, self.inner.put_multipart_opts(location, options).await)?;
        self.faults.opened();
        Ok(Box::new(FaultUpload { inner, key: location.clone(), faults: self.faults.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let operation = if options.head { Operation::Head } else { Operation::Get };
        let fault = self.faults.judge(operation, location);
        obstruct(fault, location).await?;
        let mut found = lose(fault, self.inner.get_opts(location, options).await)?;
        if operation == Operation::Get && matches!(fault, Some(Fault::FlipBit(_) | Fault::Truncate(_))) {
            let (meta, range) = (found.meta.clone(), found.range.clone());
            let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
            let bytes = damage(fault, found.bytes().await?);
            let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
            found = GetResult { payload, meta, range, attributes, extensions };
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (Arc::clone(&self.inner), self.faults.clone());
        locations
            .and_then(move |location| {
                let (inner, faults) = (Arc::clone(&inner), faults.clone());
                async move {
                    let fault = faults.judge(Operation::Delete, &location);
                    obstruct(fault, &location).await?;
                    let one = futures::stream::once(async { Ok(location) }).boxed();
                    let deleted = inner.delete_stream(one).try_collect::<Vec<_>>().await;
                    lose(fault, deleted)
                }
            })
            .map_ok(|deleted| futures::stream::iter(deleted.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned().unwrap_or_default();
        let fault = self.faults.judge(Operation::List, &prefix);
        let inner = self.inner.list(Some(&prefix));
        async move { obstruct(fault, &prefix).await.map(|()| inner) }.into_stream().try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let place = prefix.cloned().unwrap_or_default();
        obstruct(self.faults.judge(Operation::List, &place), &place).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.faults.judge(Operation::Copy, to);
        obstruct(fault, to).await?;
        lose(fault, self.inner.copy_opts(from, to, options).await)
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    key: Path,
    faults: Faults,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let fault = self.faults.judge(Operation::Part, &self.key);
        let key = self.key.clone();
        let put = self.inner.put_part(damage_payload(fault, payload));
        async move {
            obstruct(fault, &key).await?;
            lose(fault, put.await)
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.faults.judge(Operation::Complete, &self.key);
        obstruct(fault, &self.key).await?;
        let done = self.inner.complete().await;
        if done.is_ok() {
            self.faults.closed();
        }
        lose(fault, done)
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.faults.judge(Operation::Abort, &self.key);
        obstruct(fault, &self.key).await?;
        let done = self.inner.abort().await;
        if done.is_ok() {
            self.faults.closed();
        }
        lose(fault, done)
    }
}
