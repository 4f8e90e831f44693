//! The one way to dial a coordinator.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::status::chain;
use crate::{Error, MAX_MESSAGE};

/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the first answer to a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence after which the other side is asked for a sign of life, and how long it may take to give one.
pub const KEEPALIVE: Duration = Duration::from_secs(5);

/// Connects now, so that a wrong address fails here and not at the first call.
pub async fn dial(endpoint: &str) -> Result<Channel, Error> {
    let address = normalise(endpoint)?;
    let unreachable = |error: &dyn std::error::Error| {
        let reason = chain(error);
        let reason = reason.strip_prefix("transport error: ").unwrap_or(&reason).to_owned();
        Error::Unreachable { endpoint: address.clone(), reason }
    };
    let endpoint = Endpoint::from_shared(address.clone())
        .map_err(|error| Error::Invalid { reason: format!("`{endpoint}` is no address: {}", chain(&error)) })?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .user_agent(concat!("unimse/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| unreachable(&error))?;
    endpoint.connect().await.map_err(|error| unreachable(&error))
}

/// Accepts `host:port` for `http://host:port`.
fn normalise(endpoint: &str) -> Result<String, Error> {
    let endpoint = endpoint.trim().trim_end_matches('/');
    if endpoint.starts_with("https://") {
        let reason = format!("{endpoint}: TLS is not supported yet\nhint: use an ssh tunnel and http://127.0.0.1:PORT");
        return Err(Error::Invalid { reason });
    }
    if endpoint.is_empty() || endpoint.contains(char::is_whitespace) {
        return Err(Error::Invalid { reason: format!("`{endpoint}` is no address\nhint: write http://HOST:PORT") });
    }
    Ok(if endpoint.starts_with("http://") { endpoint.to_owned() } else { format!("http://{endpoint}") })
}

/// Refuses a message that is larger than allowed: sent, it would end the whole connection's stream without a word.
pub(crate) fn within_cap<M: prost::Message>(message: M) -> Result<M, Error> {
    let bytes = message.encoded_len();
    if bytes > MAX_MESSAGE {
        return Err(Error::Invalid {
            reason: format!("a message of {bytes} bytes is more than the {MAX_MESSAGE} allowed"),
        });
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address_and_a_hint() {
        // Port 1 is never open on a test machine; if it is, the handshake fails.
        let error = dial("127.0.0.1:1").await.expect_err("nothing listens on port 1");
        assert!(
            matches!(error, Error::Unreachable { ref endpoint, .. } if endpoint == "http://127.0.0.1:1"),
            "{error:?}"
        );
        assert!(error.to_string().contains("unimse up"), "{error}");
    }

    #[tokio::test]
    async fn a_text_that_is_no_address_is_refused() {
        for text in ["", "two words", "https://lab1:7800", "http://[::1"] {
            let error = dial(text).await.expect_err(text);
            assert!(matches!(error, Error::Invalid { .. }), "{text}: {error:?}");
        }
    }
}
