use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, JobId, Rank, Step, SweepId, TrialId, WorkerId};
use unimse_core::job::{ExitCause, HistoryEntry, Readiness};
use unimse_core::machine::{Assign, Form, Order, Report, ReportKind, Seated, TrainerStatus};
use unimse_core::spec::{JobSpec, parse_job};
use unimse_core::time::Timestamp;
use unimse_core::view::{
    CheckpointView, JobDetail, JobView, NodeView, Progress, RankView, SlotView, SweepView, TrialView,
};
use unimse_core::worker::{Slot, WorkerInfo};

use super::Malformed;
use crate::client::{Info, JobFilter, LogEntry, MetricPoint};
use crate::session::{AgentReport, FromAgent, Hello, LogLine, Logs, StepRecord, Steps, ToAgent};
use crate::wire;

const SEEDS: u64 = 200;

/// Draws values of every shape, the odd ones included.
struct Draw(ChaCha8Rng);

impl Draw {
    fn below(&mut self, limit: u32) -> u32 {
        self.0.random_range(0..limit)
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(self.below(1000)),
            _ => self.0.random(),
        }
    }

    fn small(&mut self) -> u32 {
        if self.below(10) == 0 { u32::MAX } else { self.below(1000) }
    }

    fn real(&mut self) -> f64 {
        match self.below(6) {
            0 => 0.0,
            1 => f64::MIN_POSITIVE,
            2 => f64::MAX,
            3 => -1e-300,
            _ => self.0.random::<f64>() * 100.0,
        }
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn text(&mut self) -> String {
        let words = ["", "a", "mosi-meld", "zeile\nzwei", "Grüße €", "<b>&\"'", "x\0y", "s3://lab/ckpt"];
        words[self.below(8) as usize].repeat(1 + self.below(3) as usize)
    }

    fn some<T>(&mut self, one: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| one(self))
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| one(self)).collect()
    }

    fn values(&mut self) -> BTreeMap<String, f64> {
        (0..self.below(4)).map(|place| (format!("train/{place}"), self.real())).collect()
    }

    fn words(&mut self) -> BTreeMap<String, String> {
        (0..self.below(3)).map(|place| (format!("key{place}"), self.text())).collect()
    }

    fn step(&mut self) -> Step {
        Step(self.number())
    }

    fn generation(&mut self) -> Generation {
        Generation(self.number())
    }

    fn rank(&mut self) -> Rank {
        Rank(self.small())
    }

    fn at(&mut self) -> Timestamp {
        Timestamp(self.number())
    }

    fn job(&mut self) -> JobId {
        JobId(self.small())
    }

    fn checkpoint(&mut self) -> CheckpointRef {
        CheckpointRef {
            uri: self.text(),
            manifest: self.text(),
            digest: self.text(),
            step: self.step(),
            generation: self.generation(),
        }
    }

    fn progress(&mut self) -> Progress {
        Progress {
            step: self.step(),
            total_steps: self.some(Self::number),
            epoch: self.number(),
            loss: self.real(),
            learning_rate: self.real(),
            samples_per_second: self.real(),
            step_parts: self.values(),
            at: self.at(),
        }
    }

    fn slot(&mut self) -> Slot {
        if self.flag() {
            Slot::Gpu { index: self.small(), name: self.text(), memory_bytes: self.number() }
        } else {
            Slot::Cpu { threads: self.small() }
        }
    }

    fn cause(&mut self) -> ExitCause {
        let message = self.text();
        match self.below(8) {
            0 => ExitCause::Finished,
            1 => ExitCause::Stopped,
            2 => ExitCause::Failed { code: -1, message },
            3 => ExitCause::Signalled { signal: 9 },
            4 => ExitCause::OutOfMemory { message },
            5 => ExitCause::NotStarted { message },
            6 => ExitCause::CheckpointDamaged { manifest: self.text(), message },
            _ => ExitCause::Invalid { message },
        }
    }

    fn report(&mut self) -> Report {
        let kind = match self.below(6) {
            0 => ReportKind::Ready(Readiness {
                address: self.text(),
                nccl_id: self.some(|draw| vec![0, draw.below(256) as u8]),
                holds: self.some(Self::step),
            }),
            1 => ReportKind::PeerLost { step: self.step(), detail: self.text() },
            2 => ReportKind::Evaluated { step: self.step(), metrics: self.values() },
            3 => ReportKind::Committed {
                at: self.checkpoint(),
                bytes: self.number(),
                world_size: self.small(),
                metrics: self.values(),
            },
            4 => ReportKind::Finished { step: self.step() },
            _ => ReportKind::Exited { cause: self.cause(), step: self.some(Self::step) },
        };
        Report { job: self.job(), generation: self.generation(), rank: self.rank(), kind }
    }

    fn line(&mut self) -> LogLine {
        LogLine { number: self.number(), at: self.at(), level: self.text(), text: self.text() }
    }

    fn trainer(&mut self) -> TrainerStatus {
        TrainerStatus {
            job: self.job(),
            generation: self.generation(),
            rank: self.rank(),
            slot: self.small(),
            formed: self.flag(),
        }
    }

    fn record(&mut self) -> StepRecord {
        StepRecord { step: self.step(), at: self.at(), digest: self.text(), values: self.values() }
    }

    fn agent_word(&mut self) -> FromAgent {
        let (job, generation, rank) = (self.job(), self.generation(), self.rank());
        let report = match self.below(7) {
            0 => return FromAgent::Heartbeat,
            1 => {
                let info = WorkerInfo {
                    node: self.text(),
                    incarnation: self.text(),
                    host: self.text(),
                    slots: self.list(Self::slot),
                    version: self.text(),
                };
                let trainers = self.list(Self::trainer);
                return FromAgent::Hello(Hello {
                    info,
                    trainers,
                    cluster: self.some(Self::text),
                    epoch: self.number(),
                });
            }
            2 => AgentReport::Event(self.report()),
            3 => AgentReport::Leaving,
            4 => AgentReport::Left,
            5 => {
                let (progress, records) = (self.progress(), self.list(Self::record));
                AgentReport::Steps(Steps { job, generation, rank, progress, records })
            }
            _ => AgentReport::Logs(Logs { job, generation, rank, lines: self.list(Self::line) }),
        };
        FromAgent::Report { seq: self.number(), report }
    }

    fn coordinator_word(&mut self, spec: &Arc<JobSpec>) -> ToAgent {
        let (job, generation) = (self.job(), self.generation());
        match self.below(7) {
            0 => ToAgent::Welcome {
                worker: WorkerId(self.small()),
                cluster: self.text(),
                epoch: self.number(),
                lease: Duration::from_millis(self.number()),
            },
            1 => ToAgent::Refused { reason: self.text(), register_anew: self.flag() },
            2 => ToAgent::Ack { seq: self.number() },
            3 => ToAgent::Order(Order::Stop { job, generation }),
            4 => ToAgent::Order(Order::Kill { job, generation }),
            5 => ToAgent::Order(Order::Assign(Assign {
                job,
                generation,
                ranks: self.list(|draw| Seated { rank: draw.rank(), slot: draw.small() }),
                world_size: self.small(),
                spec: spec.clone(),
                checkpoint_uri: self.text(),
            })),
            _ => ToAgent::Order(Order::Form(Form {
                job,
                generation,
                peers: self.list(Self::text),
                nccl_id: self.some(|_| vec![1, 2, 3]),
                source: self.some(|draw| (draw.rank(), draw.step())),
                resume: self.some(Self::checkpoint),
            })),
        }
    }

    fn job_view(&mut self) -> JobView {
        JobView {
            id: self.job(),
            name: self.text(),
            labels: self.words(),
            state: self.text(),
            reason: self.text(),
            generation: self.generation(),
            slots_held: self.small(),
            slots_wanted: self.small(),
            min_slots: self.small(),
            priority: self.small(),
            step: self.step(),
            total_steps: self.some(Self::number),
            durable_step: self.step(),
            progress: self.some(Self::progress),
            eta_seconds: self.some(Self::number),
            evaluated_step: self.some(Self::step),
            metrics: self.values(),
            metric: self.text(),
            restarts: self.small(),
            max_restarts: self.small(),
            submitted: self.at(),
            ended: self.some(Self::at),
            sweep: self.some(|draw| SweepId(draw.small())),
            trial: self.some(|draw| TrialId(draw.small())),
        }
    }

    fn checkpoint_view(&mut self) -> CheckpointView {
        CheckpointView {
            job: self.job(),
            step: self.step(),
            generation: self.generation(),
            state: self.text(),
            reason: self.text(),
            best: self.flag(),
            latest: self.flag(),
            uri: self.text(),
            manifest: self.text(),
            digest: self.text(),
            bytes: self.number(),
            world_size: self.small(),
            metrics: self.values(),
            committed: self.at(),
        }
    }

    fn detail(&mut self) -> JobDetail {
        JobDetail {
            job: self.job_view(),
            ranks: self.list(|draw| RankView {
                rank: draw.rank(),
                node: draw.text(),
                slot: draw.small(),
                ready: draw.flag(),
            }),
            checkpoints: self.list(Self::checkpoint_view),
            history: self.list(|draw| HistoryEntry { at: draw.at(), generation: draw.generation(), what: draw.text() }),
            spec: serde_json::json!({"train": {"learning_rate": self.real()}, "name": self.text()}),
        }
    }

    fn node(&mut self) -> NodeView {
        let slot = |draw: &mut Self| SlotView {
            slot: draw.small(),
            what: draw.text(),
            job: draw.some(Self::job),
            rank: draw.some(Self::rank),
        };
        NodeView {
            worker: WorkerId(self.small()),
            node: self.text(),
            host: self.text(),
            version: self.text(),
            state: self.text(),
            reason: self.text(),
            slots: self.list(slot),
            joined: self.at(),
            heard: self.some(Self::at),
        }
    }

    fn sweep(&mut self) -> SweepView {
        let trial = |draw: &mut Self| TrialView {
            trial: TrialId(draw.small()),
            job: draw.some(Self::job),
            state: draw.text(),
            parameters: [("train.learning_rate".to_owned(), serde_json::json!(draw.real()))].into(),
            rungs: draw.small(),
            step: draw.step(),
            value: draw.some(Self::real),
            reason: draw.text(),
        };
        SweepView {
            id: SweepId(self.small()),
            name: self.text(),
            status: self.text(),
            method: self.text(),
            metric: self.text(),
            goal: self.text(),
            trials_total: self.small(),
            trials_ended: self.small(),
            best_trial: self.some(|draw| TrialId(draw.small())),
            best_job: self.some(Self::job),
            best_value: self.some(Self::real),
            submitted: self.at(),
            trials: self.list(trial),
        }
    }
}

