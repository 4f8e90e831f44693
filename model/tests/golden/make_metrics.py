"""Makes metrics.json: random scores and classes with the metrics that numpy and scikit-learn give for them.

Run with numpy and scikit-learn: python make_metrics.py (writes beside itself). The definitions of the sentiment metrics
are those of thuiar/MMSA metricsTop.py, restated.
"""

import json
import pathlib
import random

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score


def sentiment(truths, predictions):
    y, p = np.array(truths), np.array(predictions)
    non0 = y != 0
    classes = lambda values, limit: np.round(np.clip(values, -limit, limit))
    return {
        "mae": np.mean(np.abs(y - p)),
        "corr": np.corrcoef(y, p)[0, 1],
        "acc7": np.mean(classes(y, 3) == classes(p, 3)),
        "acc5": np.mean(classes(y, 2) == classes(p, 2)),
        "acc2_has0": accuracy_score(y >= 0, p >= 0),
        "f1_has0": f1_score(y >= 0, p >= 0, average="weighted"),
        "acc2_non0": accuracy_score(y[non0] > 0, p[non0] > 0),
        "f1_non0": f1_score(y[non0] > 0, p[non0] > 0, average="weighted"),
    }


def emotion(truths, predictions):
    known = sorted(set(truths) | {p for p in predictions if p >= 0})
    options = {"labels": known, "zero_division": 0}
    return {
        "acc": accuracy_score(truths, predictions),
        "wf1": f1_score(truths, predictions, average="weighted", **options),
        "macro_f1": f1_score(truths, predictions, average="macro", **options),
    }


def main():
    rng = random.Random(20221211)
    cases = {"sentiment": [], "emotion": []}
    for size in (5, 40, 160):
        # Fifths and halves hit the borders of rounding; predictions leave [-3, 3].
        truths = [rng.choice([rng.randint(-15, 15) / 5, rng.randint(-6, 6) / 2, 0.0]) for _ in range(size)]
        predictions = [rng.choice([t, round(t + rng.gauss(0, 1), 1), rng.randint(-8, 8) / 2, 0.0]) for t in truths]
        metrics = {name: float(value) for name, value in sentiment(truths, predictions).items()}
        cases["sentiment"].append({"truths": truths, "predictions": predictions, "metrics": metrics})
    for size, classes, outside in ((6, 3, 0.0), (60, 7, 0.0), (120, 6, 0.1)):
        truths = [min(rng.randrange(classes), rng.randrange(classes)) for _ in range(size)]
        # -1 stands for a word outside the vocabulary.
        predictions = [
            -1 if rng.random() < outside else rng.choice([t, t, rng.randrange(classes)]) for t in truths
        ]
        metrics = {name: float(value) for name, value in emotion(truths, predictions).items()}
        matrix = confusion_matrix(truths, predictions, labels=list(range(classes)))
        cases["emotion"].append(
            {
                "classes": classes,
                "truths": truths,
                "predictions": predictions,
                "metrics": metrics,
                "confusion": matrix.tolist(),
            }
        )
    path = pathlib.Path(__file__).with_name("metrics.json")
    path.write_text(json.dumps(cases, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
