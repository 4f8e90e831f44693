//! What people and programs are shown: plain values made from the machine's state and the newest progress.
//!
//! The command line prints these, `-o json` serialises them, the wire carries them. Times are milliseconds since the epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointState;
use crate::id::{Generation, JobId, Rank, Step, SweepId, TrialId, WorkerId};
use crate::job::{HistoryEntry, Job, Phase};
use crate::machine::{Machine, SweepRecord};
use crate::spec::TrainLength;
use crate::time::Timestamp;
use crate::worker::WorkerState;

/// The newest that a running job has said of itself; not durable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub step: Step,
    /// Steps in all, once the trainer knows them.
    pub total_steps: Option<u64>,
    pub epoch: u64,
    pub loss: f64,
    pub learning_rate: f64,
    pub samples_per_second: f64,
    /// Seconds of a step by part: data, forward, backward, communication, optimiser.
    pub step_parts: BTreeMap<String, f64>,
    pub at: Timestamp,
}

impl Progress {
    /// Seconds to the end at the present speed, given the samples of a step.
    pub fn eta_seconds(&self, global_batch: u32) -> Option<u64> {
        let left = self.total_steps?.saturating_sub(self.step.0);
        let per_second = self.samples_per_second / f64::from(global_batch.max(1));
        (per_second > 0.0).then(|| (left as f64 / per_second).ceil() as u64)
    }
}

/// One rank of a running job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankView {
    pub rank: Rank,
    pub node: String,
    pub slot: u32,
    pub ready: bool,
}

/// A checkpoint of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointView {
    pub job: JobId,
    pub step: Step,
    pub generation: Generation,
    /// `committed`, `damaged` or `deleting`.
    pub state: String,
    /// Why it is damaged or deleted; empty otherwise.
    pub reason: String,
    pub best: bool,
    pub latest: bool,
    pub uri: String,
    pub manifest: String,
    pub digest: String,
    pub bytes: u64,
    pub world_size: u32,
    pub metrics: BTreeMap<String, f64>,
    pub committed: Timestamp,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub id: JobId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// `queued`, `starting`, `running`, `stopping`, `paused`, `completed`, `failed` or `cancelled`.
    pub state: String,
    /// Why it waits or failed; empty when there is nothing to say.
    pub reason: String,
    pub generation: Generation,
    pub slots_held: u32,
    pub slots_wanted: u32,
    pub min_slots: u32,
    pub priority: u32,
    /// The newest step seen, durable or not.
    pub step: Step,
    pub total_steps: Option<u64>,
    pub durable_step: Step,
    pub progress: Option<Progress>,
    pub eta_seconds: Option<u64>,
    pub evaluated_step: Option<Step>,
    /// The newest validation metrics.
    pub metrics: BTreeMap<String, f64>,
    /// The metric that decides which checkpoint is best.
    pub metric: String,
    pub restarts: u32,
    pub max_restarts: u32,
    pub submitted: Timestamp,
    pub ended: Option<Timestamp>,
    pub sweep: Option<SweepId>,
    pub trial: Option<TrialId>,
}

/// A job with everything that `unimse show` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobDetail {
    pub job: JobView,
    pub ranks: Vec<RankView>,
    pub checkpoints: Vec<CheckpointView>,
    pub history: Vec<HistoryEntry>,
    /// The specification with every default filled in, as JSON.
    pub spec: serde_json::Value,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub worker: WorkerId,
    pub node: String,
    pub host: String,
    pub version: String,
    /// `alive`, `drained`, `leaving`, `left` or `lost`.
    pub state: String,
    pub reason: String,
    /// What each slot is, and the job on it.
    pub slots: Vec<SlotView>,
    pub joined: Timestamp,
    pub heard: Option<Timestamp>,
}

impl NodeView {
    /// Whether it will never be heard of again.
    pub fn is_gone(&self) -> bool {
        matches!(self.state.as_str(), "left" | "lost")
    }
}

/// One slot of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    pub slot: u32,
    pub what: String,
    pub job: Option<JobId>,
    pub rank: Option<Rank>,
}

