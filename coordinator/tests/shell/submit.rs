//! Submitting, finding and commanding jobs without any worker.

use unimse_core::id::JobId;
use unimse_proto::client::{Client, JobFilter, SweepCommand};
use unimse_proto::{Error, StreamExt};

use crate::{client, coordinator, job, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_job_from_eight_clients_at_once_and_after_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let endpoint = running.endpoint();
    let submit = |endpoint: String| async move {
        let client = Client::connect(&endpoint).await.unwrap();
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(client.submit(Some("exp-1".to_owned()), &job("a", 1)).await.unwrap());
        }
        answers
    };
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(submit(endpoint.clone()))).collect();
    let mut answers: Vec<(JobId, bool)> = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    let id = answers[0].0;
    assert!(answers.iter().all(|(job, _)| *job == id), "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, new)| *new).count(), 1);

    running.kill().await;
    let running = coordinator(folder.path()).await;
    assert_eq!(client(&running).await.submit(Some("exp-1".to_owned()), &job("a", 1)).await.unwrap(), (id, false));
    running.stop().await.unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    assert_eq!(client.submit(Some("exp-1".to_owned()), &job("a", 1)).await.unwrap(), (id, false));
    assert!(client.submit(None, &job("a", 1)).await.unwrap().1, "without a key each is a new one");
    let info = client.info().await.unwrap();
    assert_eq!((info.epoch, info.jobs["queued"]), (3, 2));
}

#[tokio::test]
async fn jobs_are_found_by_every_name_they_go_by() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let (first, _) = client.submit(None, &job("mosi", 1)).await.unwrap();
    let (second, _) = client.submit(None, &job("mosi", 2)).await.unwrap();
    let (third, _) = client.submit(None, &job("meld", 2)).await.unwrap();
    for (text, id) in [
        (first.to_string(), first),
        (first.to_string()[..4].to_owned(), first),
        ("mosi".to_owned(), second),
        ("@last".to_owned(), third),
    ] {
        assert_eq!(client.job(&text).await.unwrap().job.id, id, "{text}");
    }
    let error = client.job("nope").await.unwrap_err();
    assert_eq!(error, Error::NotFound { what: "there is no job `nope`".to_owned() });

    let detail = client.job("meld").await.unwrap();
    assert_eq!(detail.spec["name"], "meld");
    assert_eq!(detail.job.reason, client.jobs(JobFilter::default()).await.unwrap()[0].reason);
    let why = client.explain("meld").await.unwrap();
    assert!(why.iter().any(|line| line.contains("no worker is alive")), "{why:?}");
    let states = |text: &str| JobFilter { states: vec![text.to_owned()], ..JobFilter::default() };
    client.cancel("meld").await.unwrap();
    assert_eq!(client.jobs(states("cancelled")).await.unwrap().len(), 1);
    assert_eq!(client.jobs(JobFilter { limit: Some(2), ..states("queued") }).await.unwrap().len(), 2);
    let error = client.pause("meld").await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    client.retry("meld").await.unwrap();
    client.pause("meld").await.unwrap();
    client.resume("meld", None, Some(&job("meld", 3))).await.unwrap();
    assert_eq!(client.job("meld").await.unwrap().job.slots_wanted, 3);
    let error = client.resume("mosi", Some(format!("{third}:best")), None).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. } | Error::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn whoever_watches_sees_each_change_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    let (id, _) = client.submit(None, &job("a", 1)).await.unwrap();
    let mut views = client.watch(&id.to_string()).await.unwrap();
    assert_eq!(views.next().await.unwrap().unwrap().state, "queued");
    client.pause("a").await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|state| state != "paused") {
        seen.push(views.next().await.unwrap().unwrap().state);
    }
    client.cancel("a").await.unwrap();
    let rest: Vec<_> = views.map(|view| view.unwrap().state).collect().await;
    assert_eq!(rest.last().map(String::as_str), Some("cancelled"), "the stream ends with the job");
}

#[tokio::test]
async fn a_long_list_comes_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    for _ in 0..1100 {
        client.submit(None, &job("many", 1)).await.unwrap();
    }
    let jobs = client.jobs(JobFilter::default()).await.unwrap();
    assert_eq!(jobs.len(), 1100);
    assert!(jobs.is_sorted_by_key(|job| std::cmp::Reverse(job.id)), "the newest first");
}

#[tokio::test]
async fn a_sweep_lives_through_a_restart() {
    let text = "name: lr\njob:\n  name: t\n  model: {preset: tiny}\n  data: {train: [{path: a.arrow}], valid: [{path: b.arrow}]}\n\
                method: grid\nmetric: {name: valid/score, goal: maximize}\n\
                parameters: {train.learning_rate: {values: [0.1, 0.01, 0.001]}}\nparallel: 2\n";
    let resolve = &mut |_: &str| Err("no files here".to_owned());
    let spec = unimse_core::spec::parse_sweep(text, "sweep.yaml", resolve).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().unwrap();
    let running = coordinator(folder.path()).await;
    let (id, new) = client(&running).await.sweep_run(Some("s".to_owned()), &spec).await.unwrap();
    assert!(new);
    running.kill().await;
    let running = coordinator(folder.path()).await;
    let client = client(&running).await;
    assert_eq!(client.sweep_run(Some("s".to_owned()), &spec).await.unwrap(), (id, false));
    let sweep = client.sweep("lr").await.unwrap();
    assert_eq!((sweep.id, sweep.trials_total), (id, 3));
    let of_sweep = JobFilter { sweep: Some("lr".to_owned()), ..JobFilter::default() };
    assert_eq!(client.jobs(of_sweep).await.unwrap().len(), 2, "two trials at a time");
    client.sweep_command("lr", SweepCommand::Stop).await.unwrap();
    until("all trials are cancelled", || async {
        client.info().await.unwrap().jobs.get("cancelled").filter(|&&count| count >= 2).map(drop)
    })
    .await;
    assert_eq!(client.sweeps().await.unwrap().len(), 1);
}
