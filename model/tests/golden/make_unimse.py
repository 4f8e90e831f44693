"""Makes unimse_v1_0, unimse_v1_1 and unimse_legacy.safetensors: tiny random UniMSE models with what PyTorch computes.

Run with torch and transformers: python make_unimse.py (writes beside itself). The blocks are those of transformers; fusion,
encoders and losses are written from the equations, sample by sample where that is plainer. All is computed in 64 bits
from weights that 32 bits hold exactly, so the expected numbers are better than either side's.

Each file holds `weights.*`, a batch (`input_ids`, `attention_mask`, `labels`, and for each part of a modality
`acoustic.<part>.{rows,features,lengths}`), the utterance vectors and mean outputs of both encoders, the states of both
stacks, logits, losses, the gradient of `loss` as `grads.*` with its norm, greedy tokens, and `after.*`, the weights after
some steps of AdamW on that batch, with the loss and the gradient norm of each step. Its metadata hold the config.json.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

# Widths that meet differ, so that a mix-up is an error. Without dropout training computes what evaluation does.
T5 = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 22,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 40,
    "dropout_rate": 0.0,
    "layer_norm_epsilon": 1e-6,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}

# A modality's parts are (dimension, {sample: frames}); who is in none lacks it, as does who has 0 frames.
VARIANTS = {
    "unimse_v1_0": {
        "seed": 18,
        "t5": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
        "unimse": {
            "fusion": {"layers": 2, "bottleneck": 9},
            "acoustic": {"dims": [5], "hidden": 7, "out": 4, "bidirectional": False, "dropout": 0.0},
            "visual": {"dims": [8], "hidden": 10, "out": 3, "bidirectional": False, "dropout": 0.0},
            "contrastive": {"acoustic": 0.5, "visual": 0.5, "temperature": 0.1, "dim": 13, "layers": 3},
        },
        "text": [12, 7, 3, 9],
        "targets": [6, 4, 5, 2],
        "acoustic": [(5, {0: 6, 1: 1, 3: 4})],
        "visual": [(8, {0: 3, 1: 0, 2: 5, 3: 7})],
    },
    "unimse_v1_1": {
        "seed": 7,
        "t5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "unimse": {
            "fusion": {"layers": 3, "bottleneck": 9},
            "acoustic": {"dims": [5, 11], "hidden": 6, "out": 4, "bidirectional": True, "dropout": 0.0},
            "visual": {"dims": [8], "hidden": 5, "out": 3, "bidirectional": True, "dropout": 0.0},
            "contrastive": {"acoustic": 0.7, "visual": 0.3, "temperature": 0.2, "dim": 13, "layers": 2},
        },
        "text": [4, 12, 1, 8, 10],
        "targets": [3, 6, 5, 1, 4],
        "acoustic": [(11, {4: 5, 0: 2}), (5, {3: 4, 1: 0})],
        "visual": [(8, {1: 6, 2: 1, 3: 2, 4: 4})],
    },
    # The contrastive losses of the official code; sound and picture share projections, so their encoders have one width.
    "unimse_legacy": {
        "seed": 13,
        "t5": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
        "unimse": {
            "fusion": {"layers": 2, "bottleneck": 9},
            "acoustic": {"dims": [5], "hidden": 7, "out": 4, "bidirectional": False, "dropout": 0.0},
            "visual": {"dims": [8], "hidden": 7, "out": 3, "bidirectional": False, "dropout": 0.0},
            "contrastive": {"acoustic": 0.5, "visual": 0.5, "temperature": 0.1, "dim": 13, "layers": 3, "legacy": True},
        },
        "text": [12, 7, 3, 9],
        "targets": [6, 4, 5, 2],
        "acoustic": [(5, {0: 6, 1: 1, 2: 7, 3: 4})],
        "visual": [(8, {0: 3, 1: 9, 2: 5, 3: 7})],
    },
}
STEPS = 5
GENERATED = 8


def exact_norm(self, hidden):
    """The norm of T5 in the element type of its input; transformers takes the mean square in 32 bits."""
    return self.weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


T5LayerNorm.forward = exact_norm


class Fusion(nn.Module):
    def __init__(self, d_model, others, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model + others, bottleneck)
        self.up = nn.Linear(bottleneck, d_model + others)
        self.out = nn.Linear(d_model + others, d_model)

    def forward(self, hidden, vectors):
        joined = torch.cat([hidden, vectors[:, None].expand(-1, hidden.shape[1], -1)], -1)
        return self.out(joined + self.up(torch.sigmoid(self.down(joined))))


class ModalityEncoder(nn.Module):
    def __init__(self, dims, hidden, out, bidirectional, dropout):
        super().__init__()
        widest = max(dims)
        self.input = nn.ModuleDict({str(dim): nn.Linear(dim, widest) for dim in dims if dim != widest})
        self.lstm = nn.LSTM(widest, hidden, batch_first=True, bidirectional=bidirectional)
        self.proj = nn.Linear(hidden * (2 if bidirectional else 1), out)

    def forward(self, parts, batch):
        """Returns utterance vectors, mean outputs, the samples that have the modality, and all outputs of the last part."""
        vectors = [torch.zeros(self.proj.out_features, dtype=torch.float64)] * batch
        means = [torch.zeros(self.proj.in_features, dtype=torch.float64)] * batch
        present = []
        for part in parts:
            some = part["lengths"] > 0
            rows, lengths, features = part["rows"][some], part["lengths"][some], part["features"][some]
            if str(features.shape[2]) in self.input:
                features = self.input[str(features.shape[2])](features)
            packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
            outputs, (last, _) = self.lstm(packed)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True)
            # `last` is [directions, samples, hidden]: the forward state at the end, the backward one at the beginning.
            projected = self.proj(torch.cat(list(last), -1))
            for at, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist())):
                vectors[row] = projected[at]
                means[row] = outputs[at, :length].mean(0)
                present.append(row)
        return torch.stack(vectors), torch.stack(means), sorted(present), (outputs, lengths)


class UniMse(T5ForConditionalGeneration):
    def __init__(self, t5, unimse):
        super().__init__(T5Config(**t5, attn_implementation="eager"))
        self.unimse = unimse
        self.acoustic = ModalityEncoder(**unimse["acoustic"])
        self.visual = ModalityEncoder(**unimse["visual"])
        contrastive, d_model = unimse["contrastive"], t5["d_model"]
        project = lambda width: nn.Linear(width, contrastive["dim"], bias=False)
        sides = {"acoustic": self.acoustic, "visual": self.visual}
        if contrastive.get("legacy"):
            stack = lambda: nn.ModuleDict({"text": project(d_model), "modality": project(self.acoustic.proj.in_features)})
            self.contrastive = nn.ModuleDict({"encoder": stack(), "decoder": stack()}).requires_grad_(False)
        else:
            self.contrastive = nn.ModuleDict({name: project(side.proj.in_features) for name, side in sides.items()})
            self.contrastive["text"] = project(d_model)
        others = unimse["acoustic"]["out"] + unimse["visual"]["out"]
        for stack in (self.encoder, self.decoder):
            for block in stack.block[-unimse["fusion"]["layers"] :]:
                block.fusion = Fusion(d_model, others, unimse["fusion"]["bottleneck"])
            for block in stack.block:
                block.register_forward_hook(self.after_block)
        if not t5["tie_word_embeddings"]:
            # transformers 5 ties a fresh T5 v1.1 too; only a checkpoint with an output layer of its own unties it.
            self.lm_head.weight = nn.Parameter(torch.randn(t5["vocab_size"], d_model))

    def after_block(self, block, _, output):
        hidden = block.fusion(output[0], self.vectors) if hasattr(block, "fusion") else output[0]
        self.streams.append(hidden)
        return (hidden, *output[1:])

    def run(self, batch):
        labels = batch["labels"]
        count = len(labels)
        acoustic, acoustic_mean, with_sound, sounds = self.acoustic(batch["acoustic"], count)
        visual, visual_mean, with_picture, pictures = self.visual(batch["visual"], count)
        self.vectors, self.streams = torch.cat([acoustic, visual], -1), []
        output = self(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            labels=labels,
            output_hidden_states=True,
            use_cache=False,
        )
        nll = -output.logits.log_softmax(-1).gather(2, labels.clamp_min(0)[..., None])[..., 0]
        nll = (nll * (labels != -100)).sum(1)

        weights = self.unimse["contrastive"]
        if weights.get("legacy"):
            ta, tv = self.legacy(*sounds), self.legacy(*pictures)
        else:
            blocks = self.streams[: len(self.encoder.block)][-weights["layers"] :]
            texts = [self.mean_text(block, batch["attention_mask"]) for block in blocks]
            losses = lambda name, means, present: sum(
                info_nce(text, self.contrastive[name](means), present, weights["temperature"]) for text in texts
            )
            ta = losses("acoustic", acoustic_mean, with_sound)
            tv = losses("visual", visual_mean, with_picture)
        tokens = (labels != -100).sum()
        return {
            "utterances": self.vectors,
            "acoustic_mean": acoustic_mean,
            "visual_mean": visual_mean,
            "encoder_states": output.encoder_last_hidden_state,
            "decoder_states": output.decoder_hidden_states[-1],
            "logits": output.logits,
            "nll": nll,
            "ce_sum": nll.sum()[None],
            "contrastive_acoustic": ta,
            "contrastive_visual": tv,
            "contrastive_acoustic_sum": ta.sum()[None],
            "contrastive_visual_sum": tv.sum()[None],
            "loss": (nll.sum() / tokens + (weights["acoustic"] * ta + weights["visual"] * tv).sum() / count)[None],
        }

    def legacy(self, outputs, lengths):
        """The official code's loss of one modality: both stacks, means over padding, the order of a sorting that is undone."""
        shown = outputs[torch.argsort(torch.argsort(-lengths, stable=True))]
        blocks = len(self.encoder.block)
        total = torch.zeros(len(lengths), dtype=torch.float64)
        for stack, stream in (("encoder", self.streams[blocks - 2]), ("decoder", self.streams[-2])):
            own = self.contrastive[stack]
            queries = nn.functional.normalize(own["text"](stream).mean(1), dim=-1)
            keys = nn.functional.normalize(own["modality"](shown).mean(1), dim=-1)
            scores = queries @ keys.T / self.unimse["contrastive"]["temperature"]
            total = total + nn.functional.cross_entropy(scores, torch.arange(len(lengths)), reduction="none")
        return total

    def mean_text(self, stream, mask):
        projected = self.contrastive["text"](stream)
        return torch.stack([row[:length].mean(0) for row, length in zip(projected, mask.sum(1).tolist())])


