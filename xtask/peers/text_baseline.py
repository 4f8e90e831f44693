"""What bags of words reach on the real data, beside ours: TF-IDF and linear models of scikit-learn.

    python xtask/peers/text_baseline.py DATA_DIR

DATA_DIR holds mosi_utterance.pkl, meld_train_sent_emo.csv and meld_dev_sent_emo.csv. All settings are chosen by
cross-validation on the training split; the validation split is only measured. Prints one JSON line a system. Needs
scikit-learn. Reading a pickle runs what is in it: give only files that you trust.

The rows with vision are no measure of seeing: a linear model reads the sentiment of new videos off those 100 numbers about as
well as the best systems do from all modalities, and far better on the validation split than across training videos.
Most likely they come from a network that was trained on the labels of both. Compare only systems of equal inputs.
"""

import csv
import itertools
import json
import pathlib
import pickle
import sys

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

SEED = 42
ALPHAS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000]
COSTS = [0.1, 0.3, 1, 3, 10, 30, 100]


def read_mosi(folder):
    """Returns what is said, heard and seen, the scores and the videos of each split."""
    with open(folder / "mosi_utterance.pkl", "rb") as file:
        splits = pickle.load(file)
    # Some features are the logarithm of 0.
    numbers = lambda array: np.nan_to_num(array[:, 0].astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    for split in (splits["train"], splits["valid"]):
        samples = {"text": split["raw_text"], "sound": numbers(split["audio"]), "vision": numbers(split["vision"])}
        videos = [name.split("$_$")[0] for name in split["id"]]
        yield samples, split["regression_labels"].astype(np.float64), videos


def read_meld(path):
    """Returns what is said, the emotions and the dialogues."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    # Some releases have the apostrophe of Windows-1252 as a control character.
    rows = list(csv.DictReader(text.replace("\x92", "\u2019").splitlines(keepends=True)))
    column = lambda name: np.array([row[name] for row in rows], dtype=object)
    return {"text": column("Utterance")}, column("Emotion"), column("Dialogue_ID")


def sentiment_metrics(truth, found):
    """The metrics of thuiar/MMSA metricsTop.py; the correlation with a constant is 0, as ours says."""
    non0 = truth != 0
    classes = lambda scores: np.round(np.clip(scores, -3, 3))
    return {
        "acc2_non0": accuracy_score(truth[non0] > 0, found[non0] > 0),
        "f1_non0": f1_score(truth[non0] > 0, found[non0] > 0, average="weighted"),
        "acc2_has0": accuracy_score(truth >= 0, found >= 0),
        "f1_has0": f1_score(truth >= 0, found >= 0, average="weighted"),
        "acc7": np.mean(classes(truth) == classes(found)),
        "mae": np.mean(np.abs(truth - found)),
        "corr": np.corrcoef(truth, found)[0, 1] if np.ptp(found) > 0 else 0.0,
    }


def emotion_metrics(truth, found):
    return {
        "accuracy": accuracy_score(truth, found),
        "weighted_f1": weighted_f1(truth, found),
        "macro_f1": f1_score(truth, found, average="macro", zero_division=0),
    }


def weighted_f1(truth, found):
    return f1_score(truth, found, average="weighted", zero_division=0)


def negative_square(truth, found):
    return -np.mean((truth - found) ** 2)


def matrices(inputs, share, known, others):
    """Makes matrices of `known` and `others` with what is learnt of `known` alone: words weighted, numbers standardised.

    Some numbers are a hundred deviations away, so they are cut at three. `share` scales them: a row of words has length
    1, and one penalty serves both.
    """
    parts = []
    for name in inputs:
        if name == "text":
            part = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
            parts.append([part.fit_transform(known[name]), part.transform(others[name])])
        else:
            part = StandardScaler().fit(known[name])
            scaled = lambda numbers: csr_matrix(share * np.clip(part.transform(numbers), -3, 3))
            parts.append([scaled(known[name]), scaled(others[name])])
    return [hstack(side).tocsr() for side in zip(*parts)]


def choose(inputs, shares, settings, model, score, samples, truth, groups):
    """Returns the share and setting of the best mean score; no video or dialogue is on both sides of a fold."""
    rows = lambda chosen: {name: values[chosen] for name, values in samples.items()}
    totals = dict.fromkeys(itertools.product(shares, settings), 0.0)
    for share in shares:
        for learn, check in GroupKFold(5, shuffle=True, random_state=SEED).split(truth, groups=groups):
            known, others = matrices(inputs, share, rows(learn), rows(check))
            for setting in settings:
                found = model(setting).fit(known, truth[learn]).predict(others)
                totals[share, setting] += score(truth[check], found)
    return max(totals, key=totals.get)


def show(dataset, system, inputs, metrics, **chosen):
    numbers = {name: round(float(value), 4) for name, value in metrics.items()}
    print(json.dumps({"dataset": dataset, "system": system, "inputs": "+".join(inputs)} | numbers | chosen), flush=True)


def mosi(folder):
    (samples, truth, videos), (valid, valid_truth, _) = read_mosi(folder)
    # The median is the best constant for the error, and its sign is that of most samples.
    show("mosi", "median", [], sentiment_metrics(valid_truth, np.full(len(valid_truth), np.median(truth))))
    model = lambda alpha: Ridge(alpha=alpha)
    for inputs in (
        ["text"],
        ["sound"],
        ["vision"],
        ["sound", "vision"],
        ["text", "sound"],
        ["text", "vision"],
        ["text", "sound", "vision"],
    ):
        shares = [0.01, 0.03, 0.1, 0.3] if "text" in inputs and len(inputs) > 1 else [1]
        share, alpha = choose(inputs, shares, ALPHAS, model, negative_square, samples, truth, videos)
        known, others = matrices(inputs, share, samples, valid)
        found = model(alpha).fit(known, truth).predict(others)
        system = "tf-idf + ridge" if "text" in inputs else "ridge"
        show("mosi", system, inputs, sentiment_metrics(valid_truth, found), alpha=alpha, share=share)


def meld(folder):
    samples, truth, dialogues = read_meld(folder / "meld_train_sent_emo.csv")
    valid, valid_truth, _ = read_meld(folder / "meld_dev_sent_emo.csv")
    names, counts = np.unique(truth.astype(str), return_counts=True)
    majority = np.full(len(valid_truth), names[counts.argmax()], dtype=object)
    show("meld", "majority class", [], emotion_metrics(valid_truth, majority))
    inputs = ["text"]
    for weights in (None, "balanced"):
        model = lambda cost: LogisticRegression(C=cost, class_weight=weights, max_iter=2000, random_state=SEED)
        share, cost = choose(inputs, [1], COSTS, model, weighted_f1, samples, truth, dialogues)
        known, others = matrices(inputs, share, samples, valid)
        found = model(cost).fit(known, truth).predict(others)
        system = "tf-idf + logistic regression" + (", balanced" if weights else "")
        show("meld", system, inputs, emotion_metrics(valid_truth, found), C=cost)


if __name__ == "__main__":
    mosi(pathlib.Path(sys.argv[1]))
    meld(pathlib.Path(sys.argv[1]))
