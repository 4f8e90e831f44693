//! Reports on their way to the coordinator: numbered, kept until acknowledged, bounded in memory.
//!
//! Events are never dropped. Steps and logs are telemetry: while they wait they are joined to larger messages, and when too
//! much waits the oldest go, counted.

use std::collections::VecDeque;

use unimse_core::machine::Report;
use unimse_proto::session::{AgentReport, LogLine, Logs, Steps};

/// How much telemetry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Step records that may wait.
    pub records: usize,
    /// Log lines that may wait.
    pub lines: usize,
    /// Step records, or log lines, in one message.
    pub per_message: usize,
}

impl Default for Limits {
    /// Ten minutes of a hundred steps a second, and of about thirty lines a second.
    fn default() -> Self {
        Self { records: 60_000, lines: 20_000, per_message: 500 }
    }
}

/// What had to be dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) records: u64,
    pub(super) lines: u64,
}

/// The reports that the coordinator has not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    limits: Limits,
    last_seq: u64,
    records: usize,
    lines: usize,
    dropped: Dropped,
}

#[derive(Debug)]
struct Entry {
    seq: u64,
    sent: bool,
    report: AgentReport,
}

impl Outbox {
    /// Begins empty, with the next number 1.
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Adds something that the coordinator must hear.
    pub(super) fn event(&mut self, report: Report) {
        self.add(AgentReport::Event(report));
    }

    /// Adds that this agent was asked to end.
    pub(super) fn leaving(&mut self) {
        self.add(AgentReport::Leaving);
    }

    /// Adds that this agent has no trainer left and ends.
    pub(super) fn left(&mut self) {
        self.add(AgentReport::Left);
    }

    /// Adds completed steps, joined to those that wait already where that fits.
    pub(super) fn steps(&mut self, steps: Steps) {
        self.records += steps.records.len();
        let room = self.limits.per_message;
        let waiting =
            self.entries.iter_mut().rev().filter(|entry| !entry.sent).find_map(|entry| match &mut entry.report {
                AgentReport::Steps(waiting) if same_steps(waiting, &steps) => Some(waiting),
                _ => None,
            });
        match waiting {
            Some(waiting) if waiting.records.len() + steps.records.len() <= room => {
                waiting.progress = steps.progress;
                waiting.records.extend(steps.records);
            }
            _ => self.add(AgentReport::Steps(steps)),
        }
        self.shed();
    }

    /// Adds a line of a trainer's log.
    pub(super) fn log(&mut self, source: &Logs, line: LogLine) {
        self.lines += 1;
        let room = self.limits.per_message;
        let waiting =
            self.entries.iter_mut().rev().filter(|entry| !entry.sent).find_map(|entry| match &mut entry.report {
                AgentReport::Logs(waiting) if same_logs(waiting, source) => Some(waiting),
                _ => None,
            });
        match waiting {
            Some(waiting) if waiting.lines.len() < room => waiting.lines.push(line),
            _ => self.add(AgentReport::Logs(Logs { lines: vec![line], ..source.clone() })),
        }
        self.shed();
    }

    /// The next report to send, marked as sent.
    pub(super) fn next_unsent(&mut self) -> Option<(u64, AgentReport)> {
        let entry = self.entries.iter_mut().find(|entry| !entry.sent)?;
        entry.sent = true;
        Some((entry.seq, entry.report.clone()))
    }

    /// Whether there is something to send.
    pub(super) fn has_unsent(&self) -> bool {
        self.entries.back().is_some_and(|entry| !entry.sent)
    }

    /// Whether everything was acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets what the coordinator has: everything up to this number.
    pub(super) fn acknowledged(&mut self, seq: u64) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.seq <= seq) {
            self.forget(&entry.report);
        }
    }

    /// A new session: whatever was not acknowledged is sent again.
    pub(super) fn resend(&mut self) {
        for entry in &mut self.entries {
            entry.sent = false;
        }
    }

    /// A new identity: nothing of the old one may be said any more, and numbers begin at 1.
    pub(super) fn reset(&mut self) {
        *self = Self { limits: self.limits, dropped: self.dropped, ..Self::default() };
    }

    /// What had to be dropped since the start.
    pub(super) fn dropped(&self) -> Dropped {
        self.dropped
    }

    fn add(&mut self, report: AgentReport) {
        self.last_seq += 1;
        self.entries.push_back(Entry { seq: self.last_seq, sent: false, report });
    }

    fn forget(&mut self, report: &AgentReport) {
        match report {
            AgentReport::Event(_) | AgentReport::Leaving | AgentReport::Left => {}
            AgentReport::Steps(steps) => self.records -= steps.records.len(),
            AgentReport::Logs(logs) => self.lines -= logs.lines.len(),
        }
    }

    /// Drops the oldest telemetry until the rest fits.
    fn shed(&mut self) {
        while self.records > self.limits.records {
            let Some(entry) = self.drop_oldest(|report| matches!(report, AgentReport::Steps(_))) else { break };
            if let AgentReport::Steps(steps) = entry {
                self.dropped.records += steps.records.len() as u64;
            }
        }
        while self.lines > self.limits.lines {
            let Some(AgentReport::Logs(logs)) = self.drop_oldest(|report| matches!(report, AgentReport::Logs(_)))
            else {
                break;
            };
            self.dropped.lines += logs.lines.len() as u64;
            self.leave_notice(&logs);
        }
    }

    fn drop_oldest(&mut self, kind: impl Fn(&AgentReport) -> bool) -> Option<AgentReport> {
        let oldest = self.entries.iter().position(|entry| kind(&entry.report))?;
        let entry = self.entries.remove(oldest)?;
        self.forget(&entry.report);
        Some(entry.report)
    }

    /// Tells readers of the log that something is missing, at the place where it is missing.
    fn leave_notice(&mut self, dropped: &Logs) {
        let Some(last) = dropped.lines.last() else { return };
        let text = format!("[{} lines were dropped here: the coordinator was away for too long]", dropped.lines.len());
        let notice = LogLine { number: last.number, at: last.at, level: "warn".to_owned(), text };
        let rest = self.entries.iter_mut().find_map(|entry| match &mut entry.report {
            AgentReport::Logs(logs) if same_logs(logs, dropped) => Some(logs),
            _ => None,
        });
        if let Some(rest) = rest {
            rest.lines.insert(0, notice);
            self.lines += 1;
        }
    }
}

