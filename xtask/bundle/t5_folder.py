"""Writes a T5 with random weights and a random batch as `train_step.py prepare` does, with torch alone.

For machines without transformers and safetensors, where only our step is measured.
"""

import ctypes
import json
import pathlib
import sys

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent / "peers"))

from train_step import PRESETS  # noqa: E402

NAMES = {torch.float32: "F32", torch.int64: "I64"}


def write_safetensors(path, tensors):
    """A header in JSON behind its length, then the bytes of all tensors in the header's order."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            tensor = tensor.contiguous()
            file.write(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))


def weights(size):
    width, inner, wide, heads = size["d_model"], size["d_kv"] * size["num_heads"], size["d_ff"], size["num_heads"]
    normal = lambda rows, columns, deviation: torch.randn(rows, columns) * deviation
    yield "shared.weight", normal(size["vocab_size"], width, 1.0)
    for stack, layers in (("encoder", size["num_layers"]), ("decoder", size["num_decoder_layers"])):
        attentions = ["SelfAttention", "EncDecAttention"][: 1 + (stack == "decoder")]
        for at in range(layers):
            block = f"{stack}.block.{at}.layer"
            for place, kind in enumerate(attentions):
                name = f"{block}.{place}.{kind}"
                yield f"{name}.q.weight", normal(inner, width, (width * size["d_kv"]) ** -0.5)
                yield f"{name}.k.weight", normal(inner, width, width**-0.5)
                yield f"{name}.v.weight", normal(inner, width, width**-0.5)
                yield f"{name}.o.weight", normal(width, inner, inner**-0.5)
                if at == 0 and place == 0:
                    yield f"{name}.relative_attention_bias.weight", normal(32, heads, width**-0.5)
                yield f"{block}.{place}.layer_norm.weight", torch.ones(width)
            last = f"{block}.{len(attentions)}"
            yield f"{last}.DenseReluDense.wi.weight", normal(wide, width, width**-0.5)
            yield f"{last}.DenseReluDense.wo.weight", normal(width, wide, wide**-0.5)
            yield f"{last}.layer_norm.weight", torch.ones(width)
        yield f"{stack}.final_layer_norm.weight", torch.ones(width)


def write(folder, preset, batch, length, target):
    torch.manual_seed(7)
    size, folder = PRESETS[preset], pathlib.Path(folder)
    config = size | {"dropout_rate": 0.0, "tie_word_embeddings": True, "model_type": "t5", "is_encoder_decoder": True}
    config |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "feed_forward_proj": "relu"}
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", dict(weights(size)))
    ids = lambda columns: torch.randint(3, size["vocab_size"], (batch, columns))
    tensors = {"input_ids": ids(length), "labels": ids(target)}
    tensors["attention_mask"] = torch.ones(batch, length, dtype=torch.int64)
    write_safetensors(folder / "batch.safetensors", tensors)
