"""The training step of Hugging Face's T5 on several processes with PyTorch's DistributedDataParallel over Gloo, beside ours.

    python xtask/peers/ddp_step.py run FOLDER STEPS THREADS WORLD

FOLDER is one that `train_step.py prepare` wrote. Rank r trains on rows r*B/WORLD to (r+1)*B/WORLD of its batch, all else is as in
`train_step.py run`; the losses are the means over the whole batch (every rank has as many tokens). Prints one JSON line: the
seconds of rank 0's steps, the medians of forward, backward and update, the losses, the largest peak of any rank, and what
communication costs beyond what backward hides. For that come steps without an update after the timed ones, in turn with and
without communication (`no_sync`), each after a barrier:

- `exposed`: median backward with communication less median backward without; it counts what the communication's threads take from
  the computing ones, too.
- `exposed_tail`: median time from the last gradient's being ready to the end of backward, in the steps with communication.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

from train_step import WARM, groups_of, optimizer_of

# Alternating pairs of backward passes with and without communication.
PROBES = 7


def be_rank(folder, steps, threads, world, rank):
    import torch
    import torch.distributed as dist
    from safetensors.torch import load_file
    from torch.nn.parallel import DistributedDataParallel
    from transformers import T5ForConditionalGeneration

    torch.set_num_threads(threads)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    batch = load_file(f"{folder}/batch.safetensors")
    rows = len(batch["labels"]) // world
    assert rows * world == len(batch["labels"]), "the batch has a row more for some ranks"
    batch = {name: tensor[rank * rows : (rank + 1) * rows].contiguous() for name, tensor in batch.items()}
    module = T5ForConditionalGeneration.from_pretrained(folder).train()
    optimizer = optimizer_of(groups_of(module))
    model = DistributedDataParallel(module, gradient_as_bucket_view=True, static_graph=True)
    losses, seconds, parts = [], [], []
    for step in range(WARM + steps):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch).loss
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        end = time.perf_counter()
        if step >= WARM:
            seconds.append(end - began)
            parts.append((forward - began, backward - forward, end - backward))
    # Before the probes, whose own memory is not the training's.
    peak = torch.tensor(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    exposed, tail = probe(model, optimizer, batch)
    means = torch.tensor(losses, dtype=torch.float64)
    dist.all_reduce(means)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    if rank == 0:
        found = {"seconds": seconds, "parts": [statistics.median(part) for part in zip(*parts)]}
        found |= {"exposed": exposed, "exposed_tail": tail, "losses": (means / world).tolist()}
        print(json.dumps(found | {"peak_bytes": peak.item()}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def probe(model, optimizer, batch):
    """Measures backward with and without communication; parameters stay as they are."""
    import torch.distributed as dist

    last = [0.0]

    def ready(_):
        last[0] = time.perf_counter()

    hooks = [parameter.register_post_accumulate_grad_hook(ready) for parameter in model.module.parameters()]

    def backward():
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch).loss
        dist.barrier()
        began = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        return end - began, end - last[0]

    together, alone = [], []
    for turn in range(PROBES + 1):
        with model.no_sync():
            alone.append(backward())
        together.append(backward())
    for hook in hooks:
        hook.remove()
    # The first pair is not like the others: until then each gradient had its place in a bucket.
    median = lambda found, place: statistics.median(one[place] for one in found[1:])
    return max(median(together, 0) - median(alone, 0), 0.0), median(together, 1)


def run(folder, steps, threads, world):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, "rank", folder, *map(str, (steps, threads, world))]
    ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(world)]
    # Those that wait for a rank that failed would do so for half an hour.
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
    if any(rank.wait() for rank in ranks):
        sys.exit(f"a rank of {world} failed")


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        be_rank(sys.argv[2], *map(int, sys.argv[3:7]))
    else:
        run(sys.argv[2], *map(int, sys.argv[3:6]))