fn same_steps(a: &Steps, b: &Steps) -> bool {
    (a.job, a.generation, a.rank) == (b.job, b.generation, b.rank)
}

fn same_logs(a: &Logs, b: &Logs) -> bool {
    (a.job, a.generation, a.rank) == (b.job, b.generation, b.rank)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use unimse_core::id::{Generation, JobId, Rank, Step};
    use unimse_core::machine::ReportKind;
    use unimse_core::time::Timestamp;
    use unimse_core::view::Progress;
    use unimse_proto::session::StepRecord;

    use super::*;

    const SMALL: Limits = Limits { records: 10, lines: 10, per_message: 4 };

    fn steps(rank: u32, range: std::ops::Range<u64>) -> Steps {
        let record =
            |step| StepRecord { step: Step(step), at: Timestamp(step), digest: String::new(), values: BTreeMap::new() };
        Steps {
            job: JobId(1),
            generation: Generation(1),
            rank: Rank(rank),
            progress: Progress { step: Step(range.end - 1), ..Progress::default() },
            records: range.map(record).collect(),
        }
    }

    fn event(step: u64) -> Report {
        Report {
            job: JobId(1),
            generation: Generation(1),
            rank: Rank(0),
            kind: ReportKind::Finished { step: Step(step) },
        }
    }

    fn source() -> Logs {
        Logs { job: JobId(1), generation: Generation(1), rank: Rank(0), lines: Vec::new() }
    }

    fn line(number: u64) -> LogLine {
        LogLine { number, at: Timestamp(number), level: "info".to_owned(), text: format!("line {number}") }
    }

    fn all(outbox: &mut Outbox) -> Vec<(u64, AgentReport)> {
        std::iter::from_fn(|| outbox.next_unsent()).collect()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_order_with_its_number() {
        let mut outbox = Outbox::new(Limits::default());
        for step in 1..=3 {
            outbox.event(event(step));
        }
        let first = all(&mut outbox);
        assert_eq!(first.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(!outbox.has_unsent());
        outbox.acknowledged(1);
        outbox.resend();
        assert_eq!(all(&mut outbox), first[1..]);
        outbox.acknowledged(3);
        assert!(outbox.is_empty());
    }

    #[test]
    fn steps_that_wait_are_joined_and_lose_nothing() {
        let mut outbox = Outbox::new(SMALL);
        for step in 0..9 {
            outbox.steps(steps(0, step..step + 1));
            outbox.steps(steps(1, step..step + 1));
            outbox.acknowledged(0);
        }
        let sent = all(&mut outbox);
        assert!(sent.len() < 9, "{} messages", sent.len());
        for (_, report) in &sent {
            let AgentReport::Steps(steps) = report else { panic!("{report:?}") };
            assert!(steps.records.len() <= SMALL.per_message);
            assert_eq!(steps.progress.step, steps.records.last().unwrap().step);
        }
    }

    #[test]
    fn a_message_that_was_sent_is_not_changed_any_more() {
        let mut outbox = Outbox::new(SMALL);
        outbox.steps(steps(0, 0..1));
        let sent = outbox.next_unsent().unwrap();
        outbox.steps(steps(0, 1..2));
        outbox.resend();
        assert_eq!(outbox.next_unsent().unwrap(), sent);
    }

    #[test]
    fn too_much_telemetry_drops_the_oldest_and_no_event() {
        let mut outbox = Outbox::new(SMALL);
        outbox.event(event(1));
        for step in 0..100 {
            outbox.steps(steps(0, step..step + 1));
            outbox.log(&source(), line(step));
            if step % 10 == 0 {
                outbox.event(event(step));
            }
        }
        let sent = all(&mut outbox);
        let events = sent.iter().filter(|(_, report)| matches!(report, AgentReport::Event(_))).count();
        assert_eq!(events, 11);
        let kept: Vec<u64> = sent
            .iter()
            .filter_map(|(_, report)| if let AgentReport::Steps(steps) = report { Some(steps) } else { None })
            .flat_map(|steps| steps.records.iter().map(|record| record.step.0))
            .collect();
        assert!(kept.len() <= SMALL.records && kept.len() > SMALL.records - SMALL.per_message, "{kept:?}");
        assert!(kept.iter().copied().eq(100 - kept.len() as u64..100), "the newest stay: {kept:?}");
        assert_eq!(outbox.dropped().records, 100 - kept.len() as u64);
        assert!(sent.iter().map(|(seq, _)| *seq).is_sorted());
        let text = format!("{sent:?}");
        assert!(text.contains("lines were dropped here"), "{text}");
    }

    #[test]
    fn a_new_identity_begins_at_one() {
        let mut outbox = Outbox::new(SMALL);
        outbox.event(event(1));
        outbox.reset();
        assert!(outbox.is_empty());
        outbox.event(event(2));
        assert_eq!(outbox.next_unsent().map(|(seq, _)| seq), Some(1));
    }
}
