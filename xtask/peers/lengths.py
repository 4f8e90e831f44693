"""Training UniMSE on the lengths of real data, padded as a Hugging Face Trainer does it, beside ours.

    python xtask/peers/lengths.py prepare FOLDER DATA SEED STEPS BATCH [--past 2] [--future 2]
    python xtask/peers/lengths.py run FOLDER THREADS

`prepare` reads DATA, a folder with mosi_utterance.pkl (its layout is MMSA's) and meld_train_sent_emo.csv, trains a Unigram tokenizer
of 4,000 words on their training text, draws STEPS global batches of BATCH samples from both sets in proportion to their size
(without replacement until all were seen) and writes

- `batches.json`: {"steps": [[{"input": [ids], "labels": [ids], "acoustic": [73 numbers] or null, "visual": [100 numbers] or null}]]}
- `config.json` and `model.safetensors`: a tiny UniMSE under our names, with fusion in all blocks, both encoders, standardisation of
  features and both contrastive losses, without dropout; `tokenizer.json`.

Turns of a dialogue have their neighbours around them, as `unimse data import` makes them. `run` trains the same model in PyTorch
on these batches, each padded to its longest input and its longest target: transformers' own T5, fused AdamW at a rate of 1e-3,
clipping at norm 1, 32 bits. Making tensors of a batch is a part of the step. It prints one JSON line; `padding` is the share of the
tokens of both sides that are padding. All steps are trained, the first three are not timed. Needs torch, transformers and numpy.

Reading a pickle runs what is in it: give only files that you trust.
"""

import argparse
import csv
import json
import pathlib
import pickle
import resource
import time

from train_step import PRESETS, WARM, groups_of, optimizer_of

EMOTIONS = ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"]
POLARITIES = ["positive", "negative"]
DIMS = {"acoustic": 73, "visual": 100}
UNIMSE = {
    "fusion": {"layers": 3, "bottleneck": 16, "init": "identity"},
    **{
        name: {"dims": [dim], "hidden": 32, "out": 32, "bidirectional": False, "dropout": 0.0, "standardise": True}
        for name, dim in DIMS.items()
    },
    "contrastive": {"acoustic": 0.5, "visual": 0.5, "temperature": 0.1, "dim": 64, "layers": 3},
}


