"""Recognises handwritten digits: 8 x 8 grey values from 0 to 16, row by row, 64 numbers a digit.

Input:  {"data": [[64 numbers], ...]}
Output: {"digit": [7, ...], "probability": [0.99, ...]}
"""

import json
import os

import joblib
import numpy


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "digits.joblib"))


def run(data):
    pixels = numpy.array(json.loads(data)["data"], dtype=numpy.float64)
    probabilities = model.predict_proba(pixels)
    return {
        "digit": model.classes_[probabilities.argmax(axis=1)].tolist(),
        "probability": probabilities.max(axis=1).round(4).tolist(),
    }
