//! How the ranks agree: `train.sync`, and what it asks of other sections.

use super::super::job::{JobSpec, SyncSpec};
use super::super::raw::RawSync;
use super::{Resolver, largest_divisor};

impl Resolver<'_> {
    pub(super) fn sync(&mut self, raw: Option<&RawSync>, zero: u32) -> SyncSpec {
        let Some(raw) = raw else { return SyncSpec::default() };
        let usual = SyncSpec::default();
        let sync = SyncSpec {
            every: raw.every.unwrap_or(usual.every),
            outer_learning_rate: raw.outer_learning_rate.unwrap_or(usual.outer_learning_rate),
            outer_momentum: raw.outer_momentum.unwrap_or(usual.outer_momentum),
            precision: raw.precision.unwrap_or(usual.precision),
            rank: raw.rank.unwrap_or(usual.rank),
            warmup: raw.warmup.unwrap_or(usual.warmup),
        };
        if sync.every > 1 && sync.rank > 0 {
            let message = "`train.sync.every` and `train.sync.rank` exclude each other".to_owned();
            let help = "`every` sends whole parameters seldom, `rank` sends small factors at every step";
            self.contradiction(&["train", "sync", "rank"], message, "remove one of them", help);
        }
        for (name, used) in [("every", sync.every > 1), ("rank", sync.rank > 0)] {
            if used && zero > 0 {
                let message = format!("`train.zero` and `train.sync.{name}` exclude each other");
                let help = "with `zero` every rank needs its share of the gradients as they are, at every step";
                self.contradiction(&["train", "zero"], message, "remove one of them", help);
            }
        }
        sync
    }

    /// What only makes sense across sections where ranks train on their own between agreements.
    pub(super) fn rounds(&mut self, job: &JobSpec) {
        let every = job.train.sync.every;
        if every == 1 {
            return;
        }
        let help = "only then do all ranks hold the same numbers";
        for (path, value) in
            [(["checkpoint", "every"], job.checkpoint.every), (["train", "evaluate_every"], job.train.evaluate_every)]
        {
            if !value.is_multiple_of(every) {
                let message = format!("`{}` {value} is no multiple of `train.sync.every` {every}", path.join("."));
                let near = value.next_multiple_of(every);
                self.contradiction(&path, message, &format!("try {near}"), help);
            }
        }
        let shards = job.train.global_batch / job.train.micro_batch;
        if shards < job.resources.slots {
            let slots = job.resources.slots;
            let message = format!(
                "`train.sync.every` {every} needs work for each of {slots} slots at every step, not {shards} micro-batches"
            );
            let help = "a rank that has no samples cannot take a step of its own";
            let label = format!(
                "try `micro_batch: {}`",
                largest_divisor(job.train.global_batch, job.train.global_batch / slots.max(1))
            );
            self.contradiction(&["train", "sync", "every"], message, &label, help);
        }
        if job.model.contrastive.global {
            let message = "`model.contrastive.global` needs the gradients of all ranks at every step".to_owned();
            let help = "with `train.sync.every` above 1 negatives come from the micro-batch";
            self.contradiction(&["model", "contrastive", "global"], message, "remove it", help);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostics;
    use crate::id::Step;
    use crate::spec::parse_job;

    fn job(lines: &str) -> Result<JobSpec, Diagnostics> {
        parse_job(
            &format!("name: t\nmodel: {{preset: tiny}}\ndata: {{train: [{{path: a.arrow}}]}}\n{lines}\n"),
            "job.yaml",
        )
    }

    fn mistakes(lines: &str) -> Vec<String> {
        let brief = |found: &crate::diagnostic::Diagnostic| {
            let place =
                found.place.as_ref().map_or_else(String::new, |place| format!("{}:{} ", place.line, place.column));
            format!("{} {place}{}", found.code, found.message)
        };
        job(lines).expect_err("the file is wrong").iter().map(brief).collect()
    }

    #[test]
    fn rounds_ask_something_of_other_sections() {
        let cases = [
            (
                "train: {evaluate_every: 8, sync: {every: 4}}\ncheckpoint: {every: 10}",
                "E0110 5:21 `checkpoint.every` 10 is no multiple of `train.sync.every` 4",
            ),
            (
                "train: {sync: {every: 4, rank: 2}}",
                "E0110 4:32 `train.sync.every` and `train.sync.rank` exclude each other",
            ),
            ("train: {zero: 1, sync: {rank: 2}}", "E0110 4:15 `train.zero` and `train.sync.rank` exclude each other"),
            (
                "train: {global_batch: 32, micro_batch: 16, sync: {every: 4}}\nresources: {slots: 3}",
                "E0110 4:58 `train.sync.every` 4 needs work for each of 3 slots at every step, not 2 micro-batches",
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(mistakes(lines), [expected], "{lines}");
        }
        let rounds = job("train: {sync: {every: 50}}").expect("200 is a multiple of 50");
        assert!(rounds.train.sync.agrees_after(Step(100), 110) && rounds.train.sync.agrees_after(Step(110), 110));
        assert!(!rounds.train.sync.agrees_after(Step(101), 110));
        let plain = job("").expect("valid").train.sync;
        assert_eq!(plain, SyncSpec::default());
    }
}