/// Sends a value over the wire as bytes and compares what arrives.
fn round_trip<C, W>(seed: u64, value: &C)
where
    C: Clone + Debug + PartialEq + TryFrom<W>,
    W: Message + Default + From<C>,
    C::Error: Debug,
{
    let bytes = W::from(value.clone()).encode_to_vec();
    let arrived = W::decode(bytes.as_slice()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let arrived = C::try_from(arrived).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    assert_eq!(&arrived, value, "seed {seed}");
}

fn spec() -> Arc<JobSpec> {
    let text = "name: t\nmodel: {preset: tiny}\ndata: {train: [{path: a.arrow}]}\ntrain: {learning_rate: 3e-4}";
    Arc::new(parse_job(text, "t.yaml").unwrap())
}

#[test]
fn every_value_arrives_as_it_was_sent() {
    let spec = spec();
    for seed in 0..SEEDS {
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
        round_trip::<_, wire::SessionRequest>(seed, &draw.agent_word());
        round_trip::<_, wire::SessionResponse>(seed, &draw.coordinator_word(&spec));
        round_trip::<_, wire::JobDetail>(seed, &draw.detail());
        round_trip::<_, wire::NodeView>(seed, &draw.node());
        round_trip::<_, wire::SweepView>(seed, &draw.sweep());
        let filter = JobFilter {
            states: draw.list(Draw::text),
            labels: draw.words(),
            sweep: draw.some(Draw::text),
            limit: draw.some(Draw::small),
        };
        round_trip::<_, wire::ListJobsRequest>(seed, &filter);
        let entry =
            LogEntry { offset: draw.number(), generation: draw.generation(), rank: draw.rank(), line: draw.line() };
        round_trip::<_, wire::LogEntry>(seed, &entry);
        let point = MetricPoint {
            name: draw.text(),
            step: draw.step(),
            value: draw.real(),
            generation: draw.generation(),
            at: draw.at(),
        };
        round_trip::<_, wire::MetricPoint>(seed, &point);
        let info = Info {
            cluster: draw.text(),
            epoch: draw.number(),
            version: draw.text(),
            state_dir: draw.text(),
            checkpoint_uri: draw.text(),
            started: draw.at(),
            jobs: [("running".to_owned(), draw.small())].into(),
            lease: Duration::from_millis(draw.number()),
            workers: draw.small(),
            slots_total: draw.small(),
            slots_used: draw.small(),
        };
        round_trip::<_, wire::GetInfoResponse>(seed, &info);
    }
}

#[test]
fn a_missing_field_is_named() {
    let empty = wire::SessionRequest::default();
    let error: Malformed = FromAgent::try_from(empty).unwrap_err();
    assert_eq!(error.to_string(), "field `session.kind`: is missing");

    let hello = wire::Hello::default();
    assert_eq!(Hello::try_from(hello).unwrap_err().to_string(), "field `hello.info`: is missing");

    let report = wire::Report {
        job: "j-UUUU".to_owned(),
        kind: Some(wire::report::Kind::Finished(wire::Finished { step: 1 })),
        ..Default::default()
    };
    let error = Report::try_from(report).unwrap_err().to_string();
    assert!(error.starts_with("field `report.job`: `j-UUUU` is not a job id"), "{error}");
}

#[test]
fn a_specification_is_validated_again_on_arrival() {
    let assign = wire::Assign {
        job: JobId(1).to_string(),
        spec_json:
            r#"{"name":"t","model":{"preset":"tiny"},"data":{"train":[{"path":"a"}]},"train":{"learning_rate":-1}}"#
                .to_owned(),
        ..Default::default()
    };
    let error = Assign::try_from(assign).unwrap_err().to_string();
    assert!(error.contains("assign.spec_json") && error.contains("learning_rate"), "{error}");
}

#[test]
fn noise_is_refused_and_never_panics() {
    let spec = spec();
    for seed in 0..SEEDS {
        let mut draw = Draw(ChaCha8Rng::seed_from_u64(seed));
        let mut bytes = wire::SessionResponse::from(draw.coordinator_word(&spec)).encode_to_vec();
        for _ in 0..=draw.below(8) {
            if !bytes.is_empty() {
                let place = draw.below(bytes.len() as u32) as usize;
                bytes[place] = draw.below(256) as u8;
            }
        }
        // Whatever comes of it, it comes as a value.
        let _refused = wire::SessionResponse::decode(bytes.as_slice()).map(ToAgent::try_from);
        let _refused = wire::SessionRequest::decode(bytes.as_slice()).map(FromAgent::try_from);
    }
}
