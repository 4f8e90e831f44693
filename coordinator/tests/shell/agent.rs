//! An agent without trainers: says what a test lets it say, over the real session.

use std::collections::{BTreeMap, VecDeque};

use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, JobId, Rank, Step, WorkerId};
use unimse_core::job::Readiness;
use unimse_core::machine::{Assign, Form, Order, Report, ReportKind, TrainerStatus};
use unimse_core::time::Timestamp;
use unimse_core::view::Progress;
use unimse_core::worker::{Slot, WorkerInfo};
use unimse_proto::Error;
use unimse_proto::session::{
    self, AgentReport, FromAgent, Hello, LogLine, Logs, Receiver, Sender, StepRecord, Steps, ToAgent,
};

use crate::PATIENCE;

pub(crate) struct Agent {
    pub(crate) info: WorkerInfo,
    pub(crate) worker: WorkerId,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) acked: u64,
    seq: u64,
    unacked: VecDeque<(u64, AgentReport)>,
    sender: Sender,
    receiver: Receiver,
    orders: VecDeque<Order>,
}

pub(crate) fn info(node: &str, slots: usize) -> WorkerInfo {
    WorkerInfo {
        node: node.to_owned(),
        incarnation: format!("{node}-1"),
        host: "127.0.0.1".to_owned(),
        slots: vec![Slot::Cpu { threads: 1 }; slots],
        version: "0".to_owned(),
    }
}

pub(crate) fn hello(info: WorkerInfo) -> Hello {
    Hello { info, trainers: Vec::new(), cluster: None, epoch: 0 }
}

/// Opens a session and gives back the coordinator's first word.
pub(crate) async fn greet(endpoint: &str, hello: Hello) -> Result<(Sender, Receiver, ToAgent), Error> {
    let (sender, mut receiver) = session::open(endpoint, hello).await?;
    let first = tokio::time::timeout(PATIENCE, receiver.next()).await.expect("an answer to hello")?;
    Ok((sender, receiver, first.expect("a word before the end")))
}

impl Agent {
    pub(crate) async fn join(endpoint: &str, info: WorkerInfo) -> Self {
        let (sender, receiver, first) = greet(endpoint, hello(info.clone())).await.unwrap();
        let ToAgent::Welcome { worker, cluster, epoch, .. } = first else { panic!("{first:?}") };
        let (unacked, orders) = (VecDeque::new(), VecDeque::new());
        Self { info, worker, cluster, epoch, acked: 0, seq: 0, unacked, sender, receiver, orders }
    }

    /// Comes back to a coordinator, perhaps a restarted one, and repeats what was not acknowledged.
    pub(crate) async fn come_back(&mut self, endpoint: &str, trainers: Vec<TrainerStatus>) {
        let hello = Hello { info: self.info.clone(), trainers, cluster: Some(self.cluster.clone()), epoch: self.epoch };
        let (sender, receiver, first) = greet(endpoint, hello).await.unwrap();
        let ToAgent::Welcome { worker, epoch, .. } = first else { panic!("{first:?}") };
        assert_eq!(worker, self.worker, "the same life keeps its id");
        (self.sender, self.receiver, self.epoch) = (sender, receiver, epoch);
        for (seq, report) in self.unacked.clone() {
            self.sender.send(FromAgent::Report { seq, report }).await.unwrap();
        }
    }

    pub(crate) async fn heartbeat(&self) -> Result<(), Error> {
        self.sender.send(FromAgent::Heartbeat).await
    }

    /// Sends a report and gives back its number.
    pub(crate) async fn say(&mut self, report: AgentReport) -> u64 {
        self.seq += 1;
        self.unacked.push_back((self.seq, report.clone()));
        // A session that is over is found out by whoever listens.
        let _over = self.sender.send(FromAgent::Report { seq: self.seq, report }).await;
        self.seq
    }

