"""Writes the files of torch.save in this folder, so that the tests compare our reader with the real thing.

Run it with torch installed (2.11 was used); the files are committed, tests never need Python. All contents are made up.
`expected.json` has, for each file that is read, each tensor's type, shape and bytes as torch sees them.
"""

import io
import json
import os
import pathlib
import zipfile

import torch

HERE = pathlib.Path(__file__).parent
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "Bool",
}
torch.manual_seed(1)
expected = {}


def plain(tensor):
    return tensor.detach().flatten().clone(memory_format=torch.contiguous_format)


def save(file, value, tensors=None, **options):
    torch.save(value, HERE / file, **options)
    if tensors is not None:
        expected[file] = {
            name: {
                "dtype": NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "bytes": bytes(plain(tensor).view(torch.uint8).tolist()).hex()
                if tensor.numel()
                else "",
            }
            for name, tensor in sorted(tensors.items())
        }


def repack(source, file, change):
    """Writes the entries of an archive anew; `change` makes a list of (name, bytes, compression) of each."""
    with zipfile.ZipFile(HERE / source) as old, zipfile.ZipFile(HERE / file, "w") as new:
        for entry in old.infolist():
            for name, data, method in change(entry.filename, old.read(entry.filename)):
                new.writestr(zipfile.ZipInfo(name), data, method)


numbers = torch.arange(6).reshape(2, 3)
types = {str(dtype).removeprefix("torch."): (numbers - 2).abs().to(dtype) for dtype in NAMES}
types["parameter"] = torch.nn.Parameter(torch.randn(3, 2))
types["scalar"] = torch.tensor(2.5)
types["empty"] = torch.zeros(0, 3)
save("types.bin", types, types)
save("types_p4.bin", types, types, pickle_protocol=4)


class Tied(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.shared = torch.nn.Embedding(5, 4)
        self.encoder = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
        self.lm_head = torch.nn.Linear(4, 5, bias=False)
        self.lm_head.weight = self.shared.weight
        self.register_buffer("position_ids", torch.arange(7).reshape(1, -1))


state = Tied().state_dict()
save("module.bin", state, state)
save("wrapped.bin", {"epoch": 3, "best": 0.5, "name": "a", "history": [1, {"b": None}], "state_dict": state}, state)
save("model.bin", {"model": state, "args": {"lr": 1e-4}}, state)

row = torch.arange(12, dtype=torch.float32)
views = {"slice": row[4:10].reshape(2, 3), "whole": row, "one": row[3:9:3][:1], "flat": row.reshape(1, 12, 1)}
save("views.bin", views, views)

save("transposed.bin", {"a": row, "b.weight": row.reshape(3, 4).t()})
save("expanded.bin", {"a": row[:1].expand(1000, 12)})
save("training.bin", {"model": {"w": row}, "optimizer": {"state": {0: {"exp_avg": row + 1}}}})
save("nested.bin", {"a": row, "heads": {"one": {"w": row}}})
save("deeper.bin", {"state_dict": {"a": row, "heads": {"one": {"w": row}}}})
save("listed.bin", [row])
save("plain.bin", {"epoch": 3})
save("complex.bin", {"a": torch.zeros(2, dtype=torch.complex64)})
save("legacy.bin", {"a": row}, _use_new_zipfile_serialization=False)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/owned",)


save("hostile.bin", {"a": row, "b": Hostile()})

repack("views.bin", "packed.bin", lambda name, data: [(name, data, zipfile.ZIP_DEFLATED)])
repack("views.bin", "repeated.bin", lambda name, data: [(name, data, zipfile.ZIP_STORED)] * (1 + name.endswith("/data/0")))
repack("views.bin", "big_endian.bin", lambda name, data: [(name, data.replace(b"little", b"big"), zipfile.ZIP_STORED)])
repack("views.bin", "missing.bin", lambda name, data: [(name, data, zipfile.ZIP_STORED)] * (not name.endswith("/data/0")))
# As torch 1.6 to 2.0 wrote it: nothing but the pickle, the storages and the version.
old = ("/data.pkl", "/data/0", "/version")
repack("views.bin", "old.bin", lambda name, data: [(name, data, zipfile.ZIP_STORED)] * name.endswith(old))
expected["old.bin"] = expected["views.bin"]

(HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
