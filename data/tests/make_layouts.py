"""Writes layouts/: one tiny file or set of files in the exact layout of each public release, with made-up contents.

Run it with numpy and h5py after a change; the files are committed, tests never need Python. Layouts follow the loaders of
the releases: yaohungt/Multimodal-Transformer, declare-lab/{MISA,MELD,conv-emotion}, Exploration-Lab/COGMEN,
thuiar/MMSA, LeMei/UniMSE, CMU-MultiComp-Lab/CMU-MultimodalSDK.
"""

import csv
import json
import pathlib
import pickle
import shutil

import h5py
import numpy as np

HERE = pathlib.Path(__file__).parent / "layouts"
shutil.rmtree(HERE, ignore_errors=True)
SIZES = {"train": 4, "valid": 2, "test": 2}


def dump(name, value, protocol=4):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))


def table(name, header, rows, delimiter=","):
    path = HERE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header.split(","))
        writer.writerows(rows)


def padded(rows, frames, dim, front, dtype="f4"):
    """Row r has r % frames + 1 true frames of the value r + 1, all others are zeros."""
    out = np.zeros((rows, frames, dim), dtype=dtype)
    for row in range(rows):
        length = row % frames + 1
        span = slice(frames - length, frames) if front else slice(0, length)
        out[row, span] = row + 1
    return out


# MMSA, unaligned: lengths beside arrays padded behind, text as vectors.
unaligned = {}
for split, rows in SIZES.items():
    unaligned[split] = {
        "raw_text": np.array([f"{split} sentence {row}" for row in range(rows)]),
        "audio": padded(rows, 4, 5, front=False, dtype="f8"),
        "vision": padded(rows, 6, 20, front=False, dtype="f8"),
        "id": np.array([f"{split}vid_x$_${row}" for row in range(rows)], dtype=object),
        "text": np.zeros((rows, 5, 8), dtype="f4"),
        "text_bert": np.zeros((rows, 3, 5), dtype="f4"),
        "audio_lengths": [row % 4 + 1 for row in range(rows)],
        "vision_lengths": [row % 6 + 1 for row in range(rows)],
        "annotations": np.array(["Positive" if row % 2 else "Negative" for row in range(rows)]),
        "classification_labels": np.array([2.0 * (row % 2) for row in range(rows)]),
        "regression_labels": np.array([1.4 if row % 2 else -0.8 for row in range(rows)]),
    }
unaligned["train"]["audio"][1, 0, 0] = -np.inf
dump("mmsa/unaligned.pkl", unaligned)
# Aligned: the lengths are missing, words start in the front.
aligned = {split: {k: v for k, v in columns.items() if "lengths" not in k} for split, columns in unaligned.items()}
dump("mmsa/aligned.pkl", aligned, 2)


# MulT: MOSI with ids of bytes (video_clip, start, end); big endian and Fortran order on the way.
def mult(front, as_bytes):
    out = {}
    for split, rows in SIZES.items():
        ids = np.array([[f"{split}-v_{row}", "0.5", "2.5"] for row in range(rows)])
        out[split] = {
            "vision": np.asfortranarray(padded(rows, 3, 4, front)),
            "audio": padded(rows, 5, 3, front, dtype=">f4"),
            "text": np.zeros((rows, 3, 6), dtype="f4"),
            "labels": np.array([(-1) ** row * 1.5 for row in range(rows)], dtype="f4").reshape(rows, 1, 1),
            "id": ids.astype("S") if as_bytes else ids,
        }
    return out


dump("mult/mosi_data_noalign.pkl", mult(front=False, as_bytes=True), 3)
sentences = [
    (f"{split}-v", row, f"sentence {row} of {split}", (-1) ** row * 1.5, "Positive" if row % 2 == 0 else "Negative", split)
    for split, rows in SIZES.items()
    for row in range(rows)
]
table("mult/label.csv", "video_id,clip_id,text,label,annotation,mode", sentences)
# IEMOCAP: four emotions, no and yes, and no ids.
iemocap = {}
for split, rows in SIZES.items():
    labels = np.zeros((rows, 4, 2), dtype="i8")
    labels[:, :, 0] = 1
    for row in range(rows):
        labels[row, row % 4] = [0, 1]
    iemocap[split] = {
        "vision": padded(rows, 2, 3, False),
        "audio": padded(rows, 2, 2, False),
        "text": np.zeros((rows, 2, 6)),
        "labels": labels,
    }
