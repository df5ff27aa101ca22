"""Trains the sample models from the data sets that ship inside scikit-learn, and writes model, sample input and
expected output of each bundle. Run `make train`; the results are committed.

Scores on the quarter of the data that was held back are printed and kept in samples/bundles/*/model/scores.json.
"""

import importlib.util
import json
import os
import pathlib

import joblib
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import train_test_split

BUNDLES = pathlib.Path(__file__).parent / "bundles"


def save(name, model, metric, score, sample):
    folder = BUNDLES / name
    (folder / "model").mkdir(exist_ok=True)
    joblib.dump(model, folder / "model" / f"{name}.joblib", compress=3)
    (folder / "model" / "scores.json").write_text(json.dumps({metric: round(score, 4)}) + "\n")
    (folder / "sample-input.json").write_text(json.dumps(sample) + "\n")
    print(f"{name}: {metric} {score:.4f}")


def expected(name, argument):
    """Runs the bundle's own entry script on the sample."""
    folder = BUNDLES / name
    os.environ["AZUREML_MODEL_DIR"] = str(folder / "model")
    spec = importlib.util.spec_from_file_location(name, folder / "score.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.init()
    (folder / "expected-output.json").write_text(json.dumps(script.run(argument)) + "\n")


def main():
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(images, labels, test_size=0.25, random_state=7)
    model = LogisticRegression(max_iter=5000, C=0.01).fit(train, train_labels)
    sevens = [image for image, label in zip(test, test_labels) if label == 7]
    sample = {"data": [[int(value) for value in sevens[0]]]}
    save("digits", model, "accuracy", model.score(test, test_labels), sample)
    expected("digits", json.dumps(sample))

    features, target = load_diabetes(return_X_y=True)
    train, test, train_target, test_target = train_test_split(features, target, test_size=0.25, random_state=7)
    model = Ridge(alpha=0.1).fit(train, train_target)
    sample = {"data": [[round(float(value), 6) for value in test[0]]]}
    save("diabetes", model, "r2", model.score(test, test_target), sample)
    expected("diabetes", sample["data"])


if __name__ == "__main__":
    main()
