use serde_json::{Value, json};

use super::*;
use crate::diagnostic::{Code, Diagnostic};
use crate::id::{JobId, Step, TrialId};
use crate::metrics::Goal;

const MINIMAL: &str = "name: t\nmodel: {preset: tiny}\ndata: {train: [{path: a.arrow}]}\n";

const FULL: &str = r"name: mosi-meld
labels: {paper: acl27}
model:
  preset: base
  fusion: {layers: 3, bottleneck: 64, init: paper}
  contrastive: {acoustic: 0.5, visual: 0.25, temperature: 0.1, layers: 2, global: true}
  encoders: {bidirectional: true}
  trainable: adapters
  heads: {score: 1, emotion: 0.5}
  answers: heads
  lora: {rank: 8}
data:
  train: [{path: data/mosi.arrow}, {path: data/meld.arrow, weight: 0.5}]
  valid: [{path: data/mosi.arrow}, {path: data/meld.arrow}]
  tokenizer: t5/tokenizer.json
  context: {past: 2, future: 0}
  standardise: false
train:
  max_steps: 2000
  global_batch: 96
  learning_rate: 3e-4
  adapter_learning_rate: 1e-4
  dropout: 0.2
  adam: {beta2: 0.98}
  schedule: {type: cosine, warmup: 100}
  precision: bf16
  evaluate_every: 100
  seed: 7
resources: {slots: 4, min_slots: 2, priority: 80, queue: night}
checkpoint:
  every: 200
  keep: {latest: 3, best: 2}
  metric: {name: valid/mae, goal: minimize}
  uri: s3://lab/ckpt
resume: never
restart: {max: 3, backoff: 1m30s}
log: {every: 5}
limits: {time: 24h}
";

/// All mistakes of a job file as `CODE line:column message`.
fn mistakes(text: &str) -> Vec<String> {
    let found = parse_job(text, "job.yaml").expect_err("the file is wrong");
    found.iter().map(brief).collect()
}

fn brief(diagnostic: &Diagnostic) -> String {
    let place = diagnostic.place.as_ref().map_or_else(String::new, |place| format!("{}:{} ", place.line, place.column));
    format!("{} {place}{}", diagnostic.code, diagnostic.message)
}

/// The minimal job with lines added below.
fn with(lines: &str) -> String {
    format!("{MINIMAL}{lines}\n")
}

#[test]
fn three_lines_are_a_job_and_the_rest_are_defaults() {
    let job = parse_job(MINIMAL, "job.yaml").expect("the smallest job");
    assert_eq!(job.train.length, TrainLength::Epochs(20));
    assert_eq!((job.train.global_batch, job.train.micro_batch), (96, 16));
    assert_eq!(job.train.evaluate_every, job.checkpoint.every);
    assert_eq!((job.resources.slots, job.resources.min_slots, job.resources.priority), (1, 1, 50));
    assert_eq!(job.checkpoint.metric, MetricSpec { name: "valid/score".into(), goal: Goal::Maximize });
    assert_eq!(job.resume, Resume::Auto);
    assert_eq!(job.limits.time, None);
}

#[test]
fn every_field_arrives() {
    let job = parse_job(FULL, "job.yaml").expect("a full job");
    assert_eq!(job.model.source, ModelSource::Preset(Preset::Base));
    let contrastive =
        ContrastiveSpec { acoustic: 0.5, visual: 0.25, temperature: 0.1, layers: 2, global: true, legacy: false };
    assert_eq!(job.model.contrastive, contrastive);
    assert_eq!(job.model.encoders, EncoderSpec { acoustic: 64, visual: 64, bidirectional: true });
    assert_eq!(job.model.fusion.init, FusionInit::Paper);
    let heads = HeadSpec { score: 1.0, emotion: 0.5 };
    assert_eq!((job.model.heads, job.model.answers), (heads, AnswerWay::Heads));
    assert_eq!((job.model.trainable, job.model.lora), (Trainable::Adapters, LoraSpec { rank: 8, alpha: 16.0 }));
    assert_eq!((job.train.learning_rate, job.train.adapter_learning_rate), (3e-4, Some(1e-4)));
    assert_eq!(job.data.train[1], DataSource { path: "data/meld.arrow".into(), weight: 0.5 });
    assert_eq!(job.data.context, ContextSpec { past: 2, future: 0 });
    assert!(!job.data.standardise && parse_job(MINIMAL, "job.yaml").expect("valid").data.standardise);
    assert_eq!(job.train.length, TrainLength::Steps(2000));
    assert_eq!(job.train.adam, AdamSpec { beta1: 0.9, beta2: 0.98, eps: 1e-8, decoupled: true });
    assert_eq!(job.train.schedule, ScheduleSpec { kind: ScheduleKind::Cosine, warmup: 100 });
    assert_eq!((job.train.precision, job.train.dropout, job.train.seed), (Precision::Bf16, Some(0.2), 7));
    assert_eq!(job.checkpoint.keep, KeepSpec { latest: 3, best: 2 });
    assert_eq!(job.restart.backoff.as_secs(), 90);
    assert_eq!(job.limits.time.map(|time| time.as_secs()), Some(86_400));
    assert_eq!(job.resume, Resume::Never);
    assert_eq!(job.labels["paper"], "acl27");
}

