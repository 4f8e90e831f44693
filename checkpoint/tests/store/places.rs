//! What a probe says about good stores, full disks, forbidden folders and stores that lie.

use unimse_checkpoint::fault::{Fault, FaultStore, Faults, Operation, Rule};
use unimse_checkpoint::{Error, Store};

use crate::sample::{self, Folder};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn good_stores_pass_the_probe_and_keep_nothing_of_it() {
    let folder = Folder::new();
    let memory = Store::memory();
    for store in [&memory, &folder.store] {
        let report = store.probe().await.expect("it is a good store");
        assert!(report.total >= report.write + report.read);
        assert!(unimse_checkpoint::gc::list(store, None).await.expect("it lists").is_empty());
    }
    assert_eq!(std::fs::read_dir(folder.root.path()).expect("it is there").count(), 0);
}

#[tokio::test]
async fn a_store_that_ignores_create_if_absent_is_found_out() {
    let faults = Faults::default();
    let store = Store::memory().decorated(|inner| FaultStore::new(inner, &faults));
    faults.add(Rule::new(Operation::Put, Fault::IgnoreCreate));
    let error = store.probe().await.expect_err("it lies");
    assert!(matches!(&error, Error::StoreLies { evidence, .. } if evidence.contains("twice")), "{error}");
    assert!(error.to_string().starts_with("store lies:") && error.to_string().contains("hint:"), "{error}");
    faults.clear();
    // A server that checks without a lock passes when asked one at a time and fails in a race.
    faults.add(Rule::new(Operation::Put, Fault::IgnoreCreate).on("race-").after(2));
    let error = store.probe().await.expect_err("it lies in a race");
    assert!(matches!(&error, Error::StoreLies { evidence, .. } if evidence.contains("racing")), "{error}");
    faults.clear();
    faults.add(Rule::new(Operation::Get, Fault::FlipBit(3)));
    assert!(matches!(store.probe().await.expect_err("it changes bytes"), Error::StoreLies { .. }));
}

#[tokio::test]
async fn full_forbidden_and_absent_stores_are_told_with_place_and_hint() {
    let faults = Faults::default();
    let store = Store::memory().decorated(|inner| FaultStore::new(inner, &faults));
    let cases = [
        (Fault::DiskFull, "no space left"),
        (Fault::PermissionDenied, "access refused"),
        (Fault::Unavailable, "unreachable or overloaded"),
    ];
    for (fault, text) in cases {
        faults.clear();
        faults.add(Rule::new(Operation::Put, fault));
        let error = store.probe().await.expect_err("it cannot be written").to_string();
        assert!(
            error.contains(text) && error.contains("`memory://.unimse-probe/") && error.contains("hint:"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    std::fs::set_permissions(folder.root.path(), std::fs::Permissions::from_mode(0o555)).expect("it is ours");
    if std::fs::write(folder.root.path().join("canary"), "x").is_ok() {
        println!("skipped: this user (root) may write to a read-only folder");
        return;
    }
    let error = folder.store.probe().await.expect_err("it is read-only");
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
    std::fs::set_permissions(folder.root.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

#[tokio::test]
async fn a_file_in_the_way_of_a_checkpoint_is_told() {
    let folder = Folder::new();
    std::fs::write(folder.root.path().join(sample::key(1, 1).job.to_string()), "in the way").expect("it writes");
    let (key, attempt) = (sample::key(1, 1), sample::attempt("a"));
    let error = sample::write_shards(&folder.store, (key, &attempt), &sample::tensors(1, 9), 1, sample::small(), 99)
        .await
        .expect_err("a file is in the way");
    assert!(matches!(error, Error::NotAllowed { .. }), "{error:?}");
}

/// A real full disk: a tmpfs of 64 KiB in a mount namespace of its own, where this test runs itself again.
#[test]
fn a_disk_that_fills_up_is_told_and_serves_again_once_freed() {
    const INSIDE: &str = "UNIMSE_TEST_FULL_DISK";
    if let Ok(place) = std::env::var(INSIDE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(fill(&place));
        println!("filled and freed");
        return;
    }
    let root = tempfile::tempdir().expect("a scratch folder");
    let script = "mount -t tmpfs -o size=64k tmpfs \"$0\" || exit 77; exec \"$1\" --exact \"$2\" --nocapture";
    let output = std::process::Command::new("unshare")
        .args(["-rm", "sh", "-c", script])
        .arg(root.path())
        .arg(std::env::current_exe().expect("this test"))
        .arg("places::a_disk_that_fills_up_is_told_and_serves_again_once_freed")
        .env(INSIDE, root.path())
        .output();
    let output = match output {
        Ok(output)
            if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).starts_with("unshare:") =>
        {
            println!("skipped: a tmpfs may not be mounted here: {}", String::from_utf8_lossy(&output.stderr));
            return;
        }
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no unshare: {error}");
            return;
        }
    };
    let talk = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && talk.contains("filled and freed"), "{talk}");
}

async fn fill(place: &str) {
    let store = Store::open(place, []).expect("the tmpfs is there");
    let ballast = std::path::Path::new(place).join("ballast");
    std::fs::write(&ballast, vec![0; 40 << 10]).expect("it fits");
    let (key, attempt) = (sample::key(1, 1), sample::attempt("a"));
    let tensors = sample::tensors(4, 60);
    for options in [sample::small(), unimse_checkpoint::WriteOptions { part_bytes: 1 << 20, ..sample::small() }] {
        let write = sample::write_shards(&store, (key, &attempt), &tensors, 1, options, 700);
        let error = write.await.expect_err("it does not fit");
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().contains(place) && error.to_string().contains("hint:"), "{error}");
    }
    // Nothing of the failed tries stays: all that is not ballast is free again.
    while std::fs::write(std::path::Path::new(place).join("rest"), vec![0; 12 << 10]).is_err() {
        tokio::task::yield_now().await;
    }
    std::fs::remove_file(std::path::Path::new(place).join("rest")).expect("it is there");
    std::fs::remove_file(ballast).expect("it is there");
    sample::write_shards(&store, (key, &attempt), &tensors, 1, sample::small(), 700).await.expect("now it fits");
}