def info_nce(queries, keys, present, temperature):
    """Returns -log(exp(own score) / sum of exp(scores)) of each sample among those that have the modality, else 0."""
    losses = [torch.zeros((), dtype=torch.float64)] * len(queries)
    for place, one in enumerate(present):
        scores = torch.stack([torch.cosine_similarity(queries[one], keys[other], 0) for other in present]) / temperature
        losses[one] = scores.logsumexp(0) - scores[place]
    return torch.stack(losses)


def randomise(model):
    with torch.no_grad():
        for key, weight in model.named_parameters():
            # Norms of one, small position biases and biases of nearly zero would hide mistakes.
            if "norm" in key:
                weight.uniform_(0.5, 1.5)
            elif "relative_attention_bias" in key:
                weight.normal_()
            elif "fusion" in key and key.endswith("bias"):
                weight.normal_(std=0.5)
            # Without this a random model repeats one token.
            elif key.endswith(("o.weight", "wo.weight")):
                weight.mul_(2)
    # From 32 to 64 bits: files with weights in 32 bits lose nothing.
    return model.double()


def trained(model):
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def make_batch(variant):
    lengths, targets = torch.tensor(variant["text"]), torch.tensor(variant["targets"])
    count = len(lengths)
    mask = (torch.arange(max(lengths))[None] < lengths[:, None]).long()
    ids = torch.randint(2, T5["vocab_size"], mask.shape)
    ids[torch.arange(count), lengths - 1] = T5["eos_token_id"]
    labels = torch.randint(2, T5["vocab_size"], (count, max(targets)))
    labels[torch.arange(count), targets - 1] = T5["eos_token_id"]
    labels[torch.arange(max(targets))[None] >= targets[:, None]] = -100

    def part(dim, frames):
        # Random numbers after the end too, which nothing may read.
        features = torch.randn(len(frames), max(frames.values()), dim).double()
        return {"rows": torch.tensor(list(frames)), "features": features, "lengths": torch.tensor(list(frames.values()))}

    modalities = {name: [part(*some) for some in variant[name]] for name in ("acoustic", "visual")}
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels} | modalities