#[test]
fn the_stored_form_is_a_job_file_that_means_the_same() {
    for text in [MINIMAL, FULL] {
        let job = parse_job(text, "job.yaml").expect("valid");
        let stored = serde_json::to_string(&job).expect("a job is plain data");
        assert_eq!(serde_json::from_str::<JobSpec>(&stored).expect("it reads back"), job);
        assert_eq!(parse_job(&stored, "stored.json").expect("JSON is YAML"), job);
        assert_eq!(
            serde_json::to_string(&serde_json::from_str::<JobSpec>(&stored).expect("valid")).expect("valid"),
            stored
        );
    }
}

#[test]
fn a_stored_form_from_an_untrusted_client_is_checked() {
    let job = parse_job(MINIMAL, "job.yaml").expect("valid");
    let stored = serde_json::to_value(&job).expect("plain data");
    for (pointer, bad, code) in [
        ("/train/learning_rate", json!(-1), "E0105"),
        ("/train/global_batch", json!("many"), "E0104"),
        ("/resources/slots", json!(100_000), "E0105"),
        ("/train/micro_batch", json!(7), "E0110"),
        ("/name", json!("../../etc"), "E0109"),
    ] {
        let mut value = stored.clone();
        *value.pointer_mut(pointer).expect("the field is spelled out") = bad;
        let error = serde_json::from_value::<JobSpec>(value).expect_err(pointer).to_string();
        assert!(error.contains(code), "{pointer}: {error}");
    }
}

#[test]
fn an_unknown_field_reads_like_a_compiler_message() {
    let text = "name: t\nmodel: {preset: tiny}\ndata: {train: [{path: a}]}\nresources:\n  slots: 2\n  min_slot: 2\n";
    let expected = "\
error[E0103]: unknown field `min_slot` in `resources`
 --> job.yaml:6:3
  |
6 |   min_slot: 2
  |   ^^^^^^^^ did you mean `min_slots`?
  = help: allowed: min_slots, priority, queue, slots";
    assert_eq!(parse_job(text, "job.yaml").expect_err("a typing error").to_string(), expected);
}

#[test]
fn all_mistakes_are_reported_at_once_in_order() {
    let text = "\
naem: x
model: {preset: bsae}
data: {train: []}
train:
  learning_rate: .nan
  global_batch: many
  clip: -1
  seed: 1
  seed: 2
resources: {slots: 0}
limits: {time: 30}
";
    let expected = [
        "E0106 1:1 missing field `name`",
        "E0103 1:1 unknown field `naem`",
        "E0108 2:17 unknown value `bsae` for `model.preset`",
        "E0105 3:8 `data.train` must be a list of 1 to 256",
        "E0111 5:18 `train.learning_rate` must be finite",
        "E0104 6:17 `train.global_batch` must be a whole number from 1 to 65536",
        "E0105 7:9 `train.clip` must be a number from 0 to 1000000",
        "E0107 9:3 `seed` is given twice in `train`",
        "E0105 10:20 `resources.slots` must be a whole number from 1 to 256",
        "E0104 11:16 `limits.time` must be a duration such as `30s`, `10m` or `2h`",
    ];
    let mut found = mistakes(text);
    found[..2].sort_by_key(|line| !line.contains("missing"));
    assert_eq!(found, expected);
}

