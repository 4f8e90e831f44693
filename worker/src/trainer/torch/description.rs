//! The model's configuration: from a job's specification, and to and from a manifest.

use std::path::PathBuf;

use unimse_core::job::ExitCause;
use unimse_core::spec::{self, JobSpec, ModelSource};
use unimse_model::config::{AnswerWay, ContrastiveConfig, FusionInit, HeadsConfig, LoraConfig};
use unimse_model::contrastive::Legacy;
use unimse_model::{Config, LabelSchema, Preset};

use super::super::{Description, failed, invalid};
use super::material::{Material, Words};

/// Vocabularies are rounded up to this, so that matrix products have even sizes.
const VOCABULARY_STEP: usize = 64;

/// The key of `config.json` with the longest input, as Hugging Face's T5 has it.
pub(super) const LONGEST_INPUT: &str = "n_positions";

/// The configuration of a job's model for its data.
pub(super) fn config_of(spec: &JobSpec, material: &Material) -> Result<Config, ExitCause> {
    let tokens = material.vocabulary.tokenizer.len();
    let mut config = match &spec.model.source {
        ModelSource::Preset(preset) => {
            let mut config = match preset {
                spec::Preset::Tiny => Preset::Tiny,
                spec::Preset::Small => Preset::Small,
                spec::Preset::Base => Preset::Base,
                spec::Preset::Large => Preset::Large,
            }
            .config();
            config.t5.vocab_size = tokens.next_multiple_of(VOCABULARY_STEP) as i64;
            config
        }
        ModelSource::Init(_) => {
            let path = init_folder(spec).unwrap_or_default().join("config.json");
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))?;
            Config::from_json(&text).map_err(|error| invalid(format!("{}: {error}", path.display())))?
        }
    };
    if tokens as i64 > config.t5.vocab_size {
        return Err(invalid(format!(
            "the tokenizer has {tokens} tokens, the model embeds {}; hint: use the tokenizer.json that belongs to the model",
            config.t5.vocab_size
        )));
    }
    let unimse = &mut config.unimse;
    let dims = |widths: &[usize]| widths.iter().map(|&width| width as i64).collect();
    unimse.acoustic.dims = dims(&material.options.layout.acoustic);
    unimse.visual.dims = dims(&material.options.layout.visual);
    for (modality, width) in
        [(&mut unimse.acoustic, spec.model.encoders.acoustic), (&mut unimse.visual, spec.model.encoders.visual)]
    {
        if width == 0 {
            // Nothing is read of it.
            continue;
        }
        (modality.hidden, modality.out) = (i64::from(width), i64::from(width));
        modality.bidirectional = spec.model.encoders.bidirectional;
        modality.standardise = spec.data.standardise;
    }
    unimse.fusion.layers = i64::from(spec.model.fusion.layers);
    unimse.fusion.bottleneck = i64::from(spec.model.fusion.bottleneck);
    unimse.fusion.init = match spec.model.fusion.init {
        spec::FusionInit::Identity => FusionInit::Identity,
        spec::FusionInit::Paper => FusionInit::Paper,
    };
    let classes = material.vocabulary.schema().emotions().iter().map(|vocabulary| vocabulary.classes.len() as i64);
    let heads = &spec.model.heads;
    unimse.heads = if heads.score > 0.0 || heads.emotion > 0.0 {
        HeadsConfig { score: heads.score, emotion: heads.emotion, classes: classes.collect() }
    } else {
        HeadsConfig::default()
    };
    unimse.answers = match spec.model.answers {
        spec::AnswerWay::Decoded => AnswerWay::Decoded,
        spec::AnswerWay::Expected => AnswerWay::Expected,
        spec::AnswerWay::Heads => AnswerWay::Heads,
    };
    unimse.lora = LoraConfig { rank: i64::from(spec.model.lora.rank), alpha: spec.model.lora.alpha };
    let losses = &spec.model.contrastive;
    unimse.contrastive = ContrastiveConfig {
        acoustic: losses.acoustic,
        visual: losses.visual,
        temperature: losses.temperature,
        layers: i64::from(losses.layers).min(config.t5.num_layers),
        legacy: losses.legacy,
        // The official code's projections have a fixed width.
        dim: if losses.legacy { Legacy::DIM } else { unimse.contrastive.dim },
    };
    if let Some(dropout) = spec.train.dropout {
        config.t5.dropout_rate = dropout;
        if dropout == 0.0 {
            // Whoever wants none wants none anywhere.
            (unimse.acoustic.dropout, unimse.visual.dropout) = (0.0, 0.0);
        }
    }
    config.validate().map_err(invalid)?;
    Ok(config)
}

/// The folder of the pretrained T5, if the job names one.
pub(super) fn init_folder(spec: &JobSpec) -> Option<PathBuf> {
    match &spec.model.source {
        ModelSource::Preset(_) => None,
        ModelSource::Init(folder) => Some(PathBuf::from(folder.strip_prefix("file://").unwrap_or(folder))),
    }
}

/// What a manifest says of a model.
pub(super) fn describe(config: &Config, material: &Material) -> Description {
    let mut model: serde_json::Value =
        serde_json::from_str(&config.to_json()).expect("a configuration writes valid JSON");
    // Whoever uses the model later must cut its inputs where training did.
    model[LONGEST_INPUT] = material.options.max_input.into();
    Description {
        model,
        labels: serde_json::to_value(material.vocabulary.schema()).expect("a schema is plain data"),
        tokenizer: Some(material.vocabulary.json.clone()),
        data: material.identity(),
    }
}

/// What a manifest said of a model, to be built again.
pub(super) fn understand(description: &Description) -> Result<(Config, Words), ExitCause> {
    let config = Config::from_json(&description.model.to_string()).map_err(invalid)?;
    let schema: LabelSchema = serde_json::from_value(description.labels.clone())
        .map_err(|error| invalid(format!("cannot read the label schema of the checkpoint: {error}")))?;
    let json = description.tokenizer.as_deref().ok_or_else(|| failed("the checkpoint has no tokenizer"))?;
    Ok((config, Words::new(json, &schema)?))
}
