//! Jobs as people see them, and what is read of them.

use unimse_core::id::{Generation, Rank, Step, TrialId};
use unimse_core::job::HistoryEntry;
use unimse_core::time::Timestamp;
use unimse_core::view::{JobDetail, JobView, Progress, RankView};

use super::{Malformed, all, every, from_json, need, parse, parse_some, to_json};
use crate::client::{Info, JobFilter, LogEntry, MetricPoint};
use crate::wire;

impl From<Progress> for wire::Progress {
    fn from(progress: Progress) -> Self {
        Self {
            step: progress.step.0,
            total_steps: progress.total_steps,
            epoch: progress.epoch,
            loss: progress.loss,
            learning_rate: progress.learning_rate,
            samples_per_second: progress.samples_per_second,
            step_parts: progress.step_parts,
            at_ms: progress.at.0,
        }
    }
}

impl From<wire::Progress> for Progress {
    fn from(progress: wire::Progress) -> Self {
        Self {
            step: Step(progress.step),
            total_steps: progress.total_steps,
            epoch: progress.epoch,
            loss: progress.loss,
            learning_rate: progress.learning_rate,
            samples_per_second: progress.samples_per_second,
            step_parts: progress.step_parts,
            at: Timestamp(progress.at_ms),
        }
    }
}

impl From<JobView> for wire::JobView {
    fn from(view: JobView) -> Self {
        Self {
            id: view.id.to_string(),
            name: view.name,
            labels: view.labels,
            state: view.state,
            reason: view.reason,
            generation: view.generation.0,
            slots_held: view.slots_held,
            slots_wanted: view.slots_wanted,
            min_slots: view.min_slots,
            priority: view.priority,
            step: view.step.0,
            total_steps: view.total_steps,
            durable_step: view.durable_step.0,
            progress: view.progress.map(wire::Progress::from),
            eta_seconds: view.eta_seconds,
            evaluated_step: view.evaluated_step.map(|step| step.0),
            metrics: view.metrics,
            metric: view.metric,
            restarts: view.restarts,
            max_restarts: view.max_restarts,
            submitted_ms: view.submitted.0,
            ended_ms: view.ended.map(|at| at.0),
            sweep: view.sweep.map(|sweep| sweep.to_string()),
            trial: view.trial.map(|trial| trial.0),
        }
    }
}

impl TryFrom<wire::JobView> for JobView {
    type Error = Malformed;

    fn try_from(view: wire::JobView) -> Result<Self, Malformed> {
        Ok(Self {
            id: parse(&view.id, "job.id")?,
            name: view.name,
            labels: view.labels,
            state: view.state,
            reason: view.reason,
            generation: Generation(view.generation),
            slots_held: view.slots_held,
            slots_wanted: view.slots_wanted,
            min_slots: view.min_slots,
            priority: view.priority,
            step: Step(view.step),
            total_steps: view.total_steps,
            durable_step: Step(view.durable_step),
            progress: view.progress.map(Progress::from),
            eta_seconds: view.eta_seconds,
            evaluated_step: view.evaluated_step.map(Step),
            metrics: view.metrics,
            metric: view.metric,
            restarts: view.restarts,
            max_restarts: view.max_restarts,
            submitted: Timestamp(view.submitted_ms),
            ended: view.ended_ms.map(Timestamp),
            sweep: parse_some(view.sweep.as_ref(), "job.sweep")?,
            trial: view.trial.map(TrialId),
        })
    }
}

impl From<RankView> for wire::RankView {
    fn from(view: RankView) -> Self {
        Self { rank: view.rank.0, node: view.node, slot: view.slot, ready: view.ready }
    }
}

impl From<wire::RankView> for RankView {
    fn from(view: wire::RankView) -> Self {
        Self { rank: Rank(view.rank), node: view.node, slot: view.slot, ready: view.ready }
    }
}

impl From<HistoryEntry> for wire::HistoryEntry {
    fn from(entry: HistoryEntry) -> Self {
        Self { at_ms: entry.at.0, generation: entry.generation.0, what: entry.what }
    }
}

