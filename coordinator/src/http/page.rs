//! The pages: what the templates need, taken in one look at the state.

use askama::Template;
use axum::http::StatusCode;
use unimse_core::id::{JobId, Step};
use unimse_core::job::HistoryEntry;
use unimse_core::time::Timestamp;
use unimse_core::view::{CheckpointView, JobView, NodeView, SweepView};
use unimse_proto::Error;
use unimse_proto::client::{Info, MetricPoint};
use unimse_proto::server::MetricQuery;

use super::plot::{Plot, plots};
use super::text;
use crate::grpc::info;
use crate::handle::Handle;
use crate::resolve;
use crate::service::Present;

/// Jobs on the status page: all that have not ended, and of the others the newest so many.
const ENDED: usize = 30;
const SWEEPS: usize = 10;
const NEWS: usize = 20;
/// Points of a curve; more cannot be seen.
const POINTS: u32 = 400;
/// Lines of the log on a job's page.
const LINES: usize = 40;

#[derive(Template)]
#[template(path = "status.html")]
struct Status {
    info: Info,
    now: Timestamp,
    jobs: Vec<JobView>,
    /// Ended jobs that are not shown.
    older: usize,
    nodes: Vec<NodeView>,
    sweeps: Vec<SweepView>,
    news: Vec<News>,
    full: bool,
}

struct News {
    job: JobId,
    name: String,
    entry: HistoryEntry,
}

#[derive(Template)]
#[template(path = "job.html")]
#[expect(clippy::struct_field_names, reason = "the template reads best with `job`")]
struct Job {
    now: Timestamp,
    job: JobView,
    why: Vec<String>,
    ranks: Vec<unimse_core::view::RankView>,
    checkpoints: Vec<CheckpointView>,
    history: Vec<HistoryEntry>,
    plots: Vec<Plot>,
    log: Vec<String>,
    spec: String,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct Problem<'a> {
    code: StatusCode,
    text: &'a str,
}

pub(super) async fn status(handle: &Handle) -> Result<String, Error> {
    let info = info(handle).await?;
    let full = handle.meters().is_full();
    let look = move |present: &Present<'_>| {
        let state = present.machine.state();
        let (mut jobs, mut ended) = (Vec::new(), 0_usize);
        for job in state.jobs.values().rev() {
            ended += usize::from(job.phase.ended());
            if !job.phase.ended() || ended <= ENDED {
                jobs.push(present.job_view(job));
            }
        }
        jobs.sort_by_key(|job| (rank_of(&job.state), std::cmp::Reverse(job.id)));
        let mut nodes = present.machine.node_views();
        // Lost workers stay in the state for ever; the page shows those that somebody may still look for.
        let recent = |node: &NodeView| !node.is_gone() || present.now.since(node.joined).as_secs() < 24 * 3600;
        nodes.retain(recent);
        nodes.truncate(200);
        let sweeps = state.sweeps.values().rev().take(SWEEPS).map(|sweep| present.machine.sweep_view(sweep)).collect();
        Status {
            info,
            now: present.now,
            jobs,
            older: ended.saturating_sub(ENDED),
            nodes,
            sweeps,
            news: news(present),
            full,
        }
    };
    Ok(render(&handle.query(look).await?))
}

/// What happened last, over all jobs that are shown.
fn news(present: &Present<'_>) -> Vec<News> {
    let newest = present.machine.state().jobs.values().rev().take(500);
    let mut news: Vec<News> = newest
        .flat_map(|job| {
            let last = job.history.iter().rev().take(NEWS).cloned();
            last.map(|entry| News { job: job.id, name: job.spec.name.clone(), entry })
        })
        .collect();
    news.sort_by_key(|news| std::cmp::Reverse(news.entry.at));
    news.truncate(NEWS);
    news
}

/// What somebody looks at first comes first.
fn rank_of(state: &str) -> u8 {
    match state {
        "running" | "starting" | "stopping" => 0,
        "queued" => 1,
        "paused" => 2,
        _ => 3,
    }
}

pub(super) async fn job(handle: &Handle, name: String) -> Result<String, Error> {
    let look = move |present: &Present<'_>| {
        let state = present.machine.state();
        let id = resolve::job(state, &name)?;
        let why = present.machine.explain(present.now, id).unwrap_or_default();
        Ok::<_, Error>((id, present.now, why, present.job_detail(&state.jobs[&id])))
    };
    let (id, now, why, detail) = handle.query(look).await??;
    let query = MetricQuery { names: Vec::new(), since: Step(0), max_points: Some(POINTS) };
    let points: Vec<MetricPoint> = handle.telemetry().metrics(id, query).await?;
    let log = tail(handle, id).await?;
    let mut history = detail.history;
    history.reverse();
    let spec = serde_json::to_string_pretty(&detail.spec).unwrap_or_default();
    let page = Job {
        now,
        job: detail.job,
        why,
        ranks: detail.ranks,
        checkpoints: detail.checkpoints,
        history,
        plots: plots(&points),
        log,
        spec,
    };
    Ok(render(&page))
}

async fn tail(handle: &Handle, job: JobId) -> Result<Vec<String>, Error> {
    let entries = handle.telemetry().log_end(job, LINES).await?;
    let line = |entry: unimse_proto::client::LogEntry| {
        format!("{} rank {} {:>5} {}", text::date(&entry.line.at), entry.rank, entry.line.level, entry.line.text)
    };
    Ok(entries.into_iter().map(line).collect())
}

pub(super) fn problem(code: StatusCode, text: &str) -> String {
    render(&Problem { code, text })
}

fn render(page: &impl Template) -> String {
    page.render().unwrap_or_else(|error| format!("could not make the page: {error}"))
}

/// How far a job is, in percent, for a bar.
fn percent(job: &JobView) -> Option<u64> {
    let total = job.total_steps.filter(|&total| total > 0)?;
    Some((job.step.0.min(total)) * 100 / total)
}

/// The value that decides which checkpoint is best, as text.
fn metric(job: &JobView) -> Option<String> {
    job.metrics.get(&job.metric).map(text::value)
}
