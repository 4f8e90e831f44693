//! The web face, on the port of gRPC: a status page, one page a job, `/metrics` for Prometheus, `/healthz`.
//!
//! Plain HTML made here, no assets from elsewhere, nothing that needs a script: a small one only spares the reload. Everything that a
//! person or a trainer has written is escaped by the templates.

mod metrics;
mod page;
mod plot;
mod text;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::handle::Handle;
use crate::service::Failure;

/// Nothing from elsewhere, no inline script, not inside of another page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages. `local` means that only this machine can connect: then a page of another site must not read them by a name of its own
/// that points here.
pub(crate) fn router(handle: Handle, local: bool) -> Router {
    Router::new()
        .route("/", get(status))
        .route("/jobs/{job}", get(job))
        .route("/metrics", get(prometheus))
        .route("/healthz", get(health))
        .route("/static/page.css", get(|| asset("text/css; charset=utf-8", include_str!("../assets/page.css"))))
        .route("/static/page.js", get(|| asset("text/javascript; charset=utf-8", include_str!("../assets/page.js"))))
        .route("/favicon.ico", get(|| asset("image/svg+xml", include_str!("../assets/icon.svg"))))
        .layer(from_fn(headers))
        .layer(from_fn_with_state(local, own_name))
        .with_state(handle)
}

async fn status(State(handle): State<Handle>) -> Result<Html<String>, Problem> {
    Ok(Html(page::status(&handle).await?))
}

async fn job(State(handle): State<Handle>, Path(job): Path<String>) -> Result<Html<String>, Problem> {
    Ok(Html(page::job(&handle, job).await?))
}

async fn prometheus(State(handle): State<Handle>) -> Result<Response, Problem> {
    let text = metrics::render(&handle).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// 200 while the loop answers and the journal has room.
async fn health(State(handle): State<Handle>) -> (StatusCode, &'static str) {
    if handle.meters().is_full() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the disk under the journal is full\n");
    }
    let answers = tokio::time::timeout(std::time::Duration::from_secs(5), handle.query(|_| ())).await;
    match answers {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "the coordinator does not answer\n"),
    }
}

fn asset(kind: &'static str, text: &'static str) -> std::future::Ready<Response> {
    std::future::ready(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], text).into_response())
}

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refuses requests under a foreign name to a coordinator that only listens locally (DNS rebinding).
async fn own_name(State(local): State<bool>, request: Request, next: Next) -> Response {
    let name = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let name = name.or_else(|| request.uri().authority().map(axum::http::uri::Authority::as_str)).unwrap_or_default();
    if local && !is_own_name(name) {
        return (StatusCode::MISDIRECTED_REQUEST, "use http://localhost or http://127.0.0.1\n").into_response();
    }
    next.run(request).await
}

fn is_own_name(host: &str) -> bool {
    let bare = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = bare.map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// What a page says when it cannot be made.
struct Problem(unimse_proto::Error);

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self(failure.into())
    }
}

impl From<unimse_proto::Error> for Problem {
    fn from(error: unimse_proto::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        use unimse_proto::Error;
        let code = match self.0 {
            Error::NotFound { .. } | Error::Ambiguous { .. } => StatusCode::NOT_FOUND,
            Error::Unavailable { .. } | Error::Exhausted { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (code, Html(page::problem(code, &self.0.to_string()))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_an_own_name() {
        for name in ["localhost:7800", "127.0.0.1", "127.0.0.1:7800", "[::1]:7800", "LOCALHOST", ""] {
            assert!(is_own_name(name), "{name}");
        }
        for name in ["evil.example", "evil.example:7800", "127.0.0.1.evil.example", "10.0.0.1:7800", "localhost.evil:1"]
        {
            assert!(!is_own_name(name), "{name}");
        }
    }
}
