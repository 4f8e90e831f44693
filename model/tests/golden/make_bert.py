"""Makes bert.safetensors: a tiny random BERT of transformers with what it computes.

Run with torch and transformers: python make_bert.py (writes beside itself). The file holds `weights.*`, a padded batch, the
states of the last block, and the pooled vector of each kind before it is scaled to length 1; its metadata hold the config.json.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

config = BertConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=20,
    hidden_act="gelu",
    attn_implementation="eager",
)
torch.manual_seed(3)
model = BertModel(config).eval()
with torch.no_grad():
    for key, weight in model.named_parameters():
        # Fresh norms are one and fresh biases zero, which would hide mistakes.
        if "LayerNorm.weight" in key:
            weight.uniform_(0.5, 1.5)
        elif "bias" in key:
            weight.normal_(std=0.3)
        else:
            weight.mul_(8)
lengths = torch.tensor([13, 4, 1])
ids = torch.randint(1, 50, (3, 13))
mask = (torch.arange(13)[None] < lengths[:, None]).long()
ids = ids * mask
with torch.no_grad():
    output = model(input_ids=ids, attention_mask=mask)
states = output.last_hidden_state
wide = mask.unsqueeze(-1).float()
tensors = {f"weights.{key}": weight for key, weight in model.named_parameters()}
tensors |= {
    "ids": ids,
    "mask": mask,
    "states": states * wide,
    "cls": states[:, 0],
    "pooler": output.pooler_output,
    "mean": (states * wide).sum(1) / wide.sum(1),
}
tensors = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
path = pathlib.Path(__file__).with_name("bert.safetensors")
save_file(tensors, path, metadata={"format": "pt", "config": json.dumps(config.to_dict(), sort_keys=True)})