dump("mult/iemocap_data.pkl", iemocap, 3)

# MISA: one list a split.
for number, (name, rows) in enumerate([("train", 3), ("dev", 1), ("test", 2)]):
    items = []
    for row in range(rows):
        words = [f"word{row}", "and", "more"]
        label = np.array([[0.5 * row, 0, 1, 0, 0, 0, 0]]) if row % 2 else np.array([[-1.25]], dtype="f4")
        visual = np.full((3, 4), row + 0.25)
        visual[1] = 0
        items.append(((np.array([1, 2, 3]), visual, np.full((3, 2), -row - 1.0), words), label, f"vi-d_{number}[{row}]"))
    dump(f"misa/{name}.pkl", items, 3)

# UniMSE's MOSI: MulT's layout, padded in front; matched by id. One silent frame at the end of a true sequence.
unimse = mult(front=True, as_bytes=True)
unimse["train"]["audio"][3, -1] = 0
dump("unimse/mosi_data_0610.pkl", unimse, 4)
header = "video_id,clip_id,text,score_label,annotation,meld_label,iemocap_label,mode,label_by"
universal = [
    (*sentence[:4], sentence[4], ["joy", "anger"][sentence[1] % 2], ["exc", "sur"][sentence[1] % 2], sentence[5], 0)
    for sentence in sentences
]
# Another order than the pickle's, and one sentence without features.
table("unimse/new_MOSI-label-v4.csv", header, [*universal[::-1], ("lost", 1, "no features", 1, "Positive", "joy", "hap", "train", 0)])
# UniMSE's MOSEI: ids tell nothing, the order does.
mosei = mult(front=True, as_bytes=False)
for split, columns in mosei.items():
    columns["id"] = np.array([[f"{split}[{row}]x", "0", "1"] for row in range(SIZES[split])])
dump("unimse/mosei_data_0610.pkl", mosei, 4)
table("unimse/new_MOSEI-label-v4.csv", header, universal)

# MELD official and with features.
meld_header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"
meld_rows = {
    "train": [("Hi.", "Ann", "joy", "positive", 0, 0), ("Oh no!", "Bo", "sadness", "negative", 0, 2), ("Who?", "Cy", "anger", "negative", 1, 0)],
    "dev": [("Well.", "Ann", "neutral", "neutral", 0, 0)],
    "test": [("Yes!", "Bo", "joy", "positive", 0, 0), ("What?", "Cy", "surprise", "negative", 0, 1)],
}
for split, rows in meld_rows.items():
    full = [(number + 1, *row, 8, 21, "00:16:16,059", "00:16:21,731") for number, row in enumerate(rows)]
    table(f"meld/{split}_sent_emo.csv", meld_header, full)
audio = [{f"{row[4]}_{row[5]}": np.arange(3) + 1.0 + row[5] for row in rows} for rows in meld_rows.values()]
del audio[0]["0_2"]
audio[0]["7_7"] = np.ones(3)
dump("meld/audio_embeddings_feature_selection_emotion.pkl", audio, 2)
visual = [{}, {}, {}]
for dicts, rows in zip(visual, meld_rows.values()):
    for row in rows:
        dicts.setdefault(str(row[4]), np.zeros((4, 2), dtype="f4"))
    for dialogue, array in dicts.items():
        count = sum(str(row[4]) == dialogue for row in rows)
        array[:count] = np.arange(1, count + 1).reshape(-1, 1)
dump("meld/visual_emotion.pkl", visual, 2)
dump("meld/text_glove_average_emotion.pkl", [{"0_0": np.ones(5)}] * 3, 2)

