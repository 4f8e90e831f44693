//! The words of a session.

use std::sync::Arc;
use std::time::Duration;

use unimse_core::id::{Generation, Rank, Step};
use unimse_core::machine::{Assign, Form, Order, Seated};
use unimse_core::time::Timestamp;

use super::{Malformed, all, every, from_json, need, parse, to_json};
use crate::session::{AgentReport, FromAgent, Hello, LogLine, Logs, StepRecord, Steps, ToAgent};
use crate::wire;

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<FromAgent> for wire::SessionRequest {
    fn from(word: FromAgent) -> Self {
        use wire::agent_report::Kind as Report;
        use wire::session_request::Kind;
        let kind = match word {
            FromAgent::Hello(hello) => Kind::Hello(hello.into()),
            FromAgent::Heartbeat => Kind::Heartbeat(wire::Heartbeat {}),
            FromAgent::Report { seq, report } => {
                let kind = match report {
                    AgentReport::Event(report) => Report::Event(report.into()),
                    AgentReport::Leaving => Report::Leaving(wire::Leaving {}),
                    AgentReport::Left => Report::Left(wire::Left {}),
                    AgentReport::Steps(steps) => Report::Steps(steps.into()),
                    AgentReport::Logs(logs) => Report::Logs(logs.into()),
                };
                Kind::Report(wire::AgentReport { seq, kind: Some(kind) })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::SessionRequest> for FromAgent {
    type Error = Malformed;

    fn try_from(word: wire::SessionRequest) -> Result<Self, Malformed> {
        use wire::agent_report::Kind as Report;
        use wire::session_request::Kind;
        Ok(match need(word.kind, "session.kind")? {
            Kind::Hello(hello) => Self::Hello(hello.try_into()?),
            Kind::Heartbeat(wire::Heartbeat {}) => Self::Heartbeat,
            Kind::Report(report) => {
                let seq = report.seq;
                let report = match need(report.kind, "agent_report.kind")? {
                    Report::Event(report) => AgentReport::Event(report.try_into()?),
                    Report::Leaving(wire::Leaving {}) => AgentReport::Leaving,
                    Report::Left(wire::Left {}) => AgentReport::Left,
                    Report::Steps(steps) => AgentReport::Steps(steps.try_into()?),
                    Report::Logs(logs) => AgentReport::Logs(logs.try_into()?),
                };
                Self::Report { seq, report }
            }
        })
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        let Hello { info, trainers, cluster, epoch } = hello;
        Self { info: Some(info.into()), trainers: every(trainers), cluster, epoch }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = Malformed;

    fn try_from(hello: wire::Hello) -> Result<Self, Malformed> {
        let wire::Hello { info, trainers, cluster, epoch } = hello;
        Ok(Self { info: need(info, "hello.info")?.try_into()?, trainers: all(trainers)?, cluster, epoch })
    }
}

impl From<Steps> for wire::Steps {
    fn from(steps: Steps) -> Self {
        Self {
            job: steps.job.to_string(),
            generation: steps.generation.0,
            rank: steps.rank.0,
            progress: Some(steps.progress.into()),
            records: every(steps.records),
        }
    }
}

impl TryFrom<wire::Steps> for Steps {
    type Error = Malformed;

    fn try_from(steps: wire::Steps) -> Result<Self, Malformed> {
        Ok(Self {
            job: parse(&steps.job, "steps.job")?,
            generation: Generation(steps.generation),
            rank: Rank(steps.rank),
            progress: need(steps.progress, "steps.progress")?.into(),
            records: steps.records.into_iter().map(StepRecord::from).collect(),
        })
    }
}

impl From<StepRecord> for wire::StepRecord {
    fn from(record: StepRecord) -> Self {
        Self { step: record.step.0, at_ms: record.at.0, digest: record.digest, values: record.values }
    }
}

impl From<wire::StepRecord> for StepRecord {
    fn from(record: wire::StepRecord) -> Self {
        Self { step: Step(record.step), at: Timestamp(record.at_ms), digest: record.digest, values: record.values }
    }
}

impl From<Logs> for wire::Logs {
    fn from(logs: Logs) -> Self {
        Self { job: logs.job.to_string(), generation: logs.generation.0, rank: logs.rank.0, lines: every(logs.lines) }
    }
}

impl TryFrom<wire::Logs> for Logs {
    type Error = Malformed;

    fn try_from(logs: wire::Logs) -> Result<Self, Malformed> {
        Ok(Self {
            job: parse(&logs.job, "logs.job")?,
            generation: Generation(logs.generation),
            rank: Rank(logs.rank),
            lines: logs.lines.into_iter().map(LogLine::from).collect(),
        })
    }
}

impl From<LogLine> for wire::LogLine {
    fn from(line: LogLine) -> Self {
        Self { number: line.number, at_ms: line.at.0, level: line.level, text: line.text }
    }
}

impl From<wire::LogLine> for LogLine {
    fn from(line: wire::LogLine) -> Self {
        Self { number: line.number, at: Timestamp(line.at_ms), level: line.level, text: line.text }
    }
}

impl From<ToAgent> for wire::SessionResponse {
    fn from(word: ToAgent) -> Self {
        use wire::session_response::Kind;
        let kind = match word {
            ToAgent::Welcome { worker, cluster, epoch, lease } => {
                Kind::Welcome(wire::Welcome { worker: worker.to_string(), cluster, epoch, lease_ms: millis(lease) })
            }
            ToAgent::Refused { reason, register_anew } => Kind::Refused(wire::Refused { reason, register_anew }),
            ToAgent::Order(order) => Kind::Order(order.into()),
            ToAgent::Ack { seq } => Kind::Ack(wire::Ack { seq }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::SessionResponse> for ToAgent {
    type Error = Malformed;

    fn try_from(word: wire::SessionResponse) -> Result<Self, Malformed> {
        use wire::session_response::Kind;
        Ok(match need(word.kind, "session.kind")? {
            Kind::Welcome(welcome) => Self::Welcome {
                worker: parse(&welcome.worker, "welcome.worker")?,
                cluster: welcome.cluster,
                epoch: welcome.epoch,
                lease: Duration::from_millis(welcome.lease_ms),
            },
            Kind::Refused(wire::Refused { reason, register_anew }) => Self::Refused { reason, register_anew },
            Kind::Order(order) => Self::Order(order.try_into()?),
            Kind::Ack(wire::Ack { seq }) => Self::Ack { seq },
        })
    }
}

impl From<Order> for wire::Order {
    fn from(order: Order) -> Self {
        use wire::order::{Kill, Kind, Stop};
        let kind = match order {
            Order::Assign(assign) => Kind::Assign(assign.into()),
            Order::Form(form) => Kind::Form(form.into()),
            Order::Stop { job, generation } => Kind::Stop(Stop { job: job.to_string(), generation: generation.0 }),
            Order::Kill { job, generation } => Kind::Kill(Kill { job: job.to_string(), generation: generation.0 }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Order> for Order {
    type Error = Malformed;

    fn try_from(order: wire::Order) -> Result<Self, Malformed> {
        use wire::order::{Kill, Kind, Stop};
        Ok(match need(order.kind, "order.kind")? {
            Kind::Assign(assign) => Self::Assign(assign.try_into()?),
            Kind::Form(form) => Self::Form(form.try_into()?),
            Kind::Stop(Stop { job, generation }) => {
                Self::Stop { job: parse(&job, "stop.job")?, generation: Generation(generation) }
            }
            Kind::Kill(Kill { job, generation }) => {
                Self::Kill { job: parse(&job, "kill.job")?, generation: Generation(generation) }
            }
        })
    }
}

impl From<Assign> for wire::Assign {
    fn from(assign: Assign) -> Self {
        let seated = |seated: &Seated| wire::Seated { rank: seated.rank.0, slot: seated.slot };
        Self {
            job: assign.job.to_string(),
            generation: assign.generation.0,
            ranks: assign.ranks.iter().map(seated).collect(),
            world_size: assign.world_size,
            spec_json: to_json(&*assign.spec),
            checkpoint_uri: assign.checkpoint_uri,
        }
    }
}

impl TryFrom<wire::Assign> for Assign {
    type Error = Malformed;

    fn try_from(assign: wire::Assign) -> Result<Self, Malformed> {
        let seated = |seated: &wire::Seated| Seated { rank: Rank(seated.rank), slot: seated.slot };
        Ok(Self {
            job: parse(&assign.job, "assign.job")?,
            generation: Generation(assign.generation),
            ranks: assign.ranks.iter().map(seated).collect(),
            world_size: assign.world_size,
            spec: Arc::new(from_json(&assign.spec_json, "assign.spec_json")?),
            checkpoint_uri: assign.checkpoint_uri,
        })
    }
}

impl From<Form> for wire::Form {
    fn from(form: Form) -> Self {
        Self {
            job: form.job.to_string(),
            generation: form.generation.0,
            peers: form.peers,
            nccl_id: form.nccl_id,
            source: form.source.map(|(rank, step)| wire::form::Source { rank: rank.0, step: step.0 }),
            resume: form.resume.map(wire::CheckpointRef::from),
        }
    }
}

impl TryFrom<wire::Form> for Form {
    type Error = Malformed;

    fn try_from(form: wire::Form) -> Result<Self, Malformed> {
        Ok(Self {
            job: parse(&form.job, "form.job")?,
            generation: Generation(form.generation),
            peers: form.peers,
            nccl_id: form.nccl_id,
            source: form.source.map(|source| (Rank(source.rank), Step(source.step))),
            resume: form.resume.map(Into::into),
        })
    }
}
