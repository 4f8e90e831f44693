"""The training step of Hugging Face's T5 with PyTorch's fused AdamW, beside ours.

    python xtask/peers/train_step.py prepare FOLDER PRESET BATCH INPUT TARGET
    python xtask/peers/train_step.py run FOLDER STEPS THREADS

`prepare` writes a T5 with random weights and one random batch; `run` trains on that batch again and again, as
`unimse_worker::trainer::torch::step_bench` does, and prints one JSON line. Needs torch and transformers.
"""

import json
import resource
import statistics
import sys
import time

PRESETS = {
    "tiny": dict(d_model=128, d_kv=32, d_ff=256, num_layers=3, num_decoder_layers=3, num_heads=4, vocab_size=4096),
    "small": dict(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_decoder_layers=6, num_heads=8, vocab_size=32128),
    "base": dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12, vocab_size=32128),
}
WARM = 3


def prepare(folder, preset, batch, length, target):
    import torch
    from safetensors.torch import save_file
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(7)
    config = T5Config(**PRESETS[preset], dropout_rate=0.0, decoder_start_token_id=0, tie_word_embeddings=True)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    ids = lambda columns: torch.randint(3, config.vocab_size, (batch, columns))
    tensors = {
        "input_ids": ids(length),
        "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        "labels": ids(target),
    }
    save_file(tensors, f"{folder}/batch.safetensors")


def run(folder, steps, threads):
    import torch
    from safetensors.torch import load_file
    from transformers import T5ForConditionalGeneration

    torch.set_num_threads(threads)
    model = T5ForConditionalGeneration.from_pretrained(folder).train()
    batch = load_file(f"{folder}/batch.safetensors")
    decays = lambda name: "norm" not in name and "bias" not in name
    groups = [
        {"params": [p for n, p in model.named_parameters() if decays(n)], "weight_decay": 0.01},
        {"params": [p for n, p in model.named_parameters() if not decays(n)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)
    losses, seconds, parts = [], [], []
    for step in range(WARM + steps):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch).loss
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        end = time.perf_counter()
        if step >= WARM:
            seconds.append(end - began)
            parts.append((forward - began, backward - forward, end - backward))
    medians = [statistics.median(part) for part in zip(*parts)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "parts": medians, "losses": losses, "peak_bytes": peak}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:7]))
    else:
        run(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