#[test]
fn single_mistakes_say_what_is_wrong() {
    let cases = [
        ("train: {learning_rate: 5}", "E0105 4:24 `train.learning_rate` must be a number above 0 and at most 1"),
        ("train: {learning_rate: 1e999}", "E0111 4:24 `train.learning_rate` must be finite"),
        ("train: {max_steps: 1.5}", "E0104 4:20 `train.max_steps` must be a whole number from 1 to 1000000000"),
        ("train: {max_steps: -5}", "E0105 4:20 `train.max_steps` must be a whole number from 1 to 1000000000"),
        ("train: {max_epochs: -1}", "E0105 4:21 `train.max_epochs` must be a whole number from 1 to 1000000"),
        ("train: 5", "E0104 4:8 `train` must be a mapping"),
        ("train: {adam: {beta1: 1}}", "E0105 4:23 `train.adam.beta1` must be a number of at least 0 and below 1"),
        (
            "train: {seed: 99999999999999999999}",
            "E0105 4:15 `train.seed` must be a whole number from 0 to 9007199254740991",
        ),
        ("train: {schedule: {type: linaer}}", "E0108 4:26 unknown value `linaer` for `train.schedule.type`"),
        (
            "train: {max_steps: 10, max_epochs: 1}",
            "E0110 4:36 `train.max_steps` and `train.max_epochs` exclude each other",
        ),
        (
            "train: {cuda_graphs: true, activation_checkpointing: true}",
            "E0110 4:22 `train.cuda_graphs` and `train.activation_checkpointing` exclude each other",
        ),
        (
            "train: {global_batch: 96, micro_batch: 36}",
            "E0110 4:40 `train.micro_batch` 36 does not divide `train.global_batch` 96",
        ),
        (
            "train: {max_steps: 100, schedule: {warmup: 100}}",
            "E0110 4:44 `train.schedule.warmup` 100 leaves nothing of `train.max_steps` 100",
        ),
        ("resources: {slots: 2, min_slots: 4}", "E0110 4:34 `resources.min_slots` 4 is above `resources.slots` 2"),
        ("limits: {time: 0s}", "E0109 4:16 `limits.time` cannot be `0s`"),
        ("limits: {time: 5x}", "E0109 4:16 `limits.time` cannot be `5x`"),
        ("resume: atuo", "E0109 4:9 `resume` cannot be `atuo`"),
        ("checkpoint: {uri: s4://lab}", "E0109 4:19 `checkpoint.uri` cannot be `s4://lab`"),
        ("checkpoint: {metric: {name: valid/f1}}", "E0106 4:14 missing field `goal` in `checkpoint.metric`"),
        ("labels: {year: 2027}", "E0104 4:16 `labels.year` must be text"),
        ("learning_rate: 3e-4", "E0103 4:1 unknown field `learning_rate`"),
    ];
    for (line, expected) in cases {
        assert_eq!(mistakes(&with(line)), [expected], "{line}");
    }
}

#[test]
fn help_is_part_of_the_message() {
    let shown = |line: &str| parse_job(&with(line), "job.yaml").expect_err("wrong").to_string();
    assert!(shown("learning_rate: 3e-4").contains("did you mean `train.learning_rate`?"));
    assert!(shown("labels: {year: 2027}").contains("put quotes around it"));
    assert!(shown("resume: atuo").contains("did you mean `auto`?"));
    assert!(shown("train: {global_batch: 96, micro_batch: 36}").contains("try 32"));
    assert!(shown("train: {schedule: {type: linaer}}").contains("did you mean `linear`?"));
    assert!(shown("train: {seed: 1, seed: 2}").contains("the first one is at job.yaml:4:9"));
}

