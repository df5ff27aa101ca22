"""Takes raw bytes: GET answers the request's full path, POST the body reversed."""

from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    print("ready for bytes")


@rawhttp
def run(request: AMLRequest):
    if request.method == "GET":
        return AMLResponse(request.full_path.encode(), 200)
    if request.method == "POST":
        return AMLResponse(request.get_data(False)[::-1], 200, {"Content-Type": "application/octet-stream"})
    return AMLResponse("bad request: GET or POST", 400)
