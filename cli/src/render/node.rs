//! Workers and what runs on them.

use unimse_core::time::Timestamp;
use unimse_core::view::NodeView;

use super::job::state;
use super::table::{Column, Table};
use super::time::short;

/// Sets workers below each other.
pub(crate) fn list(nodes: &[NodeView], now: Timestamp) -> Table {
    let mut table = Table::new([
        ("node", Column::Left),
        ("id", Column::Left),
        ("state", Column::Left),
        ("used", Column::Right),
        ("slots", Column::Left),
        ("host", Column::Left),
        ("up", Column::Right),
        ("heard", Column::Right),
        ("jobs", Column::Note),
    ]);
    for node in nodes {
        let used = node.slots.iter().filter(|slot| slot.job.is_some()).count();
        let heard = node.heard.map_or_else(|| "-".to_owned(), |heard| format!("{} ago", short(now.since(heard))));
        let note = if node.reason.is_empty() { jobs(node) } else { node.reason.clone() };
        table.row([
            node.node.clone().into(),
            node.worker.to_string().into(),
            state(&node.state),
            format!("{used}/{}", node.slots.len()).into(),
            kinds(node).into(),
            node.host.clone().into(),
            short(now.since(node.joined)).into(),
            heard.into(),
            note.into(),
        ]);
    }
    table
}

/// Says what the slots are, equal ones together: `8x gpu NVIDIA H100`.
fn kinds(node: &NodeView) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for slot in &node.slots {
        // `gpu3 NVIDIA H100` and `gpu4 NVIDIA H100` are the same thing twice.
        let what = match slot.what.split_once(' ') {
            Some((index, name)) if index.starts_with("gpu") => name.to_owned(),
            _ => slot.what.clone(),
        };
        match kinds.iter_mut().find(|(known, _)| *known == what) {
            Some((_, count)) => *count += 1,
            None => kinds.push((what, 1)),
        }
    }
    let words = kinds.into_iter().map(|(what, count)| if count == 1 { what } else { format!("{count} x {what}") });
    words.collect::<Vec<_>>().join(", ")
}

/// Names the jobs on a worker with their ranks.
fn jobs(node: &NodeView) -> String {
    let mut jobs: Vec<(String, Vec<String>)> = Vec::new();
    for slot in &node.slots {
        let Some(job) = slot.job else { continue };
        let rank = slot.rank.map_or_else(|| "?".to_owned(), |rank| rank.to_string());
        match jobs.iter_mut().find(|(known, _)| *known == job.to_string()) {
            Some((_, ranks)) => ranks.push(rank),
            None => jobs.push((job.to_string(), vec![rank])),
        }
    }
    let words = jobs.into_iter().map(|(job, ranks)| {
        let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
        format!("{job} {noun} {}", ranks.join(","))
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use unimse_core::id::{JobId, Rank, WorkerId};
    use unimse_core::view::SlotView;

    use super::super::job::tests::NOW;
    use super::*;

    #[test]
    fn equal_slots_are_counted_and_jobs_named_with_their_ranks() {
        let slot = |slot: u32, job: Option<u32>| SlotView {
            slot,
            what: format!("gpu{slot} NVIDIA H100"),
            job: job.map(JobId),
            rank: job.map(|_| Rank(slot)),
        };
        let node = NodeView {
            worker: WorkerId(0),
            node: "lab1".into(),
            host: "10.0.0.1".into(),
            version: "0.1.0".into(),
            state: "alive".into(),
            reason: String::new(),
            slots: vec![slot(0, Some(1)), slot(1, Some(1)), slot(2, None)],
            joined: Timestamp(NOW.0 - 120_000),
            heard: Some(Timestamp(NOW.0 - 1000)),
        };
        let (id, job) = (node.worker, JobId(1));
        let expected = format!(
            "\
NODE  ID      STATE  USED  SLOTS            HOST      UP   HEARD  JOBS
lab1  {id}  alive   2/3  3 x NVIDIA H100  10.0.0.1  2m  1s ago  {job} ranks 0,1
"
        );
        assert_eq!(anstream::adapter::strip_str(&list(&[node], NOW).render(None)).to_string(), expected);
    }
}
