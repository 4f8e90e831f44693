//! Trainers as threads of the test, told what a coordinator and agents would tell them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use unimse_checkpoint::{Checkpoint, Store, Tensor};
use unimse_core::checkpoint::CheckpointRef;
use unimse_core::id::{Generation, JobId, Rank, Step};
use unimse_core::job::{ExitCause, Readiness};
use unimse_core::machine::{Form, ReportKind};
use unimse_core::spec::JobSpec;
use unimse_core::worker::Slot;
use unimse_worker::protocol::{Begin, FromTrainer, Seat, StepRecord, ToTrainer};
use unimse_worker::trainer::{self, Mailbox, Mouth, Replica, Surroundings};

use super::wait;

pub(crate) type Make = fn(&Begin, &Surroundings) -> Result<Box<dyn Replica>, ExitCause>;

const JOB: JobId = JobId(7);
/// How long a whole job may take on a busy machine.
const LONG_PATIENCE: std::time::Duration = std::time::Duration::from_mins(5);

/// The trainers of one job.
pub(crate) struct Gang {
    spec: Arc<JobSpec>,
    store: String,
    make: Make,
    generation: u64,
    resume: Option<CheckpointRef>,
    /// Commits are not accepted: the next generation hears of none.
    forgetful: bool,
    pub(crate) members: Vec<Member>,
}

/// One trainer.
pub(crate) struct Member {
    mailbox: Mailbox,
    said: Arc<Mutex<Vec<FromTrainer>>>,
    thread: JoinHandle<ExitCause>,
}

/// Cuts what a mouth writes into messages.
struct Ear {
    said: Arc<Mutex<Vec<FromTrainer>>>,
    rest: Vec<u8>,
}

