"""Predicts the progression of diabetes from ten measurements; the input's shape is declared and checked."""

import os

import joblib
import numpy
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

SAMPLE = numpy.array([[0.038, 0.051, 0.062, 0.022, -0.044, -0.035, -0.043, -0.003, 0.020, -0.018]])


def init():
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "diabetes.joblib"))


@input_schema("data", NumpyParameterType(SAMPLE))
@output_schema(StandardPythonParameterType({"progression": [206.1]}))
def run(data):
    return {"progression": [round(float(value), 3) for value in model.predict(data)]}