#[test]
fn a_model_comes_from_exactly_one_place() {
    let model =
        |model: &str| parse_job(&format!("name: t\nmodel: {model}\ndata: {{train: [{{path: a}}]}}"), "job.yaml");
    assert_eq!(
        model("{init: s3://lab/t5-base}").expect("valid").model.source,
        ModelSource::Init("s3://lab/t5-base".into())
    );
    let both = model("{preset: tiny, init: t5}").expect_err("both");
    assert_eq!(brief(both.first()), "E0110 2:29 `model.preset` and `model.init` exclude each other");
    let both = model("{preset: tiny, lora: {rank: 4}}").expect_err("both");
    assert_eq!(
        brief(both.first()),
        "E0110 2:23 `model.lora` updates frozen weights, but `model.trainable` trains them"
    );
    let none = model("{preset: tiny, answers: heads}").expect_err("no heads");
    assert_eq!(brief(none.first()), "E0110 2:32 `model.answers` asks heads that the model does not have");
    let neither = model("{fusion: {layers: 1}}").expect_err("neither");
    assert_eq!(brief(neither.first()), "E0106 2:1 `model` needs `preset` or `init`");
}

#[test]
fn null_and_absent_are_the_same() {
    let job =
        parse_job(&with("train: {max_steps: null, dropout: ~}\ncheckpoint:\nlabels:"), "job.yaml").expect("valid");
    assert_eq!(job, parse_job(MINIMAL, "job.yaml").expect("valid"));
    assert_eq!(
        mistakes("name:\nmodel: {preset: tiny}\ndata: {train: [{path: a}]}"),
        ["E0106 1:1 `name` must be a name"]
    );
}

#[test]
fn the_micro_batch_is_the_largest_divisor_up_to_16() {
    for (global, micro) in [(96, 16), (64, 16), (20, 10), (7, 7), (17, 1), (34, 2), (1, 1)] {
        let job = parse_job(&with(&format!("train: {{global_batch: {global}}}")), "job.yaml").expect("valid");
        assert_eq!(job.train.micro_batch, micro, "of {global}");
    }
}

#[test]
fn whole_floats_are_whole_numbers() {
    let job = parse_job(&with("train: {max_steps: 2e3, weight_decay: 0}"), "job.yaml").expect("valid");
    assert_eq!((job.train.length, job.train.weight_decay), (TrainLength::Steps(2000), 0.0));
}

#[test]
fn resume_names_a_checkpoint_or_a_place() {
    let resume = |text: &str| parse_job(&with(&format!("resume: {text}")), "job.yaml").expect("valid").resume;
    let job = JobId(12);
    let named = Resume::Checkpoint(CheckpointName { job, pick: Pick::At(Step(400)) });
    assert_eq!(resume(&format!("{job}:400")), named);
    assert_eq!(resume("s3://lab/ckpt/x"), Resume::Location("s3://lab/ckpt/x".into()));
}

#[test]
fn set_changes_fields_by_path() {
    let sets = [
        "train.learning_rate=1e-3",
        "resources.slots=8",
        "labels.note=a=b",
        "data.train.0.path=b.arrow",
        "train.seed=",
    ];
    let job = parse_job_with(FULL, "job.yaml", &sets.map(String::from)).expect("valid");
    assert_eq!((job.train.learning_rate, job.resources.slots, job.train.seed), (1e-3, 8, 42));
    assert_eq!((job.labels["note"].as_str(), job.data.train[0].path.as_str()), ("a=b", "b.arrow"));
    let epochs = ["train.max_epochs=3", "train.max_steps=null"].map(String::from);
    assert_eq!(parse_job_with(FULL, "job.yaml", &epochs).expect("valid").train.length, TrainLength::Epochs(3));
}

#[test]
fn a_mistake_in_set_is_shown_in_the_argument() {
    let found = |set: &str| parse_job_with(MINIMAL, "job.yaml", &[set.to_owned()]).expect_err("wrong");
    let expected = "\
error[E0103]: unknown field `learning_rat` in `train`
 --> --set:1:7
  |
1 | train.learning_rat=3e-4
  |       ^^^^^^^^^^^^ did you mean `learning_rate`?";
    assert!(found("train.learning_rat=3e-4").to_string().starts_with(expected), "{}", found("train.learning_rat=3e-4"));
    let cases = [
        ("train.learning_rate=fast", "E0104 1:21 `train.learning_rate` must be a number above 0 and at most 1"),
        ("train.max_steps=0", "E0105 1:17 `train.max_steps` must be a whole number from 1 to 1000000000"),
        ("train.seed", "E0112 1:1 `train.seed` has no `=`"),
        ("train..seed=1", "E0112 1:7 `train..seed` is not a dotted path"),
        ("=1", "E0112 1:1 `` is not a dotted path"),
        ("name.x=1", "E0104 1:1 `name` must be a name"),
        ("resources.min_slots=9", "E0110 1:21 `resources.min_slots` 9 is above `resources.slots` 2"),
    ];
    for (set, expected) in cases {
        let sets = ["resources.slots=2".to_owned(), set.to_owned()];
        let found = parse_job_with(MINIMAL, "job.yaml", &sets).expect_err(set);
        assert_eq!(brief(found.first()), expected, "{set}");
    }
    assert_eq!(found("train.seed=[1").first().code, Code::BadSet);
}

