//! What people type, and what it names: an id, a unique beginning of one, a name, or `@last`.

use std::fmt::Display;
use std::str::FromStr;

use unimse_core::id::{JobId, SweepId, WorkerId};
use unimse_core::machine::State;
use unimse_proto::Error;

/// The newest of all.
const LAST: &str = "@last";

pub(crate) fn job(state: &State, text: &str) -> Result<JobId, Error> {
    let jobs = state.jobs.values().map(|job| (job.id, job.spec.name.as_str()));
    resolve(text, "job", JobId::PREFIX, jobs)
}

pub(crate) fn sweep(state: &State, text: &str) -> Result<SweepId, Error> {
    let sweeps = state.sweeps.values().map(|record| (record.id, record.sweep.spec().name.as_str()));
    resolve(text, "sweep", SweepId::PREFIX, sweeps)
}

/// A node by its name (the live one of that name, else the newest) or its worker id.
pub(crate) fn worker(state: &State, text: &str) -> Result<WorkerId, Error> {
    let named = || state.workers.values().filter(|worker| worker.info.node == text);
    let found = named().find(|worker| worker.alive()).or_else(|| named().next_back()).map(|worker| worker.id);
    let id = || text.parse().ok().filter(|id| state.workers.contains_key(id));
    found.or_else(id).ok_or_else(|| Error::NotFound { what: format!("there is no node `{text}`") })
}

/// `known` comes oldest first.
fn resolve<'a, I>(
    text: &str,
    kind: &str,
    prefix: &str,
    known: impl DoubleEndedIterator<Item = (I, &'a str)> + Clone,
) -> Result<I, Error>
where
    I: Copy + Display + FromStr + PartialEq,
{
    let missing = || Error::NotFound { what: format!("there is no {kind} `{text}`") };
    if text == LAST {
        return known
            .last()
            .map(|(id, _)| id)
            .ok_or_else(|| Error::NotFound { what: format!("there is no {kind} yet") });
    }
    if let Ok(id) = text.parse::<I>()
        && known.clone().any(|(other, _)| other == id)
    {
        return Ok(id);
    }
    // A name is what somebody chose; it wins over an id that happens to begin alike.
    if let Some((id, _)) = known.clone().rfind(|&(_, name)| name == text) {
        return Ok(id);
    }
    let typed = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or(text);
    if typed.is_empty() {
        return Err(missing());
    }
    let begins = |&(id, _): &(I, &str)| id.to_string()[prefix.len() + 1..].starts_with(typed);
    let found: Vec<I> = known.filter(begins).map(|(id, _)| id).take(10).collect();
    match found.as_slice() {
        [] => Err(missing()),
        [one] => Ok(*one),
        several => {
            let candidates = several.iter().map(I::to_string).collect();
            Err(Error::Ambiguous { text: text.to_owned(), candidates })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [(JobId, &str); 4] =
        [(JobId(0), "mosi"), (JobId(1), "meld"), (JobId(2), "mosi"), (JobId(33), "j-zzzz")];

    fn found(text: &str) -> Result<JobId, Error> {
        resolve(text, "job", JobId::PREFIX, KNOWN.into_iter())
    }

    #[test]
    fn a_job_goes_by_id_beginning_name_and_last() {
        let id = JobId(1).to_string();
        assert_eq!(found(&id), Ok(JobId(1)));
        assert_eq!(found(&id[..5]), Ok(JobId(1)));
        assert_eq!(found(&id[2..]), Ok(JobId(1)), "without j-");
        assert_eq!(found("mosi"), Ok(JobId(2)), "the newest of that name");
        assert_eq!(found("j-zzzz"), Ok(JobId(33)), "a name that looks like an id");
        assert_eq!(found("@last"), Ok(JobId(33)));
    }

    #[test]
    fn what_names_none_or_several_is_refused() {
        assert_eq!(found("nope"), Err(Error::NotFound { what: "there is no job `nope`".to_owned() }));
        assert!(matches!(found(""), Err(Error::NotFound { .. })));
        assert!(matches!(found("j-"), Err(Error::NotFound { .. })));
        // The ids of two neighbours share nothing; two that share a first letter are looked for.
        let ids: Vec<JobId> = (0..100).map(JobId).collect();
        let letter = |id: &JobId| id.to_string()[..3].to_owned();
        let twice = letter(&ids[0]);
        let alike = ids.iter().filter(|id| letter(id) == twice).count();
        assert!(alike > 1);
        match resolve(&twice, "job", JobId::PREFIX, ids.iter().map(|&id| (id, "x"))) {
            Err(Error::Ambiguous { candidates, .. }) => assert_eq!(candidates.len(), alike.min(10)),
            other => panic!("{other:?}"),
        }
    }
}