    pub(crate) async fn report(&mut self, job: JobId, generation: Generation, rank: u32, kind: ReportKind) -> u64 {
        self.say(AgentReport::Event(Report { job, generation, rank: Rank(rank), kind })).await
    }

    pub(crate) async fn ready(&mut self, assign: &Assign, holds: Option<Step>) {
        for seated in assign.ranks.clone() {
            let address = format!("127.0.0.1:{}", 9000 + seated.rank.0);
            let kind = ReportKind::Ready(Readiness { address, nccl_id: None, holds });
            self.report(assign.job, assign.generation, seated.rank.0, kind).await;
        }
    }

    pub(crate) async fn steps(&mut self, job: JobId, generation: Generation, range: std::ops::Range<u64>) -> u64 {
        let record = |step: u64| StepRecord {
            step: Step(step),
            at: Timestamp(step),
            digest: format!("{:08x}{step:08x}", generation.0),
            values: BTreeMap::from([("train/loss".to_owned(), 1.0 / (step + 1) as f64)]),
        };
        let step = Step(range.end.saturating_sub(1));
        let progress =
            Progress { step, total_steps: Some(20), loss: 0.5, samples_per_second: 80.0, ..Progress::default() };
        let records = range.map(record).collect();
        self.say(AgentReport::Steps(Steps { job, generation, rank: Rank(0), progress, records })).await
    }

    pub(crate) async fn logs(&mut self, job: JobId, generation: Generation, numbers: std::ops::Range<u64>) -> u64 {
        let line = |number| LogLine {
            number,
            at: Timestamp(number),
            level: "info".to_owned(),
            text: format!("line {number}"),
        };
        let lines = numbers.map(line).collect();
        self.say(AgentReport::Logs(Logs { job, generation, rank: Rank(0), lines })).await
    }

    pub(crate) async fn commit(&mut self, uri: &str, job: JobId, generation: Generation, step: u64) -> u64 {
        let manifest = format!("{job}/step-{step:08}/manifest-g{:04}.json", generation.0);
        let at = CheckpointRef { uri: uri.to_owned(), manifest, digest: "d".to_owned(), step: Step(step), generation };
        let metrics = BTreeMap::from([("valid/score".to_owned(), 0.5), ("valid/broken".to_owned(), f64::NAN)]);
        self.report(job, generation, 0, ReportKind::Committed { at, bytes: 10, world_size: 1, metrics }).await
    }

    /// Hears the next word; an acknowledgement is noted and forgets what it covers.
    pub(crate) async fn hear(&mut self) -> Result<Option<ToAgent>, Error> {
        let word = tokio::time::timeout(PATIENCE, self.receiver.next()).await.expect("a word in time")?;
        match &word {
            Some(ToAgent::Ack { seq }) => {
                assert!(*seq > self.acked, "acknowledgements grow");
                self.acked = *seq;
                self.unacked.retain(|(seq, _)| *seq > self.acked);
            }
            Some(ToAgent::Order(order)) => self.orders.push_back(order.clone()),
            _ => {}
        }
        Ok(word)
    }

    pub(crate) async fn order(&mut self) -> Order {
        while self.orders.is_empty() {
            let word = self.hear().await.unwrap();
            assert!(word.is_some(), "the session ended before an order came");
        }
        self.orders.pop_front().expect("just checked")
    }

    pub(crate) async fn assigned(&mut self) -> Assign {
        match self.order().await {
            Order::Assign(assign) => assign,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn formed(&mut self) -> Form {
        match self.order().await {
            Order::Form(form) => form,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn all_acked(&mut self) {
        while self.acked < self.seq {
            self.hear().await.unwrap().expect("the session goes on");
        }
    }
}

pub(crate) fn trainers(assign: &Assign, formed: bool) -> Vec<TrainerStatus> {
    let status = |seated: &unimse_core::machine::Seated| TrainerStatus {
        job: assign.job,
        generation: assign.generation,
        rank: seated.rank,
        slot: seated.slot,
        formed,
    };
    assign.ranks.iter().map(status).collect()
}