#[test]
fn a_stored_job_takes_sets_too() {
    let job = parse_job(FULL, "job.yaml").expect("valid");
    let changed = apply_sets(&job, &["train.learning_rate=1e-5".to_owned()]).expect("valid");
    assert_eq!(changed.train.learning_rate, 1e-5);
    assert_eq!(changed.train.micro_batch, job.train.micro_batch);
    let error = apply_sets(&job, &["train.global_batch=100".to_owned()]).expect_err("the micro-batch stays 16");
    assert_eq!(error.first().code, Code::Contradiction);
}

#[test]
fn hostile_files_are_refused_quickly_and_never_panic() {
    let mut texts = vec![
        String::new(),
        "~".into(),
        "[]".into(),
        "5".into(),
        "\u{0}".into(),
        "? [a]\n: b".into(),
        "{a: {b: {c: d}}, a: 1}".into(),
        format!("{MINIMAL}x: {}", "[".repeat(10_000)),
        format!("name: {}", "x".repeat(2 << 20)),
        format!("labels: &a {{x: {}}}", "*a".repeat(50)),
        "name: !!binary aGk=\nmodel: !custom {preset: tiny}".into(),
    ];
    // A prefix of a valid file is a good source of half-written ones.
    texts.extend((0..FULL.len()).step_by(7).map(|end| FULL[..end].to_owned()));
    for text in texts {
        if let Err(found) = parse_job(&text, "job.yaml") {
            assert!(!found.to_string().is_empty());
        }
    }
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_read_but_never_panics(
        cuts in proptest::collection::vec((0..FULL.len(), 0_usize..6, "[\\PC\n\t]{0,4}"), 1..6),
    ) {
        let mut text = FULL.to_owned();
        for (at, length, new) in cuts {
            let chars: Vec<char> = text.chars().collect();
            let [at, end] = [at, at + length].map(|at| at.min(chars.len()));
            text = chars[..at].iter().chain(&new.chars().collect::<Vec<_>>()).chain(&chars[end..]).collect();
        }
        match parse_job(&text, "job.yaml") {
            Ok(job) => {
                let stored = serde_json::to_string(&job).expect("plain data");
                proptest::prop_assert_eq!(serde_json::from_str::<JobSpec>(&stored).expect("it reads back"), job);
            }
            Err(found) => proptest::prop_assert!(found.to_string().starts_with("error[E01")),
        }
    }
}

#[test]
fn defaults_in_the_schema_are_the_defaults_in_fact() {
    fn walk(root: &Value, schema: &Value, actual: &Value, path: &str, seen: &mut u32) {
        for leaf in schema::leaves(root, schema) {
            for (name, field) in leaf.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let path = format!("{path}/{name}");
                let value = &actual[name];
                if let Some(default) = field.get("default").filter(|default| !default.is_null()) {
                    assert!(
                        value == default || value.as_f64() == default.as_f64() && value.is_number(),
                        "{path}: {value}"
                    );
                    *seen += 1;
                }
                walk(root, field, value, &path, seen);
            }
        }
    }
    let actual = serde_json::to_value(parse_job(MINIMAL, "job.yaml").expect("valid")).expect("plain data");
    let schema = schema_job();
    let mut seen = 0;
    walk(&schema, &schema, &actual, "", &mut seen);
    assert!(seen >= 25, "only {seen} defaults were compared");
}

#[test]
fn the_schema_is_draft_07_with_descriptions_and_closed_objects() {
    for schema in [schema_job(), schema_sweep()] {
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert_eq!(schema["additionalProperties"], false);
        for (name, field) in schema["properties"].as_object().expect("fields") {
            let described = field.get("description").or_else(|| field.pointer("/allOf/0/description")).is_some();
            assert!(described, "`{name}` has no description: {field}");
        }
    }
}

