//! Where the state lies, where to listen, and how patient to be: defaults, then the environment, then flags.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that does not read as what it should be.
    #[error("{name} = `{value}`: {problem}")]
    Value { name: &'static str, value: String, problem: String },
    /// Listening there would let anybody in.
    #[error(
        "{address} is reachable from other machines, and connections are neither encrypted nor checked yet\n\
         hint: listen on 127.0.0.1 and use `ssh -L`, or add --insecure-bind on a network that you trust"
    )]
    OpenToAll { address: SocketAddr },
    /// Neither a flag nor the environment says where.
    #[error("no place for the state\nhint: give --state DIR, or set UNIMSE_STATE or HOME")]
    NoState,
}

/// What a command line may say; what it leaves open comes from the environment or the defaults.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub state: Option<PathBuf>,
    pub listen: Option<String>,
    pub checkpoints: Option<String>,
    pub lease: Option<String>,
    pub insecure_bind: bool,
}

/// Everything that a coordinator needs to know to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the journal and all else; created when absent.
    pub state: PathBuf,
    /// Port 0 lets the system choose; the file `coordinator.addr` in the state folder says which it became.
    pub listen: SocketAddr,
    /// Store for checkpoints of jobs that name none.
    pub checkpoints: String,
    /// Silence of a worker for that long means lost.
    pub lease: Duration,
    /// A snapshot follows after at least that many turns and [`Config::snapshot_bytes`] of them.
    pub snapshot_turns: u64,
    pub snapshot_bytes: u64,
    /// What stores may need: the `AWS_*` variables.
    pub store_environment: BTreeMap<String, String>,
}

impl Config {
    /// Leases shorter than that would mistake a busy machine for a dead one.
    pub const SHORTEST_LEASE: Duration = Duration::from_millis(500);
    const DEFAULT_LISTEN: &'static str = "127.0.0.1:7800";
    const DEFAULT_LEASE: Duration = Duration::from_secs(5);

    /// The defaults, for a state folder of its own; listens on a port that the system chooses.
    pub fn local(state: impl Into<PathBuf>) -> Self {
        let state = state.into();
        Self {
            checkpoints: state.join("checkpoints").display().to_string(),
            state,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            lease: Self::DEFAULT_LEASE,
            snapshot_turns: 1000,
            snapshot_bytes: 16 << 20,
            store_environment: BTreeMap::new(),
        }
    }

    /// Defaults < environment < flags.
    pub fn resolve(flags: Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let state = flags.state.or_else(|| get("UNIMSE_STATE").map(PathBuf::from)).or_else(|| default_state(&get));
        let mut config = Self::local(state.ok_or(Error::NoState)?);
        if let Some(uri) = flags.checkpoints.or_else(|| get("UNIMSE_CHECKPOINTS")) {
            config.checkpoints = uri;
        }
        let listen = flags.listen.or_else(|| get("UNIMSE_LISTEN")).unwrap_or_else(|| Self::DEFAULT_LISTEN.to_owned());
        config.listen = address(&listen)?;
        if !is_loopback(config.listen.ip()) && !flags.insecure_bind {
            return Err(Error::OpenToAll { address: config.listen });
        }
        if let Some(text) = flags.lease.or_else(|| get("UNIMSE_LEASE")) {
            config.lease = lease(&text)?;
        }
        config.store_environment = environment.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect();
        Ok(config)
    }
}

fn default_state(get: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let base = get("XDG_STATE_HOME").map(PathBuf::from);
    let base = base.or_else(|| get("HOME").map(|home| PathBuf::from(home).join(".local/state")))?;
    Some(base.join("unimse").join("coordinator"))
}

fn address(text: &str) -> Result<SocketAddr, Error> {
    let bad = |problem: String| Error::Value { name: "listen", value: text.to_owned(), problem };
    let mut found = text.to_socket_addrs().map_err(|error| bad(format!("{error}; expected HOST:PORT")))?;
    found.next().ok_or_else(|| bad("names no address".to_owned()))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn lease(text: &str) -> Result<Duration, Error> {
    let bad = |problem: String| Error::Value { name: "lease", value: text.to_owned(), problem };
    let span: jiff::SignedDuration =
        text.parse().map_err(|_| bad("expected a duration such as 5s or 500ms".to_owned()))?;
    let lease = Duration::try_from(span).map_err(|_| bad("is negative".to_owned()))?;
    if lease < Config::SHORTEST_LEASE {
        return Err(bad(format!("is shorter than {} ms", Config::SHORTEST_LEASE.as_millis())));
    }
    Ok(lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn flags_win_over_the_environment_and_that_over_defaults() {
        let plain = Config::resolve(Flags::default(), environment(&[("HOME", "/home/ada")])).unwrap();
        assert_eq!(plain.state, PathBuf::from("/home/ada/.local/state/unimse/coordinator"));
        assert_eq!(plain.listen.to_string(), "127.0.0.1:7800");
        assert_eq!(plain.lease, Duration::from_secs(5));

        let set =
            environment(&[("UNIMSE_STATE", "/env"), ("UNIMSE_LEASE", "2s"), ("AWS_REGION", "eu"), ("OTHER", "x")]);
        let flags = Flags { lease: Some("1500ms".to_owned()), ..Flags::default() };
        let config = Config::resolve(flags, set).unwrap();
        assert_eq!(config.state, PathBuf::from("/env"));
        assert_eq!(config.checkpoints, "/env/checkpoints");
        assert_eq!(config.lease, Duration::from_millis(1500));
        assert_eq!(config.store_environment.keys().collect::<Vec<_>>(), ["AWS_REGION"]);
    }

    #[test]
    fn other_machines_are_let_in_only_when_asked_for() {
        let open = |insecure_bind| {
            let flags = Flags {
                state: Some("/s".into()),
                listen: Some("0.0.0.0:7800".to_owned()),
                insecure_bind,
                ..Flags::default()
            };
            Config::resolve(flags, [])
        };
        let error = open(false).unwrap_err();
        assert!(error.to_string().contains("--insecure-bind"), "{error}");
        assert_eq!(open(true).unwrap().listen.port(), 7800);
        let six = Flags { state: Some("/s".into()), listen: Some("[::1]:0".to_owned()), ..Flags::default() };
        Config::resolve(six, []).unwrap();
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let lease = |text: &str| {
            let flags = Flags { state: Some("/s".into()), lease: Some(text.to_owned()), ..Flags::default() };
            Config::resolve(flags, []).unwrap_err().to_string()
        };
        assert_eq!(lease("soon"), "lease = `soon`: expected a duration such as 5s or 500ms");
        assert_eq!(lease("10ms"), "lease = `10ms`: is shorter than 500 ms");
        assert_eq!(lease("-5s"), "lease = `-5s`: is negative");
        assert!(matches!(Config::resolve(Flags::default(), []), Err(Error::NoState)));
    }
}
