//! Sweep files: the same checks as job files, for the sweep, for the job it varies and for every value it would try.

mod variants;

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::id::TrialId;
use crate::sweep::{
    AshaSpec, FailureSpec, MAX_TRIALS, Method, Parameter, Range, Scale, SweepSpec, VARIANT, Variant, grid,
};

use super::canonical::{strip_nulls, validate};
use super::check::{self, Checker};
use super::job::{JobSpec, MetricSpec, TrainLength};
use super::node::{Content, Document, Node, Span};
use super::raw::RawMetric;
use super::raw_sweep::{
    RawEarlyStop, RawFailure, RawJobRef, RawMethod, RawParameter, RawStopKind, RawStopper, RawSweepSpec, RawVariant,
};
use super::{schema, yaml};

/// Every trial is checked before the first one starts, up to this many.
const CHECKED_TRIALS: u32 = 256;

/// A job file that a sweep names, as the caller read it.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// Its name for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Parses and checks a sweep file.
///
/// `resolve` is asked once when the sweep names its job by file; it gets the name as written and returns the file or the reason
/// why there is none.
pub fn parse_sweep(
    text: &str,
    source_name: &str,
    resolve: &mut dyn FnMut(&str) -> Result<JobFile, String>,
) -> Result<SweepSpec, Diagnostics> {
    let document = yaml::parse(text, source_name)?;
    let (spec, job) = read(&document, resolve)?;
    check_trials(&spec, &job, &document)?;
    Ok(spec)
}

impl Serialize for SweepSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = raw(self);
        let mut value = serde_json::to_value(&raw).map_err(serde::ser::Error::custom)?;
        strip_nulls(&mut value);
        if let Some(variants) = &raw.variants {
            // Here a null says something: it takes back what the job has.
            value["variants"] = serde_json::to_value(variants).map_err(serde::ser::Error::custom)?;
        }
        value.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SweepSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Document::from_value(&Value::deserialize(deserializer)?);
        let refuse = &mut |name: &str| Err(format!("`{name}` is a file; a stored sweep holds its job"));
        read(&document, refuse).map(|(spec, _)| spec).map_err(D::Error::custom)
    }
}

impl SweepSpec {
    /// The job of one trial, named `<sweep>-<trial>`.
    pub fn trial_job(&self, trial: TrialId) -> Result<JobSpec, Diagnostics> {
        let mut document = Document::from_value(&self.job);
        for (path, value) in self.overrides(trial) {
            let segments: Vec<&str> = path.split('.').collect();
            document.insert(&segments, &[], Node::from_value(&value));
        }
        let name = format!("{}-{trial}", self.name);
        document.insert(&["name"], &[], Node::from_value(&name.into()));
        validate(&document)
    }
}

/// Reads the sweep, and the job as a document of its own.
fn read(
    document: &Document,
    resolve: &mut dyn FnMut(&str) -> Result<JobFile, String>,
) -> Result<(SweepSpec, Document), Diagnostics> {
    let all =
        |found: Vec<Diagnostic>| Diagnostics::check(found).expect_err("an error always comes with what was found");
    let value = check::check(document, &schema::SWEEP).map_err(all)?;
    let raw: RawSweepSpec = serde_json::from_value(value).map_err(|error| {
        Diagnostic::new(Code::WrongType, format!("the sweep passed its schema and still could not be read: {error}"))
    })?;
    let method = match raw.method {
        RawMethod::Grid => Method::Grid,
        RawMethod::Random => Method::Random,
        RawMethod::Tpe | RawMethod::Pbt => {
            let diagnostic =
                Diagnostic::new(Code::NotYet, "this version has no `tpe` and no `pbt`").label("not there yet");
            return Err(document.blame(&["method"], diagnostic.help("use `random`, with `early_stop: asha`")).into());
        }
    };
    let job_document = job_document(document, &raw, resolve)?;
    let job = validate(&job_document)?;
    let mut reader = Reader { document, found: Vec::new() };
    let spec = reader.sweep(raw, method, &job, &job_document);
    Diagnostics::check(reader.found)?;
    Ok((spec, job_document))
}

