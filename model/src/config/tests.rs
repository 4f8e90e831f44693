use super::*;

/// The keys of t5-small's published config.json that concern the model.
const T5_SMALL: &str = r#"{
  "architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512,
  "decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0,
  "is_encoder_decoder": true, "layer_norm_epsilon": 1e-06, "model_type": "t5", "n_positions": 512, "num_heads": 8,
  "num_layers": 6, "output_past": true, "pad_token_id": 0, "relative_attention_num_buckets": 32,
  "task_specific_params": {"summarization": {"num_beams": 4}}, "vocab_size": 32128
}"#;

#[test]
fn the_config_of_a_published_t5_is_read() {
    let config = Config::from_json(T5_SMALL).unwrap();
    assert_eq!(config.t5, Preset::Small.config().t5.clone_without_decoder_layers());
    assert_eq!(config.t5.decoder_layers(), 6);
    assert_eq!(config.unimse, UniMseConfig::default());
}

#[test]
fn a_written_config_reads_back_equal_and_names_the_architecture() {
    let mut config = Preset::Tiny.config();
    config.unimse.acoustic.dims = vec![5, 74];
    config.t5.feed_forward_proj = FeedForwardProjection::GatedGelu;
    let json = config.to_json();
    assert_eq!(Config::from_json(&json).unwrap(), config);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["architectures"][0], "T5ForConditionalGeneration");
    assert_eq!(value["feed_forward_proj"], "gated-gelu");
    assert_eq!(value["unimse"]["fusion"]["init"], "identity");
}

#[test]
fn an_unknown_key_under_unimse_is_refused() {
    let json = T5_SMALL.replacen('{', r#"{"unimse": {"fusion": {"layrs": 3}},"#, 1);
    let error = Config::from_json(&json).unwrap_err().to_string();
    assert!(error.contains("layrs"), "{error}");
}

#[test]
fn values_that_no_model_can_have_are_refused_by_name() {
    let check = |change: fn(&mut Config), field: &str| {
        let mut config = Preset::Tiny.config();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")) && error.contains("hint:"), "{error}");
    };
    check(|c| c.t5.d_model = 0, "d_model");
    check(|c| c.t5.dropout_rate = 1.0, "dropout_rate");
    check(|c| c.t5.relative_attention_num_buckets = 6, "relative_attention_num_buckets");
    check(|c| c.t5.relative_attention_max_distance = 16, "relative_attention_max_distance");
    check(|c| c.t5.eos_token_id = c.t5.vocab_size, "eos_token_id");
    check(|c| c.unimse.fusion.layers = 4, "fusion.layers");
    check(|c| c.unimse.acoustic.dims = vec![5, 5], "acoustic.dims");
    check(|c| c.unimse.visual.dropout = f64::NAN, "visual.dropout");
    check(|c| c.unimse.contrastive.temperature = 0.0, "contrastive.temperature");
    check(|c| c.unimse.contrastive.layers = 0, "contrastive.layers");
}

#[test]
fn every_preset_is_valid() {
    for name in ["tiny", "small", "base", "large"] {
        name.parse::<Preset>().unwrap().config().validate().unwrap();
    }
    let error = "huge".parse::<Preset>().unwrap_err().to_string();
    assert!(error.contains("`huge`") && error.contains("hint: use tiny"), "{error}");
}

impl T5Config {
    fn clone_without_decoder_layers(&self) -> Self {
        Self { num_decoder_layers: None, ..self.clone() }
    }
}
