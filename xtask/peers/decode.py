"""Greedy generation of Hugging Face's T5 with its key-value cache, beside ours.

    python xtask/peers/decode.py run FOLDER UTTERANCES BATCH TOKENS THREADS

FOLDER is one that `train_step.py prepare` wrote; its batch is generated from again and again until UTTERANCES are done. No token
ends a sequence, so both sides do the same work. Writes what was generated to FOLDER/theirs.safetensors and prints one JSON line.
"""

import json
import sys
import time


def run(folder, utterances, batch, tokens, threads):
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import T5ForConditionalGeneration

    torch.set_num_threads(threads)
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    inputs = load_file(f"{folder}/batch.safetensors")
    assert inputs["input_ids"].shape[0] == batch
    arguments = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    search = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "num_beams": 1}
    with torch.inference_mode():
        generated = model.generate(**arguments, **search)
        began = time.perf_counter()
        for _ in range(utterances // batch):
            generated = model.generate(**arguments, **search)
        seconds = time.perf_counter() - began
    save_file({"generated": generated[:, 1:].contiguous()}, f"{folder}/theirs.safetensors")
    print(json.dumps({"seconds": seconds, "utterances": utterances // batch * batch}))


if __name__ == "__main__":
    run(sys.argv[2], *map(int, sys.argv[3:7]))
