"""Saving while training with torch.distributed.checkpoint's async_save, beside our checkpoints.

    python xtask/peers/dcp_save.py FOLDER MEGABYTES STEPS [THREADS]

Trains a stack of blocks with the shapes of T5-small (an embedding, squares of the width, the wide matrices of feed-forward layers,
norms), whose parameters and two moments are MEGABYTES, in one process with a one-rank Gloo group. After STEPS steps alone come
some saves into FOLDER beside training, each removed again, with the settings that async_save has of itself. Prints one JSON line:

- `blocked`: median seconds that the training thread spends in async_save. Memory is taken anew for each copy: the stagers of torch
  2.11 that keep theirs pin it, which takes a GPU.
- `durable`: median seconds from the call to the future's result (files are synced before it) and a sync of the folder, while
  training goes on; `durable_idle` the same when nothing is trained meanwhile.
- `slowdown`: median seconds of a step beside a save against those of a step alone, the call itself not counted; `throughput`: steps
  done from the call until the save is seen to have ended against those of an equally long time alone, the call counted.
- `bytes`: what a save has on disk. `peak_bytes` is that of the process, after the first kind of saves.
"""

import json
import os
import pathlib
import queue
import resource
import shutil
import statistics
import sys
import time

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

WIDTH, WIDE, WORDS = 512, 2048, 32128
SAVES, WARM = 3, 3
BATCH, LENGTH = 2, 32


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.wide_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.wi, self.wo = nn.Linear(WIDTH, WIDE, bias=False), nn.Linear(WIDE, WIDTH, bias=False)

    def forward(self, hidden):
        normed = self.norm(hidden)
        mixed = nn.functional.scaled_dot_product_attention(self.q(normed), self.k(normed), self.v(normed))
        hidden = hidden + self.o(mixed)
        return hidden + self.wo(torch.relu(self.wi(self.wide_norm(hidden))))


class Stack(nn.Module):
    """As many blocks as fit beside an embedding that has a quarter of the numbers, as in T5-small."""

    def __init__(self, numbers):
        super().__init__()
        block = sum(parameter.numel() for parameter in Block().parameters())
        rows = min(WORDS, max(numbers // 4 // WIDTH, 64))
        count = max(round((numbers - rows * WIDTH) / block), 1)
        # What whole blocks leave over goes to the embedding, so that the size is the one asked for.
        rows = max((numbers - count * block) // WIDTH, 64)
        self.embedding = nn.Embedding(rows, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(count))
        self.norm = nn.RMSNorm(WIDTH)

    def forward(self, words):
        hidden = self.embedding(words)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden).square().mean()


class Training:
    """A model, its optimiser and steps of both."""

    def __init__(self, numbers):
        self.model = Stack(numbers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self):
        began = time.perf_counter()
        words = torch.randint(0, self.model.embedding.num_embeddings, (BATCH, LENGTH))
        self.optimizer.zero_grad(set_to_none=True)
        self.model(words).backward()
        self.optimizer.step()
        return time.perf_counter() - began

    def state(self):
        """By name, as people who want to load it again do."""
        moments = lambda parameter: dict(self.optimizer.state[parameter])
        optimizer = {name: moments(parameter) for name, parameter in self.model.named_parameters()}
        return {"model": dict(self.model.state_dict()), "optimizer": optimizer}


def save(training, folder, busy):
    """Saves once: the seconds of the call, until durability and of the whole, those of each step meanwhile, and the bytes."""
    began = time.perf_counter()
    done = queue.SimpleQueue()
    future = dcp.async_save(training.state(), checkpoint_id=str(folder))
    blocked = time.perf_counter() - began
    # The training thread would see it only after the step that it is in.
    future.add_done_callback(lambda _: done.put(time.perf_counter()))
    steps = []
    while busy and not future.done():
        steps.append(training.step())
    whole = time.perf_counter() - began
    future.result()
    syncing = time.perf_counter()
    place = os.open(folder, os.O_RDONLY)
    os.fsync(place)
    os.close(place)
    durable = done.get() - began + time.perf_counter() - syncing
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    shutil.rmtree(folder)
    return {"blocked": blocked, "durable": durable, "whole": whole, "steps": steps, "bytes": size}


def run(folder, megabytes, steps, threads=1):
    torch.set_num_threads(threads)
    torch.manual_seed(7)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    training = Training(megabytes * 1_000_000 // 3 // 4)
    alone = [training.step() for _ in range(WARM + steps)][WARM:]
    folder = pathlib.Path(folder, "dcp")

    def saves(busy):
        # The first one also makes threads and takes memory for the first time.
        return [save(training, folder, busy) for _ in range(SAVES + 1)][1:]

    beside = saves(True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    idle = saves(False)
    median = lambda found, name: statistics.median(one[name] for one in found)
    step = statistics.median(alone)
    meanwhile = [seconds for one in beside for seconds in one["steps"]]
    found = {
        "blocked": median(beside, "blocked"),
        "durable": median(beside, "durable"),
        "durable_idle": median(idle, "durable"),
        "bytes": beside[-1]["bytes"],
        "slowdown": statistics.median(meanwhile) / step if meanwhile else None,
        "throughput": statistics.median(len(one["steps"]) * step / one["whole"] for one in beside),
        "step": step,
        "peak_bytes": peak,
    }
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    run(sys.argv[1], *map(int, sys.argv[2:5]))
