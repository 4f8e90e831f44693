//! Workers, and what agents say of their trainers.

use unimse_core::id::{Generation, Rank, Step};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Report, ReportKind, TrainerStatus};
use unimse_core::time::Timestamp;
use unimse_core::view::{NodeView, SlotView};
use unimse_core::worker::{Slot, WorkerInfo};

use super::{Malformed, all, every, need, parse, parse_some};
use crate::wire;

impl From<Slot> for wire::Slot {
    fn from(slot: Slot) -> Self {
        use wire::slot::{Cpu, Gpu, Kind};
        let kind = match slot {
            Slot::Gpu { index, name, memory_bytes } => Kind::Gpu(Gpu { index, name, memory_bytes }),
            Slot::Cpu { threads } => Kind::Cpu(Cpu { threads }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Slot> for Slot {
    type Error = Malformed;

    fn try_from(slot: wire::Slot) -> Result<Self, Malformed> {
        use wire::slot::{Cpu, Gpu, Kind};
        Ok(match need(slot.kind, "slot.kind")? {
            Kind::Gpu(Gpu { index, name, memory_bytes }) => Self::Gpu { index, name, memory_bytes },
            Kind::Cpu(Cpu { threads }) => Self::Cpu { threads },
        })
    }
}

impl From<WorkerInfo> for wire::WorkerInfo {
    fn from(info: WorkerInfo) -> Self {
        let WorkerInfo { node, incarnation, host, slots, version } = info;
        Self { node, incarnation, host, slots: every(slots), version }
    }
}

impl TryFrom<wire::WorkerInfo> for WorkerInfo {
    type Error = Malformed;

    fn try_from(info: wire::WorkerInfo) -> Result<Self, Malformed> {
        let wire::WorkerInfo { node, incarnation, host, slots, version } = info;
        Ok(Self { node, incarnation, host, slots: all(slots)?, version })
    }
}

impl From<TrainerStatus> for wire::TrainerStatus {
    fn from(status: TrainerStatus) -> Self {
        Self {
            job: status.job.to_string(),
            generation: status.generation.0,
            rank: status.rank.0,
            slot: status.slot,
            formed: status.formed,
        }
    }
}

impl TryFrom<wire::TrainerStatus> for TrainerStatus {
    type Error = Malformed;

    fn try_from(status: wire::TrainerStatus) -> Result<Self, Malformed> {
        Ok(Self {
            job: parse(&status.job, "trainer.job")?,
            generation: Generation(status.generation),
            rank: Rank(status.rank),
            slot: status.slot,
            formed: status.formed,
        })
    }
}

impl From<ExitCause> for wire::ExitCause {
    fn from(cause: ExitCause) -> Self {
        use wire::exit_cause as exit;
        let kind = match cause {
            ExitCause::Finished => exit::Kind::Finished(exit::Finished {}),
            ExitCause::Stopped => exit::Kind::Stopped(exit::Stopped {}),
            ExitCause::Failed { code, message } => exit::Kind::Failed(exit::Failed { code, message }),
            ExitCause::Signalled { signal } => exit::Kind::Signalled(exit::Signalled { signal }),
            ExitCause::OutOfMemory { message } => exit::Kind::OutOfMemory(exit::OutOfMemory { message }),
            ExitCause::NotStarted { message } => exit::Kind::NotStarted(exit::NotStarted { message }),
            ExitCause::CheckpointDamaged { manifest, message } => {
                exit::Kind::CheckpointDamaged(exit::CheckpointDamaged { manifest, message })
            }
            ExitCause::Invalid { message } => exit::Kind::Invalid(exit::Invalid { message }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::ExitCause> for ExitCause {
    type Error = Malformed;

    fn try_from(cause: wire::ExitCause) -> Result<Self, Malformed> {
        use wire::exit_cause as exit;
        Ok(match need(cause.kind, "exited.cause")? {
            exit::Kind::Finished(exit::Finished {}) => Self::Finished,
            exit::Kind::Stopped(exit::Stopped {}) => Self::Stopped,
            exit::Kind::Failed(exit::Failed { code, message }) => Self::Failed { code, message },
            exit::Kind::Signalled(exit::Signalled { signal }) => Self::Signalled { signal },
            exit::Kind::OutOfMemory(exit::OutOfMemory { message }) => Self::OutOfMemory { message },
            exit::Kind::NotStarted(exit::NotStarted { message }) => Self::NotStarted { message },
            exit::Kind::CheckpointDamaged(exit::CheckpointDamaged { manifest, message }) => {
                Self::CheckpointDamaged { manifest, message }
            }
            exit::Kind::Invalid(exit::Invalid { message }) => Self::Invalid { message },
        })
    }
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        use wire::report::Kind;
        let kind = match report.kind {
            ReportKind::Ready(Readiness { address, nccl_id, holds }) => {
                Kind::Ready(wire::Ready { address, nccl_id, holds: holds.map(|step| step.0) })
            }
            ReportKind::PeerLost { step, detail } => Kind::PeerLost(wire::PeerLost { step: step.0, detail }),
            ReportKind::Evaluated { step, metrics } => Kind::Evaluated(wire::Evaluated { step: step.0, metrics }),
            ReportKind::Committed { at, bytes, world_size, metrics } => {
                Kind::Committed(wire::Committed { at: Some(at.into()), bytes, world_size, metrics })
            }
            ReportKind::Finished { step } => Kind::Finished(wire::Finished { step: step.0 }),
            ReportKind::Exited { cause, step } => {
                Kind::Exited(wire::Exited { cause: Some(cause.into()), step: step.map(|step| step.0) })
            }
        };
        Self { job: report.job.to_string(), generation: report.generation.0, rank: report.rank.0, kind: Some(kind) }
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = Malformed;

    fn try_from(report: wire::Report) -> Result<Self, Malformed> {
        use wire::report::Kind;
        let kind = match need(report.kind, "report.kind")? {
            Kind::Ready(ready) => ReportKind::Ready(Readiness {
                address: ready.address,
                nccl_id: ready.nccl_id,
                holds: ready.holds.map(Step),
            }),
            Kind::PeerLost(lost) => ReportKind::PeerLost { step: Step(lost.step), detail: lost.detail },
            Kind::Evaluated(done) => ReportKind::Evaluated { step: Step(done.step), metrics: done.metrics },
            Kind::Committed(done) => ReportKind::Committed {
                at: need(done.at, "committed.at")?.into(),
                bytes: done.bytes,
                world_size: done.world_size,
                metrics: done.metrics,
            },
            Kind::Finished(done) => ReportKind::Finished { step: Step(done.step) },
            Kind::Exited(exited) => ReportKind::Exited {
                cause: need(exited.cause, "exited.cause")?.try_into()?,
                step: exited.step.map(Step),
            },
        };
        Ok(Self {
            job: parse(&report.job, "report.job")?,
            generation: Generation(report.generation),
            rank: Rank(report.rank),
            kind,
        })
    }
}

impl From<NodeView> for wire::NodeView {
    fn from(view: NodeView) -> Self {
        Self {
            worker: view.worker.to_string(),
            node: view.node,
            host: view.host,
            version: view.version,
            state: view.state,
            reason: view.reason,
            slots: every(view.slots),
            joined_ms: view.joined.0,
            heard_ms: view.heard.map(|at| at.0),
        }
    }
}

impl TryFrom<wire::NodeView> for NodeView {
    type Error = Malformed;

    fn try_from(view: wire::NodeView) -> Result<Self, Malformed> {
        Ok(Self {
            worker: parse(&view.worker, "node.worker")?,
            node: view.node,
            host: view.host,
            version: view.version,
            state: view.state,
            reason: view.reason,
            slots: all(view.slots)?,
            joined: Timestamp(view.joined_ms),
            heard: view.heard_ms.map(Timestamp),
        })
    }
}

impl From<SlotView> for wire::SlotView {
    fn from(view: SlotView) -> Self {
        Self {
            slot: view.slot,
            what: view.what,
            job: view.job.map(|job| job.to_string()),
            rank: view.rank.map(|rank| rank.0),
        }
    }
}

impl TryFrom<wire::SlotView> for SlotView {
    type Error = Malformed;

    fn try_from(view: wire::SlotView) -> Result<Self, Malformed> {
        Ok(Self {
            slot: view.slot,
            what: view.what,
            job: parse_some(view.job.as_ref(), "slot.job")?,
            rank: view.rank.map(Rank),
        })
    }
}
