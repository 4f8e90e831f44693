"""Measures Gloo's all-reduce between processes over loopback; prints one JSON line a size.

The counterpart of `collectives/benches/allreduce.rs`, which runs it: same number of calls, the median time of a call on
rank 0. Needs torch and numpy.

    python xtask/peers/gloo_all_reduce.py [sizes=BYTES,...] [WORLD]...
"""

import json
import os
import socket
import subprocess
import sys
import time

KIB = 1024
SIZES = [64, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, 1024 * KIB, 10 * 1024 * KIB, 100 * 1024 * KIB]


def be_rank(rank, world, sizes):
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    for size in sizes:
        values = torch.ones(size // 4)
        calls = min(max(400 * 1024 * KIB // size, 8), 3000)
        times = []
        for call in range(calls + min(calls, 20)):
            values.fill_(1.0)
            before = time.perf_counter()
            dist.all_reduce(values)
            if call >= min(calls, 20):
                times.append(time.perf_counter() - before)
        assert bool((values == world).all()), "the sum is wrong"
        seconds = sorted(times)[len(times) // 2]
        if rank == 0:
            line = {"bench": "all_reduce", "system": "gloo", "world": world, "bytes": size}
            print(json.dumps(line | {"seconds": round(seconds, 9), "gb_per_s": round(size / seconds / 1e9, 4)}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def measure(world, sizes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, __file__, "rank"]
    sizes = ",".join(map(str, sizes))
    ranks = [subprocess.Popen([*command, str(rank), str(world), sizes], env=environment) for rank in range(world)]
    if any([rank.wait() for rank in ranks]):
        sys.exit(f"a rank of {world} failed")


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        be_rank(int(sys.argv[2]), int(sys.argv[3]), list(map(int, sys.argv[4].split(","))))
    else:
        sizes = SIZES
        worlds = []
        for argument in sys.argv[1:]:
            if argument.startswith("sizes="):
                sizes = list(map(int, argument.removeprefix("sizes=").split(",")))
            else:
                worlds.append(int(argument))
        for world in worlds or [2, 4]:
            measure(world, sizes)
