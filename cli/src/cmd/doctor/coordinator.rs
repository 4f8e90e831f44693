//! What the coordinator says of the cluster, and whether this machine agrees with it.

use std::time::{Duration, Instant};

use unimse_core::time::Timestamp;
use unimse_core::view::NodeView;
use unimse_proto::client::{Client, Info};

use super::{Check, Verdict};
use crate::context::{self, Context};
use crate::error::{Error, Result};
use crate::render::amount::count;
use crate::render::time::short;

/// Clocks further apart than this make times and ages lie.
const SKEW: Duration = Duration::from_secs(2);

pub(super) async fn checks(context: &Context) -> Vec<Check> {
    match look(context).await {
        Ok(checks) => checks,
        Err(error) => {
            let text = error.to_string();
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
            let check = Check::new(
                Verdict::Fail,
                format!("{what} (the address is from {})", context.settings.coordinator_origin),
            );
            vec![if hint.is_empty() { check } else { check.hint(hint) }]
        }
    }
}

async fn look(context: &Context) -> Result<Vec<Check>> {
    let client = Client::connect(&context.settings.coordinator).await?;
    let begun = Instant::now();
    let info = client.info().await?;
    let answer = begun.elapsed();
    let nodes = client.nodes().await?;
    let mut checks = vec![coordinator(context, &info, answer), workers(&info, &nodes)];
    checks.extend(versions(&nodes));
    checks.push(clocks(&nodes, info.lease, context::now()));
    checks.push(store(context, &info).await);
    Ok(checks)
}

fn coordinator(context: &Context, info: &Info, answer: Duration) -> Check {
    let what = format!(
        "coordinator {} ({}, version {}, answers in {} ms, up for {})",
        context.settings.coordinator,
        context.settings.coordinator_origin,
        info.version,
        answer.as_millis(),
        short(context::now().since(info.started))
    );
    if info.version == env!("CARGO_PKG_VERSION") {
        Check::new(Verdict::Ok, what)
    } else {
        Check::new(Verdict::Warn, what)
            .hint(format!("this program is version {}; use one version everywhere", env!("CARGO_PKG_VERSION")))
    }
}

fn workers(info: &Info, nodes: &[NodeView]) -> Check {
    let lost = nodes.iter().filter(|node| node.state == "lost").count();
    let gone = if lost > 0 { format!(", {lost} lost so far") } else { String::new() };
    let slots = count(u64::from(info.slots_total), "slot");
    let what = format!("{} with {slots}, {} in use{gone}", count(u64::from(info.workers), "worker"), info.slots_used);
    if info.workers == 0 {
        Check::new(Verdict::Fail, "no worker is there: jobs would wait for ever")
            .hint("unimse worker, on each machine that trains")
    } else {
        Check::new(Verdict::Ok, what)
    }
}

fn versions(nodes: &[NodeView]) -> Option<Check> {
    let other: Vec<String> = nodes
        .iter()
        .filter(|node| !node.is_gone() && node.version != env!("CARGO_PKG_VERSION"))
        .map(|node| format!("{} has {}", node.node, node.version))
        .collect();
    (!other.is_empty()).then(|| {
        Check::new(Verdict::Warn, format!("workers of other versions: {}", other.join(", ")))
            .hint(format!("bring them to {}", env!("CARGO_PKG_VERSION")))
    })
}

/// A living worker was heard of within the lease, by the coordinator's clock.
fn clocks(nodes: &[NodeView], lease: Duration, now: Timestamp) -> Check {
    let heard = nodes.iter().filter(|node| !node.is_gone()).filter_map(|node| node.heard).max();
    let Some(heard) = heard else { return Check::new(Verdict::Skip, "clocks: no worker to compare with") };
    let (ahead, behind) = (heard.since(now), now.since(heard).saturating_sub(lease));
    let skew = ahead.max(behind);
    if skew <= SKEW {
        return Check::new(Verdict::Ok, "the clocks of coordinator and this machine agree");
    }
    let word = if ahead > behind { "behind" } else { "ahead of" };
    Check::new(Verdict::Warn, format!("this machine's clock is {} {word} the coordinator's", short(skew)))
        .hint("times and ages are off by that; let ntp or chrony set the clocks")
}

async fn store(context: &Context, info: &Info) -> Check {
    let uri = &info.checkpoint_uri;
    let folder = uri.strip_prefix("file://").or_else(|| (!uri.contains("://")).then_some(uri.as_str()));
    if folder.is_some_and(|folder| !std::path::Path::new(folder).is_dir()) {
        return Check::new(Verdict::Skip, format!("checkpoint store {uri} is a folder that this machine does not see"));
    }
    let probed = async {
        let store = context.store(uri)?;
        Ok::<_, Error>(store.probe().await?)
    };
    match probed.await {
        Ok(report) => Check::new(
            Verdict::Ok,
            format!(
                "checkpoint store {uri}: written in {} ms, read in {} ms, create-if-absent holds",
                report.write.as_millis(),
                report.read.as_millis()
            ),
        ),
        Err(error) => {
            let text = error.to_string();
            let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, "see the store's own log"));
            Check::new(Verdict::Fail, what).hint(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use unimse_core::id::WorkerId;

    use super::*;

    fn node(heard: u64) -> NodeView {
        NodeView {
            worker: WorkerId(0),
            node: "lab1".into(),
            host: "10.0.0.1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            state: "alive".into(),
            reason: String::new(),
            slots: Vec::new(),
            joined: Timestamp(0),
            heard: Some(Timestamp(heard)),
        }
    }

    #[test]
    fn clocks_are_compared_by_when_a_worker_was_heard() {
        let verdict = |heard, now| clocks(&[node(heard)], Duration::from_secs(5), Timestamp(now)).verdict;
        assert_eq!(verdict(100_000, 100_000), Verdict::Ok);
        assert_eq!(verdict(100_000, 104_000), Verdict::Ok);
        assert_eq!(verdict(100_000, 120_000), Verdict::Warn);
        assert_eq!(verdict(100_000, 90_000), Verdict::Warn);
        assert_eq!(clocks(&[], Duration::from_secs(5), Timestamp(0)).verdict, Verdict::Skip);
    }

    #[test]
    fn a_worker_of_another_version_is_named() {
        assert_eq!(versions(&[node(0)]), None);
        let old = NodeView { version: "0.0.9".into(), ..node(0) };
        assert!(versions(&[old]).is_some_and(|check| check.what.contains("lab1 has 0.0.9")));
    }
}
