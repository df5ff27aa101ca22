"""Trains the tutorial's model, handwritten digits, and saves it: train.py MODEL.pkl"""

import sys

import joblib
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

digits = load_digits()
train, test, train_labels, test_labels = train_test_split(digits.data, digits.target, test_size=0.25, random_state=0)
model = LogisticRegression(max_iter=5000, C=0.05).fit(train, train_labels)
print(f"accuracy {model.score(test, test_labels):.4f}", file=sys.stderr)
joblib.dump(model, sys.argv[1])