/// A sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepView {
    pub id: SweepId,
    pub name: String,
    pub status: String,
    pub method: String,
    pub metric: String,
    /// `minimize` or `maximize`.
    pub goal: String,
    pub trials_total: u32,
    pub trials_ended: u32,
    pub best_trial: Option<TrialId>,
    pub best_job: Option<JobId>,
    pub best_value: Option<f64>,
    pub submitted: Timestamp,
    pub trials: Vec<TrialView>,
}

/// One trial of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialView {
    pub trial: TrialId,
    pub job: Option<JobId>,
    pub state: String,
    /// The parameters, as JSON by dotted path, and the name of the `variant`.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// Rungs that it entered and passed; 0 without early stop.
    pub rungs: u32,
    pub step: Step,
    pub value: Option<f64>,
    pub reason: String,
}

impl Machine {
    /// Views one job; `progress` is what the shell last heard.
    pub fn job_view(&self, job: &Job, progress: Option<&Progress>) -> JobView {
        let (reason, ended) = match &job.phase {
            Phase::Queued { reason, .. } => (reason.clone(), None),
            Phase::Failed { at, reason } => (reason.clone(), Some(*at)),
            Phase::Completed { at } => (String::new(), Some(*at)),
            Phase::Cancelled { at } => {
                (job.history.last().map(|entry| entry.what.clone()).unwrap_or_default(), Some(*at))
            }
            _ => (String::new(), None),
        };
        let known = match job.spec.train.length {
            TrainLength::Steps(steps) => Some(steps),
            TrainLength::Epochs(_) => progress.and_then(|progress| progress.total_steps),
        };
        let running = matches!(job.phase, Phase::Running { .. } | Phase::Stopping { .. });
        let step = progress.map(|progress| progress.step).unwrap_or_default().max(job.durable_step());
        JobView {
            id: job.id,
            name: job.spec.name.clone(),
            labels: job.spec.labels.clone(),
            state: job.phase.word().to_owned(),
            reason,
            generation: job.generation,
            slots_held: job.phase.gang().map_or(0, crate::job::Gang::world_size),
            slots_wanted: job.spec.resources.slots,
            min_slots: job.spec.resources.min_slots,
            priority: job.spec.resources.priority,
            step,
            total_steps: known,
            durable_step: job.durable_step(),
            eta_seconds: progress
                .filter(|_| running)
                .and_then(|progress| progress.eta_seconds(job.spec.train.global_batch)),
            progress: progress.cloned(),
            evaluated_step: job.evaluation.as_ref().map(|evaluation| evaluation.step),
            metrics: job.evaluation.as_ref().map(|evaluation| evaluation.metrics.clone()).unwrap_or_default(),
            metric: job.spec.checkpoint.metric.name.clone(),
            restarts: job.restarts,
            max_restarts: job.spec.restart.max,
            submitted: job.submitted,
            ended,
            sweep: job.origin.map(|origin| origin.sweep),
            trial: job.origin.map(|origin| origin.trial),
        }
    }

    /// Views one job with all that belongs to it.
    pub fn job_detail(&self, job: &Job, progress: Option<&Progress>) -> JobDetail {
        let gang = job.phase.gang();
        let ranks = gang.map(|gang| (0..).zip(&gang.seats)).into_iter().flatten().map(|(rank, seat)| RankView {
            rank: Rank(rank),
            node: self.state().workers.get(&seat.worker).map_or_else(String::new, |worker| worker.info.node.clone()),
            slot: seat.slot,
            ready: gang.is_some_and(|gang| gang.ready.contains_key(&Rank(rank))),
        });
        JobDetail {
            ranks: ranks.collect(),
            checkpoints: Self::checkpoint_views(job),
            history: job.history.clone(),
            spec: serde_json::to_value(&*job.spec).expect("a specification is plain data"),
            job: self.job_view(job, progress),
        }
    }