fn job_document(
    document: &Document,
    raw: &RawSweepSpec,
    resolve: &mut dyn FnMut(&str) -> Result<JobFile, String>,
) -> Result<Document, Diagnostics> {
    let Some(name) = raw.job.0.as_str() else {
        let root = document.root.get("job").cloned().unwrap_or(Node { content: Content::Null, span: None });
        return Ok(Document { sources: document.sources.clone(), root });
    };
    match resolve(name) {
        Ok(file) => yaml::parse(&file.text, &file.name),
        Err(reason) => {
            let diagnostic =
                Diagnostic::new(Code::Unresolved, format!("cannot read the job file `{}`", name.escape_debug()));
            let diagnostic = diagnostic.label(reason).help("the path is relative to the sweep file");
            Err(document.blame(&["job"], diagnostic).into())
        }
    }
}

struct Reader<'a> {
    document: &'a Document,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn report(&mut self, path: &[&str], diagnostic: Diagnostic) {
        self.found.push(self.document.blame(path, diagnostic));
    }

    fn sweep(&mut self, raw: RawSweepSpec, method: Method, job: &JobSpec, job_document: &Document) -> SweepSpec {
        let metric = MetricSpec { name: raw.metric.name, goal: raw.metric.goal };
        if metric.name.starts_with("valid/") && job.data.valid.is_empty() {
            let message = format!("nothing will ever report `{}`: the job has no `data.valid`", metric.name);
            let diagnostic = Diagnostic::new(Code::Contradiction, message).help("give the job a validation set");
            self.report(&["metric", "name"], diagnostic);
        }
        let mut parameters = BTreeMap::new();
        for (path, raw) in raw.parameters {
            if let Some(parameter) = self.parameter(&path, &raw, method) {
                parameters.insert(path, parameter);
            }
        }
        let variants = self.variants(raw.variants.unwrap_or_default(), &parameters);
        if parameters.is_empty() && variants.is_empty() && self.found.is_empty() {
            let diagnostic = Diagnostic::new(Code::Missing, "`parameters` names nothing to vary");
            self.report(
                &["parameters"],
                diagnostic.help("such as train.learning_rate: {min: 1e-5, max: 1e-3, scale: log}"),
            );
        }
        let max_trials = self.max_trials(method, raw.max_trials, &parameters, variants.len());
        let on_failure = raw.on_failure.unwrap_or_default();
        SweepSpec {
            name: raw.name,
            job: job_document.root.to_value(),
            method,
            metric,
            parameters,
            variants,
            early_stop: raw.early_stop.and_then(|stop| self.early_stop(stop.0, job)),
            max_trials,
            parallel: raw.parallel.unwrap_or(4),
            seed: raw.seed.unwrap_or(0),
            on_failure: FailureSpec { retry: on_failure.retry.unwrap_or(1), max_failed: on_failure.max_failed },
        }
    }

    fn max_trials(
        &mut self,
        method: Method,
        asked: Option<u32>,
        parameters: &BTreeMap<String, Parameter>,
        variants: usize,
    ) -> u32 {
        if method == Method::Random {
            if asked.is_none() {
                let diagnostic = Diagnostic::new(Code::Missing, "a random sweep needs `max_trials`");
                self.report(&[], diagnostic.label("add `max_trials: 20`"));
            }
            return asked.unwrap_or(1);
        }
        match grid::size(parameters).and_then(|size| size.checked_mul(variants.max(1) as u64)) {
            Some(size) if size <= u64::from(MAX_TRIALS) => asked.map_or(size as u32, |asked| asked.min(size as u32)),
            size => {
                let size = size.map_or_else(|| "more than 2^64".to_owned(), |size| size.to_string());
                let message = format!("the grid has {size} points, the limit is {MAX_TRIALS}");
                let variants = (variants > 0).then(|| format!("variants: {variants}"));
                let factors: Vec<String> = parameters
                    .iter()
                    .map(|(path, p)| {
                        format!("{path}: {}", p.len().map_or_else(|| "?".to_owned(), |len| len.to_string()))
                    })
                    .chain(variants)
                    .collect();
                let diagnostic = Diagnostic::new(Code::TooMany, message)
                    .help(factors.join(", "))
                    .help("use fewer values, or `method: random` with `max_trials`");
                self.report(&["parameters"], diagnostic);
                1
            }
        }
    }

    fn early_stop(&mut self, raw: RawStopper, job: &JobSpec) -> Option<AshaSpec> {
        if raw.kind != RawStopKind::Asha {
            let diagnostic = Diagnostic::new(Code::NotYet, "this version stops early by `asha` only");
            self.report(&["early_stop"], diagnostic.label("not there yet").help("write `early_stop: asha`"));
            return None;
        }
        let total = match job.train.length {
            TrainLength::Steps(steps) => Some(steps),
            TrainLength::Epochs(_) => None,
        };
        let max_steps = raw.max_steps.or(total);
        let min_steps = raw.min_steps.unwrap_or(job.train.evaluate_every);
        if max_steps.is_some_and(|max| min_steps >= max) {
            let max = max_steps.unwrap_or_default();
            let message = format!("the first rung at step {min_steps} is not before the end at step {max}");
            let help = "set early_stop: {type: asha, min_steps: ...} to a fraction of the job's steps";
            self.report(&["early_stop", "min_steps"], Diagnostic::new(Code::Contradiction, message).help(help));
        }
        Some(AshaSpec { min_steps, factor: raw.factor.unwrap_or(3), max_steps })
    }

    /// Reads one parameter, with its values checked by the schema of the field it varies.
    fn parameter(&mut self, path: &str, raw: &RawParameter, method: Method) -> Option<Parameter> {
        let at = ["parameters", path];
        if path == "name" || path == VARIANT {
            let diagnostic = Diagnostic::new(Code::Contradiction, format!("`{path}` cannot be varied"));
            let help = if path == "name" { "trials are named after the sweep" } else { "list them under `variants`" };
            self.report(&at, diagnostic.help(help));
            return None;
        }
        let entry = self.document.root.get("parameters").and_then(|all| all.entry(path));
        let span = entry.and_then(|entry| entry.key_span);
        let mut checker = Checker::new(self.document, &schema::JOB);
        let Some(target) = checker.field_at(path, span) else {
            self.found.append(&mut checker.found);
            return None;
        };
        let node = entry.map(|entry| &entry.value);
        let field = |name: &str| node.and_then(|node| node.get(name));
        let mut checker = checker.below(path);
        if let Some(Content::List(items)) = field("values").map(|values| &values.content) {
            let values = items.iter().map(|item| checker.value(target, item, item.span)).collect();
            let clean = checker.found.is_empty();
            self.found.append(&mut checker.found);
            if raw.min.is_some() || raw.max.is_some() || raw.step.is_some() || raw.scale.is_some() {
                let message = format!("`{path}` has `values` and a range");
                self.report(&at, Diagnostic::new(Code::Contradiction, message).help("keep one of them"));
            }
            return clean.then_some(Parameter::Values(values));
        }
        let (Some(min), Some(max)) = (raw.min, raw.max) else {
            let diagnostic = Diagnostic::new(Code::Missing, format!("`{path}` needs `values`, or `min` and `max`"));
            self.report(&at, diagnostic.label("what should be tried?"));
            return None;
        };
        for bound in ["min", "max"].into_iter().filter_map(field) {
            checker.value(target, bound, bound.span);
        }
        let clean = checker.found.is_empty();
        self.found.append(&mut checker.found);
        if !clean {
            return None;
        }
        let leaves = schema::leaves(&schema::JOB, target);
        let integer = leaves.iter().any(|leaf| schema::allows(leaf, "integer"));
        let range = Range { min, max, scale: raw.scale.unwrap_or(Scale::Lin), step: raw.step, integer };
        if let Err((name, reason)) = range.check(method) {
            let message = format!("the range of `{path}` makes no sense");
            let at = if field(name).is_some() { vec!["parameters", path, name] } else { at.to_vec() };
            self.report(&at, Diagnostic::new(Code::Contradiction, message).label(reason));
            return None;
        }
        Some(Parameter::Range(range))
    }
}