# UniMSE's MELD: features by id, universal labels, contexts in the utterance, a last row of -1.
meld_features = {
    side: [{f"{row[4]}_{row[5]}": np.full((2 + row[5], 64), 0.5, dtype="f4") for row in rows} for rows in meld_rows.values()]
    for side in ["audio", "video"]
}
del meld_features["video"][2]["0_1"]
dump("unimse/meld_data_0610.pkl", meld_features, 4)
v4 = "Dialogue_ID,Utterance_ID,Season,Episode,Speaker,Utterance,Emotion,Sentiment,score_label,iemocap_label"
context = {0: "</s> Ann Hi. </s> Bo Oh no!", 2: "Ann Hi. </s> Bo Oh no! </s>"}
for split, rows in meld_rows.items():
    lines = [
        (row[4], row[5], 8, 21, row[1], context[row[5]] if split == "train" and row[4] == 0 else row[0], row[2], row[3], 0.6, "exc")
        for row in rows
    ]
    table(f"unimse/new_{split}_sent_emo-v4.csv", v4, [*lines, (-1, -1, 0, 0, "x", "x", "x", "x", 0, "x")])

# UniMSE's IEMOCAP: the right labels, and the file whose labels are copied from the first row of a document.
documents = ["Ses01F_impro01_F", "Ses01F_impro01_M", "Ses02M_script01_1_F", "Ses05F_impro02_M"]
own = ["neu", "hap", "fru"]
lines = []
for document in documents:
    for number in range(3):
        lines.append((f"{document}00{number}", own[number], "[2.5, 2.5, 2.5]", f"Line {number}.", document[:-2], "neutral", number * 0.5, ["neutral", "joy", "anger"][number]))
lines[-1] = (*lines[-1][:1], "sur", *lines[-1][2:])
sentinel = ("-1", "x", "x", "x", "x", "x", 0, "x")
iemocap_header = "vid_cid,label,VAD,text,vid,por,score_label,meld_label"
table("unimse/new-iemocap-label-v4.csv", iemocap_header, [*lines, sentinel])
contexts = []
for index, line in enumerate(lines):
    first = lines[index - index % 3]
    words = ["</s> Line 0. </s> Line 1. Line 2.", "Line 0. </s> Line 1. </s> Line 2.", "Line 0. Line 1. </s> Line 2. </s>"][index % 3]
    contexts.append((*line[:3], words, *line[4:6], *first[6:]))
table("unimse/new-iemocap-label-v4-contexts.csv", iemocap_header, [*contexts, sentinel])
mel = np.full((3, 64), 0.1)
groups = [lines[:5], lines[6:9], lines[9:]]
dump(
    "unimse/iemocap_data_0610.pkl",
    {side: [{line[0]: mel for line in group} for group in groups] for side in ["audio", "video"]},
)


# DialogueRNN and COGMEN.
def conversation(names, labels, speakers, sentence=lambda name, turn: f"{name} says {turn}"):
    vector = np.full(100, 0.5)
    turns = {name: 2 + number % 2 for number, name in enumerate(names)}
    per = lambda make: {name: [make(name, turn) for turn in range(turns[name])] for name in names}
    return [
        per(lambda name, turn: f"{name}_{'FM'[turn % 2]}00{turn}" if isinstance(name, str) else f"{name}_{turn}"),
        per(lambda name, turn: speakers(turn)),
        per(lambda name, turn: labels(turn)),
        per(lambda name, turn: vector),
        per(lambda name, turn: np.full(4, turn + 1.0)),
        per(lambda name, turn: np.full(6, turn + 2.0)),
        per(sentence),
    ]


iemocap_names = [f"Ses0{1 + number // 10}F_impro{number:02}" for number in range(12)]
parts = conversation(iemocap_names, lambda turn: turn * 2, lambda turn: "FM"[turn % 2])
dump("dialoguernn/IEMOCAP_features.pkl", (*parts, set(iemocap_names[:10]), iemocap_names[10:]), 2)
meld_parts = conversation(list(range(11)), lambda turn: turn + 3, lambda turn: [1.0 if place == turn else 0.0 for place in range(9)])
sentiments = {name: [1] * len(turns) for name, turns in meld_parts[2].items()}
dump("dialoguernn/MELD_features_raw.pkl", (*meld_parts[:5], meld_parts[6], list(range(10)), [10], sentiments), 2)
mosei_names = ["vid a", "vid b", "vid c"]
mosei_parts = conversation(mosei_names, lambda turn: [turn - 1.0, 0, 0], lambda turn: "M", lambda name, turn: ["two", f"words{turn}"])
mosei_parts[4] = {name: [np.full((3, 4), turn + 1.0) for turn in range(len(turns))] for name, turns in mosei_parts[4].items()}
dump("dialoguernn/tbje_mosei.pkl", (*mosei_parts, mosei_names[:1], mosei_names[1:2], mosei_names[2:]), 4)

