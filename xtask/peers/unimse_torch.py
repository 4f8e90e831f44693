"""A UniMSE in PyTorch for training at speed: transformers' T5 with fusion layers, modality encoders and contrastive losses.

The equations are those of `model/tests/golden/make_unimse.py`, here over whole batches, and the parameters have the names of our
checkpoints. Features are one vector an utterance, of one dimension a modality.
"""

import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

CUT = 3.0


class Fusion(nn.Module):
    """`out(F + up(sigmoid(down(F))))` of `F = [hidden; vectors]`; at first it returns `hidden`."""

    def __init__(self, d_model, others, bottleneck):
        super().__init__()
        self.down = nn.Linear(d_model + others, bottleneck)
        self.up = nn.Linear(bottleneck, d_model + others)
        self.out = nn.Linear(d_model + others, d_model)
        for layer in (self.down, self.up, self.out):
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.down.weight, std=1e-3)
        nn.init.zeros_(self.up.weight)
        nn.init.eye_(self.out.weight)

    def forward(self, hidden, vectors):
        joined = torch.cat([hidden, vectors[:, None].expand(-1, hidden.shape[1], -1)], -1)
        return self.out(joined + self.up(torch.sigmoid(self.down(joined))))


class Standard(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, features):
        return ((features - self.mean) * self.scale).clamp(-CUT, CUT)


class Encoder(nn.Module):
    def __init__(self, dims, hidden, out, bidirectional, dropout, standardise):
        super().__init__()
        assert len(dims) == 1 and standardise and not bidirectional and dropout == 0.0
        self.standard = nn.ModuleDict({str(dims[0]): Standard(dims[0])})
        self.lstm = nn.LSTM(dims[0], hidden, batch_first=True)
        self.proj = nn.Linear(hidden, out)

    def standardise(self, features):
        """Learns shift and scale of `[N, D]`; what never changes stays as it is."""
        (standard,) = self.standard.values()
        deviation = features.std(0, correction=0)
        standard.mean.copy_(features.mean(0))
        standard.scale.copy_(torch.where(deviation > 1e-6, 1 / deviation.clamp_min(1e-6), 1.0))

    def forward(self, rows, features, batch):
        """Returns the vectors `[batch, out]`, zeros for samples that are not in `rows`, and the mean outputs of `rows`."""
        vectors = self.proj.weight.new_zeros(batch, self.proj.out_features)
        if len(rows) == 0:
            return vectors, None
        (standard,) = self.standard.values()
        outputs, (last, _) = self.lstm(standard(features))
        return vectors.index_copy(0, rows, self.proj(last[0])), outputs.mean(1)


class UniMse(T5ForConditionalGeneration):
    def __init__(self, config):
        config = dict(config)
        unimse = config.pop("unimse")
        super().__init__(T5Config(**config))
        self.settings = unimse["contrastive"]
        self.acoustic, self.visual = Encoder(**unimse["acoustic"]), Encoder(**unimse["visual"])
        d_model, dim = config["d_model"], self.settings["dim"]
        project = lambda width: nn.Linear(width, dim, bias=False)
        widths = {name: side.lstm.hidden_size for name, side in self.sides.items()} | {"text": d_model}
        self.contrastive = nn.ModuleDict({name: project(width) for name, width in widths.items()})
        others = sum(side.proj.out_features for side in self.sides.values())
        for stack in (self.encoder, self.decoder):
            for block in stack.block[-unimse["fusion"]["layers"] :]:
                block.fusion = Fusion(d_model, others, unimse["fusion"]["bottleneck"])
                block.register_forward_hook(self.fuse)
        for block in self.encoder.block[-self.settings["layers"] :]:
            block.register_forward_hook(self.keep)

    @property
    def sides(self):
        return {"acoustic": self.acoustic, "visual": self.visual}

    def fuse(self, block, _, output):
        return (block.fusion(output[0], self.vectors), *output[1:])

    def keep(self, _block, _, output):
        self.streams.append(output[0])

    def forward(self, input_ids, attention_mask, labels, **features):
        """Returns the loss: cross-entropy a token, contrastive losses a sample."""
        batch = len(labels)
        encoded = {name: side(*features[name], batch) for name, side in self.sides.items()}
        self.vectors, self.streams = torch.cat([vectors for vectors, _ in encoded.values()], -1), []
        loss = super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False).loss
        mask = attention_mask[..., None].to(self.vectors.dtype)
        means = torch.stack([(stream * mask).sum(1) for stream in self.streams]) / mask.sum(1)
        queries = nn.functional.normalize(self.contrastive["text"](means), dim=-1)
        for name, (_, outputs) in encoded.items():
            if outputs is not None:
                keys = nn.functional.normalize(self.contrastive[name](outputs), dim=-1)
                loss = loss + self.settings[name] / batch * self.info_nce(queries[:, features[name][0]], keys)
        self.streams = []
        return loss

    def info_nce(self, queries, keys):
        """The sum over blocks and samples of -log softmax(query . keys / temperature) at the sample itself."""
        scores = queries @ keys.T / self.settings["temperature"]
        itself = torch.arange(len(keys), device=keys.device).expand(len(scores), -1)
        return nn.functional.cross_entropy(scores.flatten(0, 1), itself.flatten(), reduction="sum")
