//! The state folder: one coordinator at a time, and a file that says where it listens.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another coordinator has it.
    #[error(
        "the state folder {} is in use by another coordinator ({holder})\n\
         hint: stop that one, or give this one a folder of its own with --state", folder.display()
    )]
    InUse { folder: PathBuf, holder: String },
    /// The file system refuses.
    #[error("could not {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// A folder that this process holds until the value is dropped, or the process dies.
#[derive(Debug)]
pub(crate) struct StateDir {
    folder: PathBuf,
    _lock: Flock<File>,
}

impl StateDir {
    pub(crate) fn claim(folder: &Path) -> Result<Self, Error> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let path = folder.join("lock");
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut lock = match Flock::lock(open.map_err(io("open", &path))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _unknown_holder = file.read_to_string(&mut holder);
                return Err(Error::InUse { folder: folder.to_owned(), holder: holder.trim().to_owned() });
            }
            Err((_, errno)) => return Err(io("lock", &path)(errno.into())),
        };
        // For people who run into the lock; the lock itself is not the text.
        let note = format!("process {}\n", std::process::id());
        let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(note.as_bytes()));
        // A full disk must not keep a coordinator from starting on what it has.
        if let Err(error) = written {
            tracing::warn!(%error, "could not note the process in the lock file");
        }
        let dir = Self { folder: folder.to_owned(), _lock: lock };
        dir.forget_address();
        Ok(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Says where the coordinator listens, to whoever waits for the file `coordinator.addr`: it is there whole or not at all.
    pub(crate) fn announce(&self, address: SocketAddr) -> Result<(), Error> {
        let (path, draft) = (self.path("coordinator.addr"), self.path("coordinator.addr.new"));
        let written = fs::write(&draft, format!("{address}\n")).and_then(|()| fs::rename(&draft, &path));
        written.map_err(|source| Error::Io { action: "write", path, source })
    }

    /// Removes the address of one that listens no more.
    pub(crate) fn forget_address(&self) {
        let _absent = fs::remove_file(self.path("coordinator.addr"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_coordinator_on_one_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDir::claim(folder.path()).unwrap();
        let error = StateDir::claim(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("hint:"), "{error}");
        drop(first);
        StateDir::claim(folder.path()).unwrap();
    }
}