# One's own: tables and .npy files.
table(
    "plain/train.csv",
    "id,text,emotion,score,speaker,dialogue,turn",
    [("a1", "Good morning.", "joy", 1.5, "Ann", "d", 1), ("a2", "Is it, though?", "anger", -2, "Bo", "d", 2), ("a3", "Alone.", "neutral", 0, "Cy", "e", 1)],
)
table("plain/valid.csv", "id,text,emotion,score,speaker,dialogue,turn", [("b1", "Quiet.", "sadness", -1, "Ann", "d", 1)])
for folder, ids, array in [
    ("acoustic", ["a1", "a2", "b1"], np.arange(6, dtype="f2").reshape(3, 2) + 1),
    ("visual", ["a1", "a3", "stray"], np.asfortranarray(np.arange(8, dtype=">f8").reshape(2, 4) + 1)),
]:
    (HERE / "plain" / folder).mkdir(parents=True, exist_ok=True)
    for name in ids:
        np.save(HERE / "plain" / folder / f"{name}.npy", array)


# CMU-MultimodalSDK: words, labels, sound with gzip, sight without; three videos of the folds, one beside them.
def csd(file, name, data, **options):
    path = HERE / "csd" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", libver=("earliest", "v108")) as out:
        root = out.create_group(name)
        for key, (features, intervals) in data.items():
            group = root.require_group("data").create_group(key)
            group.create_dataset("features", data=features, **options)
            group.create_dataset("intervals", data=intervals, **options)
        metadata = root.create_group("metadata")
        for key, value in {"root name": name, "dimension names": ["a"]}.items():
            cell = metadata.create_dataset(key, (1,), dtype=h5py.special_dtype(vlen=str))
            cell[0] = json.dumps(value)


videos = ["v-0", "v_1", "v2", "other"]
spans = np.array([[0.0, 0.4], [0.4, 0.5], [0.5, 1.0], [1.0, 1.5], [2.1, 2.6]])
words = np.array([[b"so"], [b"sp"], [b"it"], [b"goes"], [b"on"]], dtype="S32")
csd("CMU_MOSEI_TimestampedWords.csd", "words", {video: (words, spans) for video in videos})
labels = np.array([[1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]], dtype="f4")
csd("CMU_MOSEI_Labels.csd", "All Labels", {video: (labels, np.array([[0.0, 1.6], [2.0, 3.0]])) for video in videos})
times = np.arange(0, 3, 0.25)
frames = np.stack([times, times + 0.25], axis=1)
sound = np.stack([np.arange(12), np.full(12, 2.0)], axis=1).astype("f4")
sound[0, 1] = -np.inf
csd("CMU_MOSEI_COVAREP.csd", "COVAREP", {video: (sound, frames) for video in videos}, compression="gzip", compression_opts=9, chunks=True)
csd("CMU_MOSEI_VisualFacet42.csd", "FACET 4.2", {video: (np.ones((12, 3)), frames) for video in videos[1:]})
(HERE / "csd" / "cmu_mosei_std_folds.py").write_text(
    "standard_train_fold=['v-0', 'gone']\nstandard_valid_fold=['v_1']\nstandard_test_fold=['v2']\n"
)
# The same after align(): keys with a number.
aligned_words = {f"v-0[{number}]": (words[:2], spans[:2]) for number in [0, 10, 2]}
csd("aligned/words.csd", "words", aligned_words)
csd("aligned/Opinion_Labels.csd", "Opinion Segment Labels", {key: (np.array([[0.5]]), np.array([[0.0, 1.0]])) for key in aligned_words})