def generate(model, batch):
    """Greedy tokens of every sample without a cache; the end token is never taken, so that all get the same number."""
    tokens = torch.full((len(batch["labels"]), 1), T5["decoder_start_token_id"])
    for _ in range(GENERATED):
        # `run` shifts labels to the right: what stands last is not read.
        logits = model.run(batch | {"labels": torch.cat([tokens[:, 1:], tokens[:, :1]], 1)})["logits"][:, -1]
        logits[:, T5["eos_token_id"]] = -torch.inf
        best = logits.topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-3, "nearly a tie: take another seed"
        tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], 1)
    return tokens


def check(model, batch, grads):
    """Compares every gradient with finite differences, and perturbs what must not matter."""
    with torch.no_grad():
        loss = lambda: model.run(batch)["loss"].item()
        whole = loss()
        for key, weight in trained(model):
            before, direction = weight.clone(), torch.randn_like(weight)
            ends = []
            for shift in (1e-6, -1e-6):
                weight.copy_(before + shift * direction)
                ends.append(loss())
            weight.copy_(before)
            slope, expected = (ends[0] - ends[1]) / 2e-6, (grads[key] * direction).sum().item()
            assert abs(slope - expected) <= 1e-6 * (1 + abs(expected)), (key, slope, expected)
        for part in batch["acoustic"] + batch["visual"]:
            outside = torch.arange(part["features"].shape[1])[None] >= part["lengths"][:, None]
            kept = part["features"].clone()
            part["features"][outside] = 100.0
            assert loss() == whole, "frames after the end were read"
            part["features"].copy_(kept)
        assert loss() == whole


