"""The training step of Hugging Face's T5 with PyTorch's fused AdamW, beside ours.

    python xtask/peers/train_step.py prepare FOLDER PRESET BATCH INPUT TARGET [--frozen paper|N]
    python xtask/peers/train_step.py run FOLDER STEPS THREADS [--frozen paper|none] [--device cpu|cuda]
                                         [--precision fp32|bf16]

`prepare` writes a T5 with random weights and one random batch; `run` trains on that batch again and again, as
`unimse_worker::trainer::torch::step_bench` does, and prints one JSON line. Needs torch and transformers.

With `--frozen`, `prepare` also writes `frozen.json`, `{"last_blocks": N}`: only the last N blocks of both stacks learn (`paper`:
1 of tiny's 3 blocks, else 3), as with `trainable: paper` on a T5 without adapters; embeddings, other blocks and the norms behind the
stacks do not. `run` heeds the file unless `--frozen none` is given; `--frozen paper` fails without it.

bf16 is autocast over parameters of 32 bits, as a Hugging Face Trainer does it. On a GPU the steps are timed by events on its stream,
so that no step waits for another; `peak_bytes` is then the GPU's memory, and that of the host is `host_peak_bytes`.
"""

import argparse
import contextlib
import json
import pathlib
import resource
import statistics
import time

PRESETS = {
    "tiny": dict(d_model=128, d_kv=32, d_ff=256, num_layers=3, num_decoder_layers=3, num_heads=4, vocab_size=4096),
    "small": dict(d_model=512, d_kv=64, d_ff=2048, num_layers=6, num_decoder_layers=6, num_heads=8, vocab_size=32128),
    "base": dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_decoder_layers=12, num_heads=12, vocab_size=32128),
}
PAPER_BLOCKS = {"tiny": 1, "small": 3, "base": 3}
WARM = 3


def prepare(folder, preset, batch, length, target, frozen=None):
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
    if frozen is not None:
        blocks = PAPER_BLOCKS[preset] if frozen == "paper" else int(frozen)
        assert 0 < blocks <= config.num_layers, f"{preset} has {config.num_layers} blocks"
        pathlib.Path(folder, "frozen.json").write_text(json.dumps({"last_blocks": blocks}))


def freeze(model, blocks):
    """Leaves only the last blocks of both stacks to learn."""
    last = [block for stack in (model.encoder, model.decoder) for block in stack.block[-blocks:]]
    model.requires_grad_(False)
    for block in last:
        block.requires_grad_(True)


def groups_of(model):
    """The parameters that learn, in two groups: matrices decay, biases and norms do not."""
    decays = lambda name: "norm" not in name and "bias" not in name
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for n, p in learning if decays(n)], "weight_decay": 0.01},
        {"params": [p for n, p in learning if not decays(n)], "weight_decay": 0.0},
    ]


def optimizer_of(groups):
    import torch

    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, fused=True)


class Clock:
    """Marks moments: of this thread on a CPU, of the stream on a GPU."""

    def __init__(self, cuda):
        self.cuda = cuda

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, one, other):
        return one.elapsed_time(other) / 1e3 if self.cuda else other - one


def run(folder, steps, threads, frozen=None, device="cpu", precision="fp32"):
    import torch
    from safetensors.torch import load_file
    from transformers import T5ForConditionalGeneration

    torch.set_num_threads(threads)
    cuda = device == "cuda"
    model = T5ForConditionalGeneration.from_pretrained(folder).train().to(device)
    batch = {name: tensor.to(device) for name, tensor in load_file(f"{folder}/batch.safetensors").items()}
    said = pathlib.Path(folder, "frozen.json")
    if frozen == "paper" or (frozen is None and said.exists()):
        freeze(model, json.loads(said.read_text())["last_blocks"])
    groups = groups_of(model)
    learning = [parameter for group in groups for parameter in group["params"]]
    optimizer = optimizer_of([group for group in groups if group["params"]])
    half = lambda: torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    clock = Clock(cuda)
    losses, marks = [], []
    for step in range(WARM + steps):
        began = clock.mark()
        optimizer.zero_grad(set_to_none=True)
        with half():
            loss = model(**batch).loss
        forward = clock.mark()
        loss.backward()
        backward = clock.mark()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        # On a GPU nobody needs to know at every step, and asking would stop the queue.
        losses.append(loss.detach() if cuda else loss.item())
        marks.append((began, forward, backward, clock.mark()))
    if cuda:
        torch.cuda.synchronize()
        losses = [loss.item() for loss in losses]
    timed = marks[WARM:]
    seconds = [clock.seconds(step[0], step[3]) for step in timed]
    parts = [statistics.median(clock.seconds(step[at], step[at + 1]) for step in timed) for at in range(3)]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_reserved() if cuda else host
    found = {"seconds": seconds, "parts": parts, "losses": losses, "peak_bytes": peak, "host_peak_bytes": host}
    print(json.dumps(found | {"learning": sum(parameter.numel() for parameter in learning)}))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = parser.add_subparsers(dest="task", required=True)
    task = tasks.add_parser("prepare")
    task.add_argument("folder")
    task.add_argument("preset", choices=PRESETS)
    for name in ("batch", "length", "target"):
        task.add_argument(name, type=int)
    task.add_argument("--frozen")
    task = tasks.add_parser("run")
    task.add_argument("folder")
    task.add_argument("steps", type=int)
    task.add_argument("threads", type=int)
    task.add_argument("--frozen", choices=["paper", "none"])
    task.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    task.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    return vars(parser.parse_args())


if __name__ == "__main__":
    given = arguments()
    {"prepare": prepare, "run": run}[given.pop("task")](**given)