/// Builds the trials' jobs and shows the first one that is wrong, at the parameters that make it so.
fn check_trials(spec: &SweepSpec, job: &Document, document: &Document) -> Result<(), Diagnostics> {
    let mut base = job.clone();
    let shift = base.sources.len();
    base.sources.extend(document.sources.iter().cloned());
    let variant = |trial: TrialId| match document.root.get("variants").map(|node| &node.content) {
        Some(Content::List(items)) => items.get(spec.variant(trial)?),
        _ => None,
    };
    let key = |trial: TrialId, path: &str| -> Option<Span> {
        let of_variant = || variant(trial)?.get("set")?.entry(path);
        let span = document.root.get("parameters").and_then(|all| all.entry(path)).or_else(of_variant)?.key_span?;
        Some(Span { source: span.source + shift, ..span })
    };
    for trial in (0..spec.trial_count().min(CHECKED_TRIALS)).map(TrialId) {
        let mut document = base.clone();
        let overrides = spec.overrides(trial);
        for (path, value) in &overrides {
            let segments: Vec<&str> = path.split('.').collect();
            let span = key(trial, path);
            let spans = vec![span; segments.len()];
            document.insert(&segments, &spans, Node { span, ..Node::from_value(value) });
        }
        if let Err(found) = validate(&document) {
            let words: Vec<String> = spec.shown(trial).iter().map(|(path, value)| format!("{path}={value}")).collect();
            let help = format!("in trial {trial}: {}", words.join(", "));
            let found = found.into_iter().map(|diagnostic| diagnostic.help(help.clone())).collect();
            return Diagnostics::check(found);
        }
    }
    Ok(())
}

