"""Runs the GPU check and the GPU benches of the bundle; `run.sh` starts it, with libtorch on the library path.

Our step and Hugging Face's are measured in turn on the same folder (weights and one batch), in bf16 on the GPU. Writes results.json:
the machine, what the check said, every run, and `records` in the form of `cargo xtask bench`. Whatever fails is a line in `errors`,
and the rest still runs.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import t5_folder

HERE = pathlib.Path(__file__).parent
# Preset, batch size, input and target tokens, timed steps, and the promise against Hugging Face.
CASES = [("base", 64, 512, 114, 20, None), ("base", 32, 64, 8, 60, 2.0), ("base", 32, 128, 16, 60, 2.0)]
SMOKE = [("tiny", 4, 16, 6, 3, None)]
# Dense bf16 operations a second, by what is in the name of a GPU.
PEAKS = [("H100 PCIe", 756e12), ("H100", 989e12), ("H200", 989e12), ("A100", 312e12)]
MFU_GOAL, UPDATE_GOAL = 0.30, 3.0
LIMIT = 600


class Run:
    """What was found so far, and the log of it."""

    def __init__(self, options):
        self.out = pathlib.Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.log = open(self.out / "log.txt", "w")
        self.found = {"bundle": json.loads((HERE / "bundle.json").read_text()), "runs": [], "records": [], "errors": []}

    def say(self, text):
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def fail(self, what, why):
        self.say(f"error: {what}: {why}")
        self.found["errors"].append(f"{what}: {why}")

    def call(self, what, command, environment=None, answers=True):
        """Runs a program; returns its last line as JSON if it `answers` with one, or nothing if it fails."""
        self.say(f"--- {what}")
        began = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=os.environ | (environment or {}))
        except (OSError, subprocess.TimeoutExpired) as error:
            return self.fail(what, error)
        print(done.stdout, done.stderr, sep="\n", file=self.log, flush=True)
        self.say(f"    {time.perf_counter() - began:.1f} s, exit status {done.returncode}")
        last = done.stdout.strip().splitlines()[-1:] or [""]
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-3:]
            return self.fail(what, " / ".join(said) or f"exit status {done.returncode}")
        if not answers:
            return None
        try:
            return json.loads(last[0])
        except ValueError:
            return self.fail(what, f"its last line is no JSON: {last[0][:200]}")

    def record(self, name, value, unit, better, **more):
        known = {key: value for key, value in more.items() if value is not None}
        self.found["records"].append({"name": name, "value": value, "unit": unit, "better": better} | known)

    def write(self):
        (self.out / "results.json").write_text(json.dumps(self.found, indent=1))


def machine():
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found = {"unix_seconds": int(time.time()), "gpu": gpu, "torch": torch.__version__}
    return found | {"cores": os.cpu_count(), "load": os.getloadavg()}


def peers(run):
    """The environment in which Python has transformers, or nothing."""
    site = HERE / "site"
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(site)]))}
    probe = [sys.executable, "-c", "import torch, transformers; print(f'\"{transformers.__version__}\"')"]
    has = lambda: subprocess.run(probe, capture_output=True, env=os.environ | environment).returncode == 0
    if not has():
        wanted = run.found["bundle"]["transformers"]
        wheels = HERE / "wheels"
        source = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site), *source, wanted]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode != 0 or not has():
            run.fail("Hugging Face", f"it is left out, {wanted} is not here and cannot be fetched")
            return None
    run.found["machine"]["transformers"] = run.call("transformers", probe, environment)
    return environment


def operations(preset, length, target):
    """Floating-point operations of forward and backward for one sample: matrix products and attention."""
    size = t5_folder.PRESETS[preset]
    width, inner, layers = size["d_model"], size["d_kv"] * size["num_heads"], size["num_layers"]
    block = 4 * width * inner + 2 * width * size["d_ff"]
    # Keys and values of the cross-attention are made for every token of the input.
    products = length * (layers * block + layers * 2 * width * inner)
    products += target * (layers * block + layers * 2 * width * inner + width * size["vocab_size"])
    scores = layers * inner * (length * length + target * target + target * length)
    return 3 * (2 * products + 4 * scores)


def name_of(case, options, device):
    preset, batch, length, target, *_ = case
    return f"{preset} {batch}x{length}/{target}, {options.precision} on {device}"


def measure(run, case, options, environment, device):
    preset, batch, length, target, steps, _ = case
    name = name_of(case, options, device)
    shape = [preset, *map(str, (batch, length, target))]
    flags = ["--device", device, "--precision", options.precision]
    numbers = [str(steps), str(options.threads)]
    script = [sys.executable, str(HERE / "peers/train_step.py")]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unimse-gpu-"))
    ours, replayed, theirs = [], [], []
    try:
        if environment is None:
            t5_folder.write(folder, *case[:4])
        else:
            run.call(f"prepare {name}", [*script, "prepare", str(folder), *shape], environment, answers=False)
        if not (folder / "batch.safetensors").exists():
            return run.fail(name, "there is no folder to train from")
        for _ in range(options.rounds):
            found = run.call(f"ours, {name}", [str(HERE / "train"), "ours", str(folder), *numbers, *flags])
            ours += [found] if found else []
            found = run.call(f"ours with graphs, {name}", [str(HERE / "train"), "ours", str(folder), *numbers, *flags, "--graphs"])
            replayed += [found] if found else []
            if environment is not None:
                found = run.call(f"theirs, {name}", [*script, "run", str(folder), *numbers, *flags], environment)
                theirs += [found] if found else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    run.found["runs"].append({"name": name, "ours": ours, "with_graphs": replayed, "theirs": theirs})
    # Short batches are promised with graphs, long ones without.
    short = case[-1] is not None
    report(run, name, case if not short else (*case[:-1], None), ours, theirs)
    report(run, f"{name}, CUDA graphs", case if short else (*case[:-1], None), replayed, theirs)
    if ours and replayed:
        apart = max(abs(one - two) / max(abs(one), 1e-9) for one, two in zip(ours[0]["losses"], replayed[0]["losses"]))
        run.record(f"{name}: largest difference that graphs make to losses", apart, "relative", "lower")


def report(run, name, case, ours, theirs):
    preset, batch, length, target, _, goal = case
    if not ours:
        return
    step = lambda runs: statistics.median(seconds for found in runs for seconds in found["seconds"]) * 1e3 if runs else None
    part = lambda runs, place: statistics.median(found["parts"][place] for found in runs) * 1e3 if runs else None
    peak = lambda runs: max(found["peak_bytes"] for found in runs) / 1e6 if runs else None
    own, other = step(ours), step(theirs)
    run.record(f"{name}: step", own, "ms", "lower", peer=other)
    if theirs:
        run.record(f"{name}: speed against Hugging Face", other / own, "x", "higher", budget=goal, ours=own, peer=other, of="ms")
        pairs = zip(ours[0]["losses"], theirs[0]["losses"])
        apart = max(abs(one - two) / max(abs(two), 1e-9) for one, two in pairs)
        run.record(f"{name}: largest difference of losses", apart, "relative", "lower")
    for place, what in enumerate(["forward", "backward", "update"]):
        budget = UPDATE_GOAL if what == "update" and preset == "base" and length == 512 else None
        run.record(f"{name}: {what}", part(ours, place), "ms", "lower", peer=part(theirs, place), budget=budget)
    run.record(f"{name}: peak memory", peak(ours), "MB", "lower", peer=peak(theirs))
    gpu = run.found["machine"]["gpu"]
    fastest = next((rate for part, rate in PEAKS if gpu and part in gpu), None)
    if fastest and preset == "base":
        share = lambda milliseconds: batch * operations(preset, length, target) / (milliseconds / 1e3) / fastest * 100
        budget = MFU_GOAL * 100 if length == 512 else None
        run.record(f"{name}: MFU", share(own), "%", "higher", peer=share(other) if other else None, budget=budget)


def arguments():
    parser = argparse.ArgumentParser(description="Checks and measures unimse on this machine's GPU.")
    parser.add_argument("--cpu", action="store_true", help="tiny sizes on the CPU, to see that everything runs")
    parser.add_argument("--out", default=str(HERE / "results"))
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases with this in their name, as 512/114")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.cpu else 3)
    options.threads = options.threads or (1 if options.cpu else min(os.cpu_count() or 1, 8))
    options.precision = "fp32" if options.cpu else "bf16"
    return options


def main():
    options = arguments()
    run = Run(options)
    run.found["machine"] = machine()
    run.say(json.dumps(run.found["machine"]))
    device = "cpu" if options.cpu else "cuda"
    if not options.cpu and run.found["machine"]["gpu"] is None:
        run.fail("the GPU", "torch sees none; hint: --cpu runs everything at tiny sizes")
    else:
        # bf16 steps, and sums over one rank by NCCL.
        check = run.found["check"] = run.call("gpu-check", [str(HERE / "unimse-worker"), "gpu-check", "--json"])
        if check and not options.cpu and not check.get("gpu"):
            run.fail("gpu-check", check.get("reason"))
        environment = peers(run)
        wanted = [case for case in (SMOKE if options.cpu else CASES) if options.only in name_of(case, options, device)]
        for case in wanted:
            measure(run, case, options, environment, device)
            run.write()
    run.write()
    for record in run.found["records"]:
        beside = [f"{key} {record[key]:.4g}" for key in ("ours", "peer", "budget") if key in record]
        run.say(f"{record['name']}: {record['value']:.4g} {record['unit']}  {', '.join(beside)}")
    for error in run.found["errors"]:
        run.say(f"failed: {error}")
    run.say(f"wrote {run.out / 'results.json'}")
    sys.exit(1 if run.found["errors"] else 0)


if __name__ == "__main__":
    main()