// Sweeps.

const SWEEP: &str = "\
name: mosi-lr
job: job.yaml
method: grid
metric: {name: valid/mae, goal: minimize}
parameters:
  train.learning_rate: {values: [1e-4, 3e-4]}
  model.fusion.layers: {min: 1, max: 3}
";

const JOB: &str = "\
name: base
model: {preset: tiny}
data: {train: [{path: a.arrow}], valid: [{path: a.arrow}]}
train: {max_steps: 900, evaluate_every: 100}
";

fn sweep(text: &str) -> Result<crate::sweep::SweepSpec, Diagnostics> {
    parse_sweep(text, "sweep.yaml", &mut |name| {
        if name == "job.yaml" {
            Ok(JobFile { name: "configs/job.yaml".into(), text: JOB.into() })
        } else {
            Err("no such file".into())
        }
    })
}

fn sweep_mistakes(text: &str) -> Vec<String> {
    sweep(text).expect_err("the file is wrong").iter().map(brief).collect()
}

#[test]
fn a_sweep_varies_fields_of_its_job() {
    let spec = sweep(SWEEP).expect("valid");
    assert_eq!(spec.trial_count(), 6);
    let job = spec.trial_job(TrialId(4)).expect("valid");
    assert_eq!(job.name, "mosi-lr-4");
    // model.fusion.layers comes first in the alphabet, so train.learning_rate varies fastest.
    assert_eq!((job.model.fusion.layers, job.train.learning_rate), (3, 1e-4));
    let stored = serde_json::to_string(&spec).expect("plain data");
    assert_eq!(serde_json::from_str::<crate::sweep::SweepSpec>(&stored).expect("it reads back"), spec);
}

#[test]
fn a_job_may_stand_in_the_sweep_itself() {
    let inline = SWEEP.replace(
        "job: job.yaml",
        "job: {name: b, model: {preset: tiny}, data: {train: [{path: a}], valid: [{path: a}]}}",
    );
    assert_eq!(sweep(&inline).expect("valid").trial_count(), 6);
    let wrong = inline.replace("preset: tiny", "preset: tny");
    assert_eq!(sweep_mistakes(&wrong), ["E0108 2:32 unknown value `tny` for `job.model.preset`"]);
}