fn raw(spec: &SweepSpec) -> RawSweepSpec {
    let parameter = |parameter: &Parameter| match parameter {
        Parameter::Values(values) => RawParameter { values: Some(values.clone()), ..RawParameter::default() },
        Parameter::Range(range) => RawParameter {
            values: None,
            min: Some(range.min),
            max: Some(range.max),
            scale: Some(range.scale),
            step: range.step,
        },
    };
    let early_stop = |asha: AshaSpec| {
        let AshaSpec { min_steps, factor, max_steps } = asha;
        RawEarlyStop(RawStopper {
            kind: RawStopKind::Asha,
            min_steps: Some(min_steps),
            factor: Some(factor),
            max_steps,
        })
    };
    let variant = |variant: &Variant| RawVariant { name: variant.name.clone(), set: variant.set.clone() };
    let variants: Vec<RawVariant> = spec.variants.iter().map(variant).collect();
    RawSweepSpec {
        name: spec.name.clone(),
        job: RawJobRef(spec.job.clone()),
        method: if spec.method == Method::Grid { RawMethod::Grid } else { RawMethod::Random },
        metric: RawMetric { name: spec.metric.name.clone(), goal: spec.metric.goal },
        parameters: spec.parameters.iter().map(|(path, value)| (path.clone(), parameter(value))).collect(),
        variants: (!variants.is_empty()).then_some(variants),
        early_stop: spec.early_stop.map(early_stop),
        max_trials: Some(spec.max_trials),
        parallel: Some(spec.parallel),
        seed: Some(spec.seed),
        on_failure: Some(RawFailure { retry: Some(spec.on_failure.retry), max_failed: spec.on_failure.max_failed }),
    }
}