def train(model, batch):
    """Returns the losses and gradient norms of steps of AdamW, and leaves the model as it is after them."""
    decays = lambda name, weight: weight.dim() > 1 and "bias" not in name and "norm" not in name
    named = trained(model)
    groups = [
        {"params": [weight for name, weight in named if decays(name, weight)], "weight_decay": 0.1},
        {"params": [weight for name, weight in named if not decays(name, weight)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model.run(batch)["loss"]
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
        optimizer.step()
        losses.append(loss.detach())
    return torch.cat(losses), torch.stack(norms)


def make(name, variant):
    # With these seeds no gradient is so small that AdamW makes a step of rounding errors.
    torch.manual_seed(variant["seed"])
    t5 = T5 | variant["t5"]
    model = randomise(UniMse(t5, variant["unimse"]))
    batch = make_batch(variant)
    outputs = model.run(batch)
    outputs["loss"].backward()
    copies = lambda prefix: {f"{prefix}.{key}": weight.detach().clone() for key, weight in model.named_parameters()}
    grads = {key: weight.grad.clone() for key, weight in trained(model)}
    check(model, batch, grads)

    tensors = copies("weights") | {f"grads.{key}": grad for key, grad in grads.items()} | outputs
    tensors |= {key: batch[key] for key in ("input_ids", "attention_mask", "labels")}
    for side in ("acoustic", "visual"):
        for index, part in enumerate(batch[side]):
            tensors |= {f"{side}.{index}.{key}": tensor for key, tensor in part.items()}
    with torch.no_grad():
        tensors["generated"] = generate(model, batch)
    tensors["step_losses"], tensors["step_norms"] = train(model, batch)
    tensors["gradient_norm"] = tensors["step_norms"][:1]
    tensors |= copies("after")

    narrow = lambda tensor: tensor.float() if tensor.is_floating_point() else tensor
    tensors = {key: narrow(tensor.detach()).clone().contiguous() for key, tensor in tensors.items()}
    config = json.dumps(t5 | {"unimse": variant["unimse"]}, sort_keys=True)
    path = pathlib.Path(__file__).with_name(f"{name}.safetensors")
    save_file(tensors, path, metadata={"format": "pt", "config": config})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, variant in VARIANTS.items():
        make(name, variant)