impl Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.said
                .lock()
                .expect("no panic while holding it")
                .push(serde_json::from_slice(&line).expect("a message"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Member {
    fn start(begin: Begin, make: Make) -> Self {
        let (mailbox, said) = (Mailbox::default(), Arc::default());
        let ear = Ear { said: Arc::clone(&said), rest: Vec::new() };
        mailbox.put(ToTrainer::Begin(Box::new(begin)));
        let own = mailbox.clone();
        let thread = std::thread::spawn(move || {
            let (mouth, writer) = Mouth::new(ear);
            let cause = trainer::run(make, &own, &mouth, &Surroundings::default());
            drop(mouth);
            writer.join().expect("the mouth does not panic");
            cause
        });
        Self { mailbox, said, thread }
    }

    pub(crate) fn tell(&self, message: ToTrainer) {
        self.mailbox.put(message);
    }

    pub(crate) fn said(&self) -> Vec<FromTrainer> {
        self.said.lock().expect("no panic while holding it").clone()
    }

    /// The kinds of events that it reported in a generation.
    pub(crate) fn events(&self, of: u64) -> Vec<ReportKind> {
        let kind = |message| match message {
            FromTrainer::Event { generation, kind, .. } if generation == Generation(of) => Some(kind),
            _ => None,
        };
        self.said().into_iter().filter_map(kind).collect()
    }

    fn readiness(&self, of: u64) -> Option<Readiness> {
        self.events(of)
            .into_iter()
            .find_map(|kind| if let ReportKind::Ready(ready) = kind { Some(ready) } else { None })
    }

    pub(crate) fn lost(&self, of: u64) -> Option<Step> {
        let lost = |kind| if let ReportKind::PeerLost { step, .. } = kind { Some(step) } else { None };
        self.events(of).into_iter().find_map(lost)
    }

    pub(crate) fn records(&self) -> Vec<StepRecord> {
        let records = |message| if let FromTrainer::Steps { records, .. } = message { records } else { Vec::new() };
        self.said().into_iter().flat_map(records).collect()
    }

    pub(crate) fn step(&self) -> Step {
        let step = |message| if let FromTrainer::Steps { progress, .. } = message { progress.step } else { Step(0) };
        self.said().into_iter().map(step).max().unwrap_or_default()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    pub(crate) fn end(self) -> ExitCause {
        self.thread.join().expect("a trainer does not panic")
    }
}

impl Gang {
    /// Starts a first generation; resumes from a checkpoint if one is given.
    pub(crate) fn start(
        spec: &Arc<JobSpec>,
        folder: &Path,
        world: u32,
        make: Make,
        generation: u64,
        resume: Option<CheckpointRef>,
    ) -> Self {
        let store = folder.display().to_string();
        let spec = Arc::clone(spec);
        let mut gang = Self { spec, store, make, generation, resume, forgetful: false, members: Vec::new() };
        gang.members = (0..world).map(|rank| gang.member(Rank(rank), world)).collect();
        gang.form();
        gang
    }

    /// Starts one trainer that is expected to end before it is ready.
    pub(crate) fn start_unformed(spec: &Arc<JobSpec>, folder: &Path, make: Make) -> Self {
        let store = folder.display().to_string();
        let spec = Arc::clone(spec);
        let mut gang = Self { spec, store, make, generation: 1, resume: None, forgetful: false, members: Vec::new() };
        gang.members = vec![gang.member(Rank(0), 1)];
        gang
    }

    fn member(&self, rank: Rank, world_size: u32) -> Member {
        let begin = Begin {
            job: JOB,
            spec: Arc::clone(&self.spec),
            checkpoint_uri: self.store.clone(),
            cluster: "test".to_owned(),
            host: "127.0.0.1".to_owned(),
            slot: Slot::Cpu { threads: 1 },
            seat: Seat { generation: Generation(self.generation), rank, world_size },
        };
        Member::start(begin, self.make)
    }

    /// Begins the next generation: members that live keep their processes, others are replaced, up to `world`.
    pub(crate) fn reform(&mut self, world: u32) -> Vec<Member> {
        self.generation += 1;
        self.resume = if self.forgetful { None } else { self.committed().pop() };
        let (dead, alive): (Vec<Member>, Vec<Member>) =
            std::mem::take(&mut self.members).into_iter().partition(Member::is_over);
        for (rank, member) in (0..).zip(&alive) {
            let generation = Generation(self.generation);
            member.tell(ToTrainer::Reform(Seat { generation, rank: Rank(rank), world_size: world }));
        }
        self.members = alive;
        for rank in self.members.len() as u32..world {
            let member = self.member(Rank(rank), world);
            self.members.push(member);
        }
        self.form();
        dead
    }

    fn form(&self) {
        let mut ready = Vec::new();
        for (rank, member) in self.members.iter().enumerate() {
            wait(&format!("rank {rank} is ready"), || {
                assert!(!member.is_over(), "rank {rank} ended: {:?}", member.said());
                member.readiness(self.generation).is_some()
            });
            ready.push(member.readiness(self.generation).expect("it was waited for"));
        }
        let newest = (0..).zip(&ready).filter_map(|(rank, ready)| Some((ready.holds?, rank)));
        let source = newest.max_by_key(|&(step, rank)| (step, std::cmp::Reverse(rank)));
        let form = Form {
            job: JOB,
            generation: Generation(self.generation),
            peers: ready.iter().map(|ready| ready.address.clone()).collect(),
            nccl_id: None,
            source: source.map(|(step, rank)| (Rank(rank), step)),
            resume: self.resume.clone(),
        };
        for member in &self.members {
            member.tell(ToTrainer::Form(form.clone()));
        }
    }

    /// From now on the coordinator behaves as if it had accepted no commit.
    pub(crate) fn forget_commits(&mut self) {
        self.forgetful = true;
    }

    pub(crate) fn stop(&self) {
        for member in &self.members {
            member.tell(ToTrainer::Stop { generation: Generation(self.generation) });
        }
    }

    /// The checkpoints that were reported as committed, oldest first.
    pub(crate) fn committed(&self) -> Vec<CheckpointRef> {
        let mut all: BTreeMap<Step, CheckpointRef> = BTreeMap::new();
        for member in &self.members {
            for message in member.said() {
                if let FromTrainer::Event { kind: ReportKind::Committed { at, .. }, .. } = message {
                    all.insert(at.step, at);
                }
            }
        }
        all.into_values().collect()
    }

    /// Waits for the end of all.
    pub(crate) fn end(self) -> Ended {
        let deadline = std::time::Instant::now() + LONG_PATIENCE;
        while !self.members.iter().all(Member::is_over) {
            let said: Vec<_> = self.members.iter().map(|member| member.said().pop()).collect();
            assert!(std::time::Instant::now() < deadline, "trainers did not end; last words: {said:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let committed = self.committed();
        let mut records: BTreeMap<Step, StepRecord> = BTreeMap::new();
        for record in self.members.iter().flat_map(Member::records) {
            records.insert(record.step, record);
        }
        let said = self.members.iter().map(Member::said).collect();
        let causes = self.members.into_iter().map(Member::end).collect();
        Ended { causes, committed, records: records.into_values().collect(), said }
    }
}

/// What a gang left behind.
pub(crate) struct Ended {
    pub(crate) causes: Vec<ExitCause>,
    pub(crate) committed: Vec<CheckpointRef>,
    /// One record a step, by step.
    pub(crate) records: Vec<StepRecord>,
    pub(crate) said: Vec<Vec<FromTrainer>>,
}

impl Ended {
    #[track_caller]
    pub(crate) fn all(&self, cause: &ExitCause) -> &Self {
        assert!(self.causes.iter().all(|own| own == cause), "{:?}", self.causes);
        self
    }

    pub(crate) fn steps(&self) -> Vec<u64> {
        self.records.iter().map(|record| record.step.0).collect()
    }

    pub(crate) fn digests(&self) -> Vec<String> {
        self.records.iter().map(|record| record.digest.clone()).collect()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.records.iter().filter_map(|record| record.values.get(name).copied()).collect()
    }

    /// The bytes of all tensors of the last checkpoint.
    pub(crate) fn weights(&self) -> BTreeMap<String, Tensor> {
        weights(self.committed.last().expect("a checkpoint was committed"))
    }
}

/// The bytes of all tensors of a checkpoint.
pub(crate) fn weights(at: &CheckpointRef) -> BTreeMap<String, Tensor> {
    let store = Store::open(&at.uri, []).expect("the store is a folder");
    let key = at.manifest.parse().expect("a manifest key");
    let digest = at.digest.parse().expect("a digest");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let read = async { Checkpoint::open(&store, &key, Some(digest)).await?.read_all().await };
    runtime.block_on(read).unwrap_or_else(|error| panic!("{error}"))
}
