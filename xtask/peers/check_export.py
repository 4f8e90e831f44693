"""Loads an exported folder with transformers and compares what it computes with `unimse evaluate --output`.

    python xtask/peers/check_export.py FOLDER LINES.jsonl

The folder must be of a model without fusion layers, which is a plain T5. Prints the largest relative difference of the losses of
all samples, and what transformers had to say about the weights.
"""

import json
import sys

import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration
from transformers.utils import logging

logging.set_verbosity_info()
folder, lines = sys.argv[1:3]
model, info = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
tokenizer = AutoTokenizer.from_pretrained(folder)
model.eval()
worst, count = 0.0, 0
with torch.inference_mode():
    for line in open(lines):
        sample = json.loads(line)
        labels = torch.tensor([sample["target_ids"]])
        logits = model(input_ids=torch.tensor([sample["input_ids"]]), labels=labels).logits
        nll = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum").item()
        worst = max(worst, abs(nll - sample["nll"]) / max(abs(nll), 1e-9))
        assert tokenizer.decode(labels[0], skip_special_tokens=True).replace(" ", "") == sample["target"]
        count += 1
found = {key: sorted(value) for key, value in info.items() if value}
print(json.dumps({"samples": count, "largest_difference": worst, "loading": found}))
