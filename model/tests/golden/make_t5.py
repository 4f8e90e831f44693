"""Makes t5_v1_0.safetensors and t5_v1_1.safetensors: tiny random T5 models of transformers with what they compute.

Run with torch and transformers: python make_t5.py (writes beside itself). Each file holds `weights.*`, a padded batch,
the states of both stacks, logits, the summed loss, the gradient of every weight as `grads.*`, the tokens of greedy
generation, and the relative-position buckets of a range of distances; its metadata hold the config.json.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

VARIANTS = {
    "t5_v1_0": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "t5_v1_1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
DISTANCES = torch.arange(-200, 201)


def describe(config, options):
    """Writes config.json as published T5 directories have it; transformers 5 keeps the tie under another name."""
    keys = config.to_dict() | options
    del keys["scale_decoder_outputs"]
    return json.dumps(keys, sort_keys=True)


def make(name, options):
    config = T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=6,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=40,
        dropout_rate=0.1,
        decoder_start_token_id=0,
        **options,
    )
    torch.manual_seed(7)
    model = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            # Norms of one and small position biases would hide mistakes.
            if "layer_norm" in key:
                weight.uniform_(0.5, 1.5)
            if "relative_attention_bias" in key:
                weight.normal_()
            # Without this a tied random model only repeats its last token.
            if key.endswith(("o.weight", "wo.weight")):
                weight.mul_(4)
        if not options["tie_word_embeddings"]:
            # transformers 5 ties a fresh T5 v1.1 too; only a checkpoint with an output layer of its own unties it.
            model.lm_head.weight = torch.nn.Parameter(torch.randn(40, 16))
    input_ids = torch.randint(2, 40, (3, 45))
    lengths = torch.tensor([45, 20, 3])
    mask = (torch.arange(45)[None] < lengths[:, None]).long()
    input_ids = input_ids * mask
    labels = torch.randint(2, 40, (3, 7))
    labels[1, 4:] = -100
    labels[2, 1:] = -100
    output = model(input_ids=input_ids, attention_mask=mask, labels=labels, output_hidden_states=True)
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), reduction="sum")
    loss.backward()
    # Without cache: transformers sizes it by the number of encoder blocks.
    search = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False, "use_cache": False}
    generated = model.generate(input_ids=input_ids, attention_mask=mask, **search)

    tensors = {f"weights.{key}": weight.detach() for key, weight in model.named_parameters()}
    tensors |= {f"grads.{key}": weight.grad for key, weight in model.named_parameters()}
    attention = model.encoder.block[0].layer[0].SelfAttention
    bucket = lambda bidirectional: attention._relative_position_bucket(
        DISTANCES,
        bidirectional=bidirectional,
        num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
    )
    tensors |= {
        "input_ids": input_ids,
        "attention_mask": mask,
        "labels": labels,
        "encoder_states": output.encoder_last_hidden_state,
        "decoder_states": output.decoder_hidden_states[-1],
        "logits": output.logits,
        "loss_sum": loss.detach()[None],
        "generated": generated,
        "distances": DISTANCES,
        "buckets_encoder": bucket(True),
        "buckets_decoder": bucket(False),
    }
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    path = pathlib.Path(__file__).with_name(f"{name}.safetensors")
    save_file(tensors, path, metadata={"format": "pt", "config": describe(config, options)})


if __name__ == "__main__":
    for name, options in VARIANTS.items():
        make(name, options)