    /// Views the checkpoints of a job, oldest first.
    pub fn checkpoint_views(job: &Job) -> Vec<CheckpointView> {
        let best = Self::best_checkpoint(job).map(|own| own.at.manifest.clone());
        let latest = job.latest().map(|own| own.at.manifest.clone());
        let view = |own: &crate::checkpoint::CheckpointRecord| {
            let (state, reason) = match &own.state {
                CheckpointState::Committed => ("committed", String::new()),
                CheckpointState::Damaged { reason } => ("damaged", reason.clone()),
                CheckpointState::Deleting { reason } => ("deleting", reason.clone()),
            };
            CheckpointView {
                job: job.id,
                step: own.at.step,
                generation: own.at.generation,
                state: state.to_owned(),
                reason,
                best: best.as_ref() == Some(&own.at.manifest),
                latest: latest.as_ref() == Some(&own.at.manifest),
                uri: own.at.uri.clone(),
                manifest: own.at.manifest.clone(),
                digest: own.at.digest.clone(),
                bytes: own.bytes,
                world_size: own.world_size,
                metrics: own.metrics.clone(),
                committed: own.committed,
            }
        };
        job.checkpoints.iter().map(view).collect()
    }

    /// Views all workers, those that are gone last.
    pub fn node_views(&self) -> Vec<NodeView> {
        let mut seated: BTreeMap<(WorkerId, u32), (JobId, Rank)> = BTreeMap::new();
        for job in self.state().jobs.values() {
            for (rank, seat) in (0..).zip(job.phase.gang().map(|gang| gang.seats.as_slice()).unwrap_or_default()) {
                seated.insert((seat.worker, seat.slot), (job.id, Rank(rank)));
            }
        }
        let mut views: Vec<NodeView> = self
            .state()
            .workers
            .values()
            .map(|worker| {
                let (state, reason) = match &worker.state {
                    WorkerState::Lost { reason, .. } => ("lost", reason.clone()),
                    WorkerState::Left { .. } => ("left", String::new()),
                    WorkerState::Leaving => ("leaving", String::new()),
                    WorkerState::Alive if worker.drained => ("drained", String::new()),
                    WorkerState::Alive => ("alive", String::new()),
                };
                let slots = (0..).zip(&worker.info.slots).map(|(slot, what)| {
                    let on = seated.get(&(worker.id, slot));
                    SlotView { slot, what: what.to_string(), job: on.map(|on| on.0), rank: on.map(|on| on.1) }
                });
                NodeView {
                    worker: worker.id,
                    node: worker.info.node.clone(),
                    host: worker.info.host.clone(),
                    version: worker.info.version.clone(),
                    state: state.to_owned(),
                    reason,
                    slots: slots.collect(),
                    joined: worker.joined,
                    heard: self.last_heard(worker.id),
                }
            })
            .collect();
        views.sort_by_key(|view| (view.is_gone(), view.worker));
        views
    }

    /// Views one sweep.
    pub fn sweep_view(&self, record: &SweepRecord) -> SweepView {
        let spec = record.sweep.spec();
        let best = record.sweep.best();
        let best_trial = best.as_ref().map(|best| best.trial);
        let table = record.sweep.table();
        let ended = table.iter().filter(|row| row.status.is_final()).count();
        let trials: Vec<TrialView> = table
            .into_iter()
            .map(|row| {
                let job = record.trials.get(&row.trial).copied();
                TrialView {
                    trial: row.trial,
                    job,
                    state: row.status.word().to_owned(),
                    parameters: row.shown,
                    rungs: row.rungs,
                    step: row.latest.map(|(step, _)| step).unwrap_or_default(),
                    value: row.result.or_else(|| row.latest.map(|(_, value)| value)),
                    reason: row.reason,
                }
            })
            .collect();
        SweepView {
            id: record.id,
            name: spec.name.clone(),
            status: record.status_word().to_owned(),
            method: record.sweep.method().to_owned(),
            metric: spec.metric.name.clone(),
            goal: spec.metric.goal.to_string(),
            trials_total: spec.trial_count(),
            trials_ended: u32::try_from(ended).unwrap_or(u32::MAX),
            best_trial,
            best_job: best_trial.and_then(|trial| record.trials.get(&trial).copied()),
            best_value: best.map(|best| best.value),
            submitted: record.submitted,
            trials,
        }
    }
}
