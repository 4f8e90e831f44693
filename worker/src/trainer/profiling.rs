//! Profiles: some steps of each rank in detail, as a file that Perfetto and `chrome://tracing` open.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use unimse_checkpoint::{Store, TraceKey};
use unimse_core::id::Step;

use super::Halt;
use super::boundary::Course;
use super::spans::{self, Span};
use crate::protocol::Seat;

/// Steps of a generation that come before the profile: kernels are chosen and caches filled.
const WARM: u64 = 10;

/// Where the profile of a generation stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Profile {
    /// Steps that were made in this generation.
    made: u64,
    /// The first step that is recorded, while it is.
    recording: Option<Step>,
}

impl Course<'_, '_> {
    /// Begins or ends the recording where that is due; called between steps.
    pub(super) fn profile(&mut self, next: Step) -> Result<(), Halt> {
        let steps = self.life.begin.spec.log.profile;
        if steps == 0 {
            return Ok(());
        }
        if self.profile.made == WARM {
            // A profile is worth a pause, but not the job.
            match self.life.replica.record() {
                Ok(()) => {
                    spans::record();
                    self.profile.recording = Some(next);
                }
                Err(cause) => tracing::warn!(%cause, "nothing is recorded"),
            }
        } else if self.profile.made == WARM + steps
            && let Some(first) = self.profile.recording.take()
        {
            let mut recorded = spans::recorded();
            recorded.extend(self.life.replica.recorded()?);
            let (seat, store) = (self.life.seat, self.saver.store().clone());
            let key = TraceKey { job: self.life.begin.job, generation: seat.generation, rank: seat.rank };
            let file = chrome(&recorded, seat, &self.life.begin.host, first);
            match self.life.runtime.block_on(write(&store, key, file)) {
                Ok(()) => tracing::info!(%first, steps, "profile written; `unimse trace` fetches it"),
                Err(error) => tracing::warn!(error = %error, "the profile could not be written"),
            }
        }
        self.profile.made += 1;
        Ok(())
    }
}

async fn write(store: &Store, key: TraceKey, file: Value) -> Result<(), unimse_checkpoint::Error> {
    store.put_trace(key, file.to_string().into_bytes()).await
}

/// The trace event format: one process a rank, one line a thread, times in microseconds of the wall clock, so that files of several
/// ranks can be put together.
fn chrome(spans: &[Span], seat: Seat, host: &str, first: Step) -> Value {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as f64;
    let offset = wall - spans::now() as f64;
    let rank = seat.rank.0;
    let events = spans.iter().map(|span| {
        json!({
            "name": span.name, "cat": span.category, "ph": "X", "pid": rank, "tid": span.thread,
            "ts": (span.begin as f64 + offset) / 1e3, "dur": span.end.saturating_sub(span.begin) as f64 / 1e3,
        })
    });
    let name = format!("rank {rank} on {host}");
    let named = json!({"name": "process_name", "ph": "M", "pid": rank, "args": {"name": name}});
    let ordered = json!({"name": "process_sort_index", "ph": "M", "pid": rank, "args": {"sort_index": rank}});
    let events: Vec<Value> = [named, ordered].into_iter().chain(events).collect();
    json!({"traceEvents": events, "displayTimeUnit": "ms", "first_step": first.0, "generation": seat.generation.0})
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{Generation, Rank};

    use super::*;

    #[test]
    fn a_trace_names_its_rank_and_puts_spans_on_the_wall_clock() {
        let begin = spans::now();
        let span = Span { name: "forward".into(), category: "trainer", begin, end: begin + 2_500, thread: 7 };
        let seat = Seat { generation: Generation(3), rank: Rank(1), world_size: 2 };
        let trace = chrome(&[span], seat, "box", Step(11));
        let events = trace["traceEvents"].as_array().expect("a list");
        assert_eq!(events[0]["args"]["name"], "rank 1 on box");
        assert_eq!(
            (&events[2]["name"], &events[2]["pid"], &events[2]["dur"]),
            (&json!("forward"), &json!(1), &json!(2.5))
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as f64;
        let apart = (now - events[2]["ts"].as_f64().expect("a number")).abs();
        assert!(apart < 60e6, "{apart} microseconds from now");
    }
}
