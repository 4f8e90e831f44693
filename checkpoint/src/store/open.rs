//! From an address to a store.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use reqwest::Url;

use super::Store;
use crate::error::{Error, Result};

/// The crate's default (10 tries, 3 minutes) would hold a dead store's news back for too long: training has to hear of it.
const RETRIES: usize = 5;
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// Four parts of 16 MiB together take 54 s at 10 Mbit/s; a request that takes more than twice that is stuck.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn open(place: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Store> {
    let bad = |reason: &str| Error::BadPlace { place: place.to_owned(), reason: reason.to_owned() };
    let Some((scheme, rest)) = place.split_once("://") else {
        return if place.is_empty() { Err(bad("it is empty")) } else { folder(FilePath::new(place), place) };
    };
    match scheme {
        "memory" if rest.is_empty() => Ok(Store::memory()),
        "file" => {
            let url = Url::parse(place).map_err(|error| bad(&error.to_string()))?;
            let path = url.to_file_path().map_err(|()| bad("it names no folder of this machine (three slashes)"))?;
            folder(&path, place)
        }
        "s3" => bucket(place, environment),
        other => Err(bad(&format!("`{other}` is not a kind of store that this release knows"))),
    }
}

fn folder(path: &FilePath, place: &str) -> Result<Store> {
    let refuse = |action, source: std::io::Error| {
        Error::from_store(
            place.to_owned(),
            action,
            object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) },
        )
    };
    std::fs::create_dir_all(path).map_err(|source| match source.kind() {
        // The system says "exists" when a file stands where the folder should be.
        std::io::ErrorKind::AlreadyExists => refuse("create the folder", std::io::ErrorKind::NotADirectory.into()),
        _ => refuse("create the folder", source),
    })?;
    let path = std::fs::canonicalize(path).map_err(|source| refuse("find the folder", source))?;
    let objects = LocalFileSystem::new_with_prefix(&path)
        .map_err(|error| Error::from_store(place.to_owned(), "open the folder", error))?
        // Without this a committed checkpoint can vanish with the power.
        .with_fsync(true);
    Ok(Store { objects: Arc::new(objects), place: place.into(), folder: Some(Arc::<PathBuf>::new(path)) })
}

fn bucket(place: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Store> {
    let bad = |reason: String| Error::BadPlace { place: place.to_owned(), reason };
    // object_store is built without a crypto provider of its own choice; a program may have installed one before us.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let url = Url::parse(place).map_err(|error| bad(error.to_string()))?;
    let bucket = url.host_str().ok_or_else(|| bad("it names no bucket".to_owned()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| bad(error.to_string()))?;
    let mut client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
    let mut builder = AmazonS3Builder::new();
    for (name, value) in environment {
        let name = name.to_ascii_lowercase();
        let Some(key) = name.starts_with("aws_").then(|| name.parse::<AmazonS3ConfigKey>().ok()).flatten() else {
            continue;
        };
        let endpoint = matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint);
        if endpoint && is_this_machine(&value) {
            client = client.with_allow_http(true);
        }
        if let AmazonS3ConfigKey::Client(key) = key {
            client = client.with_config(key, value);
        } else {
            builder = builder.with_config(key, value);
        }
    }
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
        max_retries: RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    };
    let objects = builder
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .build()
        .map_err(|error| bad(error.to_string()))?;
    Ok(Store::wrapping(Arc::new(PrefixStore::new(objects, prefix)), place))
}

fn is_this_machine(endpoint: &str) -> bool {
    Url::parse(endpoint).is_ok_and(|url| {
        url.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(place: &str) -> Result<Store> {
        super::open(place, [])
    }

    #[test]
    fn a_folder_is_created_and_found_by_path_and_by_url() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let path = scratch.path().join("a folder/checkpoints");
        open(path.to_str().expect("plain text")).expect("a plain path");
        assert!(path.is_dir());
        let url = Url::from_file_path(&path).expect("an absolute path");
        let store = open(url.as_str()).expect("a file url");
        assert_eq!(store.folder(), Some(path.canonicalize().expect("it is there").as_path()));
    }

    #[test]
    fn addresses_that_make_no_sense_name_the_address_and_a_hint() {
        for place in ["", "ftp://x/y", "file://host/x", "s3://", "memory://x"] {
            let error = open(place).expect_err(place);
            assert!(matches!(error, Error::BadPlace { .. }), "{place}: {error}");
            assert!(
                error.to_string().contains(&format!("`{place}`")) && error.to_string().contains("hint:"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_where_the_folder_should_be_is_told() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let file = scratch.path().join("file");
        std::fs::write(&file, "x").expect("it can be written");
        for place in [file.clone(), file.join("below")] {
            let error = open(place.to_str().expect("plain text")).expect_err("a file is no folder");
            assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
            assert!(error.to_string().contains("hint:"));
        }
    }

    #[test]
    fn an_s3_client_is_built_from_the_environment_that_is_handed_in() {
        let environment = [
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_NONSENSE", "ignored"),
            ("HOME", "ignored"),
        ];
        let store = super::open("s3://bucket/some/prefix", environment.map(|(k, v)| (k.to_owned(), v.to_owned())))
            .expect("building a client needs no server");
        assert!(store.objects().to_string().contains("some/prefix"), "{}", store.objects());
        assert!(!format!("{store:?}").contains("\"secret\""), "secrets stay out of debug output");
    }
}