#[test]
fn a_sweep_says_what_is_wrong() {
    let cases = [
        ("goal: minimize", "goal: down", "E0108 4:33 unknown value `down` for `metric.goal`"),
        (", goal: minimize", "", "E0106 4:1 missing field `goal` in `metric`"),
        ("method: grid", "method: tpe", "E0113 3:9 this version has no `tpe` and no `pbt`"),
        ("job: job.yaml", "job: other.yaml", "E0115 2:6 cannot read the job file `other.yaml`"),
        ("learning_rate", "learning_rat", "E0103 6:9 unknown field `learning_rat` in `train`"),
        ("1e-4, 3e-4", "1e-4, fast", "E0104 6:40 `train.learning_rate` must be a number above 0 and at most 1"),
        ("1e-4, 3e-4", "1e-4, .nan", "E0111 6:40 `train.learning_rate` must be finite"),
        ("1e-4, 3e-4", "", "E0105 6:25 `parameters.train.learning_rate.values` must be a list of 1 to 10000"),
        ("min: 1, max: 3", "min: 3, max: 1", "E0110 7:38 the range of `model.fusion.layers` makes no sense"),
        ("min: 1, max: 3", "min: 1, max: 2.5", "E0104 7:38 `model.fusion.layers` must be a whole number from 0 to 48"),
        ("min: 1, max: 3", "min: 1", "E0106 7:3 `model.fusion.layers` needs `values`, or `min` and `max`"),
        (
            "values: [1e-4, 3e-4]",
            "min: 1e-5, max: 1e-3, scale: log",
            "E0110 6:30 the range of `train.learning_rate` makes no sense",
        ),
        (
            "min: 1, max: 3",
            "min: 0, max: 3, scale: log",
            "E0110 7:30 the range of `model.fusion.layers` makes no sense",
        ),
        ("parameters:", "parameters:\n  name: {values: [x]}", "E0110 6:3 `name` cannot be varied"),
        ("method: grid", "method: random", "E0106 1:1 a random sweep needs `max_trials`"),
        ("method: grid", "method: grid\nearly_stop: median", "E0113 4:13 this version stops early by `asha` only"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(sweep_mistakes(&SWEEP.replacen(from, to, 1)), [expected], "{to}");
    }
}

#[test]
fn a_value_that_contradicts_the_job_is_found_before_any_trial_starts() {
    let text = SWEEP.replace("model.fusion.layers: {min: 1, max: 3}", "train.schedule.warmup: {values: [0, 1000]}");
    let found = sweep(&text).expect_err("the warm-up is longer than the job");
    assert_eq!(brief(found.first()), "E0110 7:3 `train.schedule.warmup` 1000 leaves nothing of `train.max_steps` 900");
    assert!(
        found.to_string().contains("in trial 1: train.learning_rate=0.0001, train.schedule.warmup=1000"),
        "{found}"
    );
}

#[test]
fn a_default_that_depends_on_a_parameter_follows_it() {
    let text = SWEEP.replace("model.fusion.layers: {min: 1, max: 3}", "train.global_batch: {values: [32, 20]}");
    let spec = sweep(&text).expect("20 is not divided by the 16 that 96 would get");
    let micro = |trial| spec.trial_job(TrialId(trial)).expect("valid").train.micro_batch;
    assert_eq!((micro(0), micro(2)), (16, 10));
}

#[test]
fn a_gigantic_grid_is_refused_by_its_size_before_it_is_expanded() {
    let thousand = "{min: 0.001, max: 1, step: 0.001}";
    let text = SWEEP.replace("{values: [1e-4, 3e-4]}", thousand).replace("model.fusion.layers: {min: 1, max: 3}", "");
    let text = text + &format!("  train.weight_decay: {thousand}\n  train.adam.eps: {thousand}\n");
    let found = sweep(&text).expect_err("10^9 points");
    assert_eq!(brief(found.first()), "E0114 5:1 the grid has 1000000000 points, the limit is 10000");
    let tiny = text.replace("step: 0.001", "step: 1e-300");
    assert_eq!(
        brief(sweep(&tiny).expect_err("no end").first()),
        "E0114 5:1 the grid has more than 2^64 points, the limit is 10000"
    );
}

#[test]
fn early_stop_is_a_word_or_a_mapping() {
    let asha = |line: &str| sweep(&format!("{SWEEP}{line}\n")).map(|spec| spec.early_stop);
    let spec = |min_steps, factor, max_steps| Some(crate::sweep::AshaSpec { min_steps, factor, max_steps });
    assert_eq!(asha("early_stop: asha").expect("valid"), spec(100, 3, Some(900)));
    assert_eq!(
        asha("early_stop: {type: asha, min_steps: 50, factor: 4, max_steps: 800}").expect("valid"),
        spec(50, 4, Some(800))
    );
    let found = asha("early_stop: {type: asha, min_steps: 900}").expect_err("no rung at all");
    assert_eq!(brief(found.first()), "E0110 8:37 the first rung at step 900 is not before the end at step 900");
    let found = asha("early_stop: ahsa").expect_err("a typing error");
    assert!(found.to_string().contains("did you mean `asha`?"), "{found}");
}

#[test]
fn every_shipped_file_is_valid() {
    let configs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    let files = |folder: &str| {
        let entries = std::fs::read_dir(configs.join(folder)).expect("the folder exists");
        let paths = entries
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        let mut paths: Vec<_> = paths.collect();
        paths.sort();
        assert!(paths.len() >= 2, "{folder} holds {} files", paths.len());
        paths
    };
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("readable");
    for path in files("jobs") {
        let name = path.display().to_string();
        parse_job(&read(&path), &name).unwrap_or_else(|found| panic!("{found}"));
    }
    for path in files("sweeps") {
        let name = path.display().to_string();
        let mut resolve = |job: &str| {
            let job = path.parent().expect("it lies in a folder").join(job);
            let text = std::fs::read_to_string(&job).map_err(|error| error.to_string())?;
            Ok(JobFile { name: job.display().to_string(), text })
        };
        parse_sweep(&read(&path), &name, &mut resolve).unwrap_or_else(|found| panic!("{found}"));
    }
}