impl From<wire::HistoryEntry> for HistoryEntry {
    fn from(entry: wire::HistoryEntry) -> Self {
        Self { at: Timestamp(entry.at_ms), generation: Generation(entry.generation), what: entry.what }
    }
}

impl From<JobDetail> for wire::JobDetail {
    fn from(detail: JobDetail) -> Self {
        Self {
            job: Some(detail.job.into()),
            ranks: every(detail.ranks),
            checkpoints: every(detail.checkpoints),
            history: every(detail.history),
            spec_json: to_json(&detail.spec),
        }
    }
}

impl TryFrom<wire::JobDetail> for JobDetail {
    type Error = Malformed;

    fn try_from(detail: wire::JobDetail) -> Result<Self, Malformed> {
        Ok(Self {
            job: need(detail.job, "detail.job")?.try_into()?,
            ranks: detail.ranks.into_iter().map(RankView::from).collect(),
            checkpoints: all(detail.checkpoints)?,
            history: detail.history.into_iter().map(HistoryEntry::from).collect(),
            spec: from_json(&detail.spec_json, "detail.spec_json")?,
        })
    }
}

impl From<JobFilter> for wire::ListJobsRequest {
    fn from(filter: JobFilter) -> Self {
        let JobFilter { states, labels, sweep, limit } = filter;
        Self { states, labels, sweep, limit }
    }
}

impl From<wire::ListJobsRequest> for JobFilter {
    fn from(filter: wire::ListJobsRequest) -> Self {
        let wire::ListJobsRequest { states, labels, sweep, limit } = filter;
        Self { states, labels, sweep, limit }
    }
}

impl From<LogEntry> for wire::LogEntry {
    fn from(entry: LogEntry) -> Self {
        Self { offset: entry.offset, generation: entry.generation.0, rank: entry.rank.0, line: Some(entry.line.into()) }
    }
}

impl TryFrom<wire::LogEntry> for LogEntry {
    type Error = Malformed;

    fn try_from(entry: wire::LogEntry) -> Result<Self, Malformed> {
        Ok(Self {
            offset: entry.offset,
            generation: Generation(entry.generation),
            rank: Rank(entry.rank),
            line: need(entry.line, "log.line")?.into(),
        })
    }
}

impl From<MetricPoint> for wire::MetricPoint {
    fn from(point: MetricPoint) -> Self {
        Self {
            name: point.name,
            step: point.step.0,
            value: point.value,
            generation: point.generation.0,
            at_ms: point.at.0,
        }
    }
}

impl From<wire::MetricPoint> for MetricPoint {
    fn from(point: wire::MetricPoint) -> Self {
        Self {
            name: point.name,
            step: Step(point.step),
            value: point.value,
            generation: Generation(point.generation),
            at: Timestamp(point.at_ms),
        }
    }
}

impl From<Info> for wire::GetInfoResponse {
    fn from(info: Info) -> Self {
        Self {
            cluster: info.cluster,
            epoch: info.epoch,
            version: info.version,
            state_dir: info.state_dir,
            checkpoint_uri: info.checkpoint_uri,
            started_ms: info.started.0,
            jobs: info.jobs,
            lease_ms: super::session::millis(info.lease),
            workers: info.workers,
            slots_total: info.slots_total,
            slots_used: info.slots_used,
        }
    }
}

impl From<wire::GetInfoResponse> for Info {
    fn from(info: wire::GetInfoResponse) -> Self {
        Self {
            cluster: info.cluster,
            epoch: info.epoch,
            version: info.version,
            state_dir: info.state_dir,
            checkpoint_uri: info.checkpoint_uri,
            started: Timestamp(info.started_ms),
            jobs: info.jobs,
            lease: std::time::Duration::from_millis(info.lease_ms),
            workers: info.workers,
            slots_total: info.slots_total,
            slots_used: info.slots_used,
        }
    }
}