def read_mosi(path):
    import numpy as np

    with open(path, "rb") as file:
        split = pickle.load(file)["train"]
    # Some features are the logarithm of 0.
    clean = lambda array: np.nan_to_num(array[:, 0].astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    acoustic, visual = clean(split["audio"]), clean(split["vision"])
    # Nothing but zeros is no sound and no sight.
    row = lambda values: values.tolist() if values.any() else None
    for index, (text, score) in enumerate(zip(split["raw_text"], split["regression_labels"])):
        tenths = round(min(max(float(score), -3.0), 3.0) * 10)
        polarity = "neutral" if tenths == 0 else POLARITIES[tenths < 0]
        sign = "-" if tenths < 0 else ""
        labels = f"{polarity},{sign}{abs(tenths) // 10}.{abs(tenths) % 10},none"
        yield {"text": text, "target": labels, "acoustic": row(acoustic[index]), "visual": row(visual[index])}


def read_meld(path, past, future):
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\x92", "\u2019")
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    dialogues = {}
    for row in rows:
        dialogues.setdefault(row["Dialogue_ID"], []).append(row)
    for turns in dialogues.values():
        turns.sort(key=lambda row: int(row["Utterance_ID"]))
        said = [f"{row['Speaker']} {row['Utterance']}" for row in turns]
        for at, row in enumerate(turns):
            words = [*said[max(at - past, 0) : at], f"</s> {said[at]} </s>", *said[at + 1 : at + 1 + future]]
            target = f"{row['Sentiment']},none,{row['Emotion']}"
            yield {"text": " ".join(words), "target": target, "acoustic": None, "visual": None}


def train_tokenizer(texts):
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    cut = [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated"), pre_tokenizers.Digits(True)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    settings = {"vocab_size": 4000, "special_tokens": special, "unk_token": "<unk>", "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.UnigramTrainer(**settings))
    return tokenizer


def prepare(folder, data, seed, steps, batch, past, future):
    import random

    import torch
    from safetensors.torch import save_file
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder, data = pathlib.Path(folder), pathlib.Path(data)
    folder.mkdir(parents=True, exist_ok=True)
    samples = [*read_mosi(data / "mosi_utterance.pkl"), *read_meld(data / "meld_train_sent_emo.csv", past, future)]
    # The tokenizer reads every utterance's text and target once; marks of context are no text.
    alone = [sample["text"].split("</s>")[1 if "</s>" in sample["text"] else 0] for sample in samples]
    tokenizer = train_tokenizer([*alone, *(sample["target"] for sample in samples), *EMOTIONS * 100])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = lambda text: [*tokenizer.encode(text, add_special_tokens=False).ids, 1]
    for sample in samples:
        sample |= {"input": ids(sample.pop("text")), "labels": ids(sample.pop("target"))}

    draw = random.Random(seed)
    order = []
    while len(order) < steps * batch:
        order += draw.sample(range(len(samples)), len(samples))
    chosen = [[samples[at] for at in order[step * batch : (step + 1) * batch]] for step in range(steps)]
    (folder / "batches.json").write_text(json.dumps({"steps": chosen}))

    torch.manual_seed(seed)
    config = configuration(tokenizer.get_vocab_size())
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    model = make(config)
    for name, side in model.sides.items():
        side.standardise(torch.tensor([sample[name] for sample in samples if sample[name]]))
    tied = {"lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name not in tied}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def configuration(words):
    tiny = PRESETS["tiny"] | {"vocab_size": words}
    more = {"dropout_rate": 0.0, "feed_forward_proj": "relu", "tie_word_embeddings": True, "layer_norm_epsilon": 1e-6}
    more |= {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "initializer_factor": 1.0}
    more |= {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "model_type": "t5"}
    return tiny | more | {"is_encoder_decoder": True, "architectures": ["T5ForConditionalGeneration"], "unimse": UNIMSE}


def make(config):
    from unimse_torch import UniMse

    return UniMse(config)


def collate(samples):
    """A batch padded to its longest input and its longest target, features of the samples that have some."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    padded = lambda name, filler: pad_sequence(
        [torch.tensor(sample[name]) for sample in samples], batch_first=True, padding_value=filler
    )
    inputs, labels = padded("input", 0), padded("labels", -100)
    lengths = torch.tensor([len(sample["input"]) for sample in samples])
    mask = (torch.arange(inputs.shape[1]) < lengths[:, None]).long()
    batch = {"input_ids": inputs, "attention_mask": mask, "labels": labels}
    for name in DIMS:
        rows = [row for row, sample in enumerate(samples) if sample[name] is not None]
        features = torch.tensor([samples[row][name] for row in rows]).reshape(len(rows), 1, DIMS[name])
        batch[name] = (torch.tensor(rows, dtype=torch.int64), features)
    return batch


def run(folder, threads):
    import torch
    from safetensors.torch import load_file
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(threads)
    folder = pathlib.Path(folder)
    model = make(json.loads((folder / "config.json").read_text())).train()
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not unexpected and all("embed_tokens" in name or name == "lm_head.weight" for name in missing), missing
    optimizer = optimizer_of(groups_of(model))
    steps = json.loads((folder / "batches.json").read_text())["steps"]
    losses, seconds, whole, filled = [], [], 0, 0
    for step, samples in enumerate(steps):
        began = time.perf_counter()
        batch = collate(samples)
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step >= WARM:
            seconds.append(time.perf_counter() - began)
        whole += batch["input_ids"].numel() + batch["labels"].numel()
        filled += sum(len(sample["input"]) + len(sample["labels"]) for sample in samples)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"seconds": seconds, "losses": losses, "peak_bytes": peak, "padding": 1 - filled / whole}
    print(json.dumps(found))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("prepare")
    task.add_argument("folder")
    task.add_argument("data")
    for name in ("seed", "steps", "batch"):
        task.add_argument(name, type=int)
    for name in ("--past", "--future"):
        task.add_argument(name, type=int, default=2)
    task = tasks.add_parser("run")
    task.add_argument("folder")
    task.add_argument("threads", type=int)
    return vars(parser.parse_args())


if __name__ == "__main__":
    given = arguments()
    {"prepare": prepare, "run": run}[given.pop("task")](**given)
