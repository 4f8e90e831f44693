//! Words to the agent, written on a thread of their own so that a full pipe never holds up training.

use std::io::Write;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use unimse_core::id::{Generation, Rank};
use unimse_core::job::ExitCause;
use unimse_core::machine::ReportKind;
use unimse_core::view::Progress;

use crate::protocol::{FromTrainer, Seat, StepRecord, to_line};

/// Steps are told this often at most.
const STEPS_EVERY: Duration = Duration::from_millis(500);
/// Records in one line; more of them make several lines.
const RECORDS_A_LINE: usize = 500;

/// The trainer's way to speak; clones speak to the same agent.
#[derive(Clone, Debug)]
pub struct Mouth {
    words: Sender<Word>,
}

#[derive(Debug)]
enum Word {
    Event(FromTrainer),
    Steps(Steps),
}

#[derive(Debug)]
struct Steps {
    generation: Generation,
    rank: Rank,
    progress: Progress,
    records: Vec<StepRecord>,
}

impl Mouth {
    /// Begins to write to `out`; the thread ends when the last mouth is dropped and everything is written.
    pub fn new(out: impl Write + Send + 'static) -> (Self, JoinHandle<()>) {
        let (words, heard) = mpsc::channel();
        let thread = std::thread::Builder::new().name("mouth".to_owned()).spawn(move || write(out, &heard));
        (Self { words }, thread.expect("the system has room for one more thread"))
    }

    /// Says something that the coordinator must hear.
    pub fn event(&self, seat: Seat, kind: ReportKind) {
        self.say(Word::Event(FromTrainer::Event { generation: seat.generation, rank: seat.rank, kind }));
    }

    /// Says how far the rank is, and which steps it completed.
    pub fn steps(&self, seat: Seat, progress: Progress, records: Vec<StepRecord>) {
        self.say(Word::Steps(Steps { generation: seat.generation, rank: seat.rank, progress, records }));
    }

    /// Says the last words.
    pub fn failed(&self, cause: ExitCause) {
        self.say(Word::Event(FromTrainer::Failed { cause }));
    }

    fn say(&self, word: Word) {
        // The thread is gone only when the agent is, and then nobody listens.
        let _ = self.words.send(word);
    }
}

/// Writes events at once and steps every now and then, in the order in which they were said.
fn write(out: impl Write, heard: &Receiver<Word>) {
    let mut writer = Writer { out, waiting: None, due: Instant::now() };
    loop {
        let word = match &writer.waiting {
            None => heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => heard.recv_timeout(writer.due.saturating_duration_since(Instant::now())),
        };
        let written = match word {
            Ok(Word::Event(event)) => writer.flush().and_then(|()| writer.line(&event)),
            Ok(Word::Steps(steps)) => writer.steps(steps),
            Err(RecvTimeoutError::Timeout) => writer.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = writer.flush();
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

struct Writer<W> {
    out: W,
    waiting: Option<Steps>,
    /// When the waiting steps are to be written.
    due: Instant,
}

impl<W: Write> Writer<W> {
    /// Joins steps to those that wait; writes when it is time, or when they are of another seat or many.
    fn steps(&mut self, mut steps: Steps) -> std::io::Result<()> {
        let full = |waiting: &Steps| {
            (waiting.generation, waiting.rank) != (steps.generation, steps.rank)
                || waiting.records.len() + steps.records.len() > RECORDS_A_LINE
        };
        if self.waiting.as_ref().is_some_and(full) {
            self.flush()?;
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.progress = steps.progress;
            waiting.records.append(&mut steps.records);
        } else {
            self.waiting = Some(steps);
            self.due = self.due.max(Instant::now());
        }
        if Instant::now() >= self.due { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let Some(Steps { generation, rank, progress, records }) = self.waiting.take() else { return Ok(()) };
        self.due = Instant::now() + STEPS_EVERY;
        self.line(&FromTrainer::Steps { generation, rank, progress, records })
    }

    fn line(&mut self, message: &FromTrainer) -> std::io::Result<()> {
        self.out.write_all(to_line(message).as_bytes())?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use unimse_core::id::Step;
    use unimse_core::time::Timestamp;

    use super::*;

    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn record(step: u64) -> StepRecord {
        StepRecord { step: Step(step), at: Timestamp(0), digest: "0".to_owned(), values: BTreeMap::new() }
    }

    #[test]
    fn many_steps_become_few_lines_and_none_is_lost() {
        let pipe = Pipe::default();
        let (mouth, thread) = Mouth::new(pipe.clone());
        let seat = Seat { generation: Generation(1), rank: Rank(0), world_size: 1 };
        for step in 1..=1200 {
            let progress = Progress { step: Step(step), ..Progress::default() };
            mouth.steps(seat, progress, vec![record(step)]);
        }
        mouth.event(seat, ReportKind::Finished { step: Step(1200) });
        drop(mouth);
        thread.join().unwrap();
        let text = String::from_utf8(pipe.0.lock().unwrap().clone()).unwrap();
        let messages: Vec<FromTrainer> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(messages.len() <= 6, "{} lines", messages.len());
        let (last, steps) = messages.split_last().unwrap();
        assert!(matches!(last, FromTrainer::Event { kind: ReportKind::Finished { .. }, .. }), "the event comes last");
        let told = steps.iter().flat_map(|message| match message {
            FromTrainer::Steps { records, .. } => records.iter().map(|record| record.step.0).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        });
        assert!(told.eq(1..=1200));
    }
}
