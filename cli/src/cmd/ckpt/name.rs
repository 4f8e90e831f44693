//! Names of checkpoints: `j-7k2m:best`, `j-7k2m:latest`, `j-7k2m:1200`.

use unimse_core::id::Step;
use unimse_core::view::CheckpointView;
use unimse_proto::client::Client;

use crate::error::{Error, Result};

/// Which checkpoint of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Best,
    Latest,
    Step(Step),
}

/// Finds the checkpoint that a text names; a job alone means its newest.
pub(crate) async fn find(client: &Client, text: &str) -> Result<CheckpointView> {
    let (job, which) = parse(text)?;
    look_up(client, job, which.unwrap_or(Which::Latest)).await
}

/// The same, where guessing would be dangerous: the checkpoint has to be named.
pub(super) async fn find_exactly(client: &Client, text: &str) -> Result<CheckpointView> {
    let (job, which) = parse(text)?;
    let which = which.ok_or_else(|| Error::Usage {
        message: format!("`{text}` names a job, not one of its checkpoints"),
        hint: format!("write {text}:STEP, {text}:latest or {text}:best; `unimse ckpt ls {text}` lists them"),
    })?;
    look_up(client, job, which).await
}

fn parse(text: &str) -> Result<(&str, Option<Which>)> {
    let Some((job, which)) = text.rsplit_once(':') else { return Ok((text, None)) };
    let which = match which {
        "best" => Which::Best,
        "latest" => Which::Latest,
        step => Which::Step(step.parse().map_err(|_| Error::Usage {
            message: format!("`{which}` in `{text}` is no checkpoint"),
            hint: format!("write {job}:best, {job}:latest or {job}:STEP"),
        })?),
    };
    Ok((job, Some(which)))
}

async fn look_up(client: &Client, job: &str, which: Which) -> Result<CheckpointView> {
    let checkpoints = client.checkpoints(job).await?;
    choose(&checkpoints, which).cloned().ok_or_else(|| missing(job, which, &checkpoints))
}

fn choose(checkpoints: &[CheckpointView], which: Which) -> Option<&CheckpointView> {
    match which {
        Which::Best => checkpoints.iter().find(|checkpoint| checkpoint.best),
        Which::Latest => checkpoints.iter().find(|checkpoint| checkpoint.latest),
        // Several generations may have saved the same step; the newest counts.
        Which::Step(step) => checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.step == step && checkpoint.state != "deleting")
            .max_by_key(|checkpoint| checkpoint.generation),
    }
}

fn missing(job: &str, which: Which, checkpoints: &[CheckpointView]) -> Error {
    let which = match which {
        Which::Best => "that has been evaluated".to_owned(),
        Which::Latest => "that can be used".to_owned(),
        Which::Step(step) => format!("of step {step}"),
    };
    let steps: Vec<String> = checkpoints.iter().map(|checkpoint| checkpoint.step.to_string()).collect();
    let hint = if steps.is_empty() {
        "it has none at all yet; `checkpoint.every` says when it saves".to_owned()
    } else {
        format!("there are those of steps {}", steps.join(", "))
    };
    Error::NotFound { message: format!("{job} has no checkpoint {which}"), hint }
}

#[cfg(test)]
mod tests {
    use unimse_core::id::Generation;

    use super::*;
    use crate::exit::Exit;
    use crate::render::checkpoint::tests::checkpoint;

    #[test]
    fn a_name_is_a_job_and_perhaps_which_checkpoint_of_it() {
        assert_eq!(parse("j-7k2m").expect("a job"), ("j-7k2m", None));
        assert_eq!(parse("mosi:best").expect("a name"), ("mosi", Some(Which::Best)));
        assert_eq!(parse("@last:1200").expect("a step"), ("@last", Some(Which::Step(Step(1200)))));
        let error = parse("j-7k2m:newest").expect_err("no such word");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("j-7k2m:latest"), "{error}");
    }

    #[test]
    fn of_two_generations_the_newer_counts() {
        let newer = CheckpointView { generation: Generation(3), ..checkpoint(200) };
        let all = [checkpoint(200), newer.clone(), checkpoint(400)];
        assert_eq!(choose(&all, Which::Step(Step(200))), Some(&newer));
        assert_eq!(choose(&all, Which::Best), None);
    }

    #[test]
    fn what_is_missing_is_told_with_what_is_there() {
        let error = missing("j-7k2m", Which::Step(Step(300)), &[checkpoint(200), checkpoint(400)]);
        assert_eq!(error.to_string(), "j-7k2m has no checkpoint of step 300\nhint: there are those of steps 200, 400");
        assert_eq!(error.exit(), Exit::NotFound);
    }
}
