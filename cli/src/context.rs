//! What a command needs to know of the world; only `main.rs` looks at the world itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use unimse_checkpoint::Store;
use unimse_core::time::Timestamp;
use unimse_proto::client::Client;

use crate::error::{Error, Result};
use crate::output;
use crate::settings::Settings;

/// Whether people are watching, and how much room they have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Columns of stdout; none when it is a file or a pipe.
    pub(crate) width: Option<usize>,
    /// Whether stderr can show a bar that moves.
    pub(crate) live: bool,
}

/// Everything a command is given besides its arguments.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) terminal: Terminal,
    /// The variables that programs are configured with. No `Debug`: there are keys among them.
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// This program.
    pub(crate) executable: PathBuf,
}

impl Context {
    /// Reads a variable that is plain text and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(&OsString::from(name)).and_then(|value| value.to_str()).filter(|value| !value.is_empty())
    }

    /// Connects to the coordinator.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.settings.coordinator).await?)
    }

    /// Opens a checkpoint store with this machine's credentials.
    pub(crate) fn store(&self, uri: &str) -> Result<Store> {
        let text = |value: &OsString| value.to_str().map(str::to_owned);
        let pairs = self.environment.iter().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
        Ok(Store::open(uri, pairs)?)
    }

    /// Finds another program of ours: where `variable` says, else beside this one.
    pub(crate) fn program(&self, name: &str, variable: &str) -> Result<PathBuf> {
        if let Some(path) = self.variable(variable) {
            let path = PathBuf::from(path);
            return if path.is_file() {
                Ok(path)
            } else {
                let message = format!("there is no program at {} (from {variable})", path.display());
                Err(Error::NotFound {
                    message,
                    hint: format!("correct {variable}, or unset it to use the one beside unimse"),
                })
            };
        }
        let beside = self.executable.parent().unwrap_or_else(|| Path::new("/")).join(name);
        if beside.is_file() {
            return Ok(beside);
        }
        let place = self.executable.parent().map_or_else(String::new, |folder| folder.display().to_string());
        let hint = match name {
            "unimse-worker" => {
                format!(
                    "on machines that train, install it there (built from source: `cargo build -p unimse-worker`), or set {variable}"
                )
            }
            _ => format!("install it there (built from source: `cargo build -p {name}`), or set {variable}"),
        };
        Err(Error::NotFound { message: format!("{name} is not beside this program, in {place}"), hint })
    }

    /// Says something unless `--quiet` was given.
    pub(crate) fn say(&self, text: &str) {
        if !self.settings.quiet {
            output::say(text);
        }
    }
}

/// The present time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
