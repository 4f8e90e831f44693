"""Writes the pickles in fixtures/ with numpy, so that the tests compare our reader with the real thing.

Run it with numpy 2 installed; the files are committed, tests never need Python. All contents are made up.
"""

import collections
import pathlib
import pickle

import numpy as np

HERE = pathlib.Path(__file__).parent / "fixtures"
HERE.mkdir(exist_ok=True)

grid = np.arange(6).reshape(2, 3)
arrays = {"nested": {"key": [1, -2, 300, 70000, 2**40, -(2**40)], "none": None, "flags": (True, False)}}
for code in ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]:
    arrays[code] = grid.astype(code)
arrays["half"] = (grid / 4).astype("f2")
arrays["negative"] = (-grid).astype("i2")
arrays["bool"] = grid % 2 == 1
arrays["big"] = (grid / 4).astype(">f4")
arrays["fortran"] = np.asfortranarray(grid.astype("f4"))
arrays["strided"] = np.arange(12, dtype="f4").reshape(2, 3, 2).transpose(1, 0, 2)
arrays["bytes"] = np.array([b"ab", b"cde", b""], dtype="S5")
arrays["unicode"] = np.array(["n\u00e9", "\u65e5\u672c", ""], dtype="U4")
arrays["object"] = np.array(["x", "y y", None], dtype=object)
arrays["empty"] = np.zeros((0, 3), dtype="f4")
arrays["point"] = np.array(2.5)
arrays["float32"] = np.float32(1.5)
arrays["int64"] = np.int64(-7)
arrays["ordered"] = collections.OrderedDict([("b", 1.25), ("a", 2)])
arrays["raw"] = b"\x00\xff\x80"
arrays["text"] = "caf\u00e9 \u2603"
shared = ["shared"]
arrays["twice"] = [shared, shared]
for protocol in range(6):
    (HERE / f"arrays_p{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))

nan, inf = float("nan"), float("inf")


def split(name, rows, lengths=True):
    """rows samples: sound is padded behind its length, sight in front without a length."""
    audio = np.zeros((rows, 4, 2), dtype="f4")
    vision = np.zeros((rows, 3, 3), dtype="f8")
    for row in range(rows):
        audio[row, : row + 1] = np.arange(2 * (row + 1)).reshape(-1, 2) + 1
        vision[row, 2 - row % 2 :] = row + 0.5
    data = {
        "raw_text": np.array([f"{name} utterance {row} it's" for row in range(rows)], dtype=object),
        "id": np.array([f"video{row // 2}$_${row % 2}" for row in range(rows)], dtype=object),
        "audio": audio,
        "vision": vision,
        "text_bert": np.zeros((rows, 3, 5), dtype="f4"),
        "annotations": np.array([["Negative", "Neutral", "Positive"][row % 3] for row in range(rows)], dtype=object),
        "classification_labels": np.arange(rows),
        "regression_labels": np.array([[-1.2, 0.0, 2.4][row % 3] for row in range(rows)], dtype="f4"),
    }
    if lengths:
        data["audio_lengths"] = [row + 1 for row in range(rows)]
    return data


mmsa = {"train": split("train", 4), "valid": split("valid", 2), "test": split("test", 3, lengths=False)}
# In train: a NaN and an infinite value in row 1, no sound in row 2, no sight in row 3.
mmsa["train"]["audio"][1, 0] = [nan, -inf]
mmsa["train"]["audio_lengths"][2] = 0
mmsa["train"]["vision"][3] = 0
for protocol in range(2, 6):
    (HERE / f"mmsa_p{protocol}.pkl").write_bytes(pickle.dumps(mmsa, protocol))

# One array a sample, of its own length; text as fixed-width strings; scores as (N, 1, 1), without annotations.
ragged_audio = np.empty(3, dtype=object)
for row, frames in enumerate([3, 1, 2]):
    ragged_audio[row] = np.arange(frames * 2, dtype="f4").reshape(frames, 2) + 1
ragged = {
    "train": {
        "raw_text": np.array(["one", "two", "three"]),
        "id": np.array([b"a", b"b", b"c"]),
        "audio": ragged_audio,
        "vision": [np.array([1.0, 2.0]), None, np.array([3.0, 4.0])],
        "regression_labels": np.array([-3.0, 0.0, 3.0]).reshape(3, 1, 1),
    }
}
(HERE / "mmsa_ragged.pkl").write_bytes(pickle.dumps(ragged, 4))
