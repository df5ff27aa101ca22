"""The repository's own function app, as the README shows it."""

import json

from conftest import ROOT, andiron, until
from openapi_spec_validator import validate


def sample(bundle, name):
    return json.loads((ROOT / "samples" / "bundles" / bundle / name).read_text())


def test_every_sample_gives_its_expected_output(repository, start):
    # The environments are cached, so nothing is installed: pip would find no index.
    host = start(repository, environment={"PIP_NO_INDEX": "1"})
    for function, bundle in (("DigitsScore", "digits"), ("DiabetesScore", "diabetes")):
        answer = host.post(f"/api/{function}", sample(bundle, "sample-input.json"))
        assert answer.status == 200, answer.text
        assert answer.json == sample(bundle, "expected-output.json")
        assert answer.headers["x-cache"] == "MISS"
        again = host.post(f"/api/{function}", sample(bundle, "sample-input.json"))
        assert again.json == answer.json
        assert again.headers["x-cache"] == "HIT"
    digit = host.post("/api/DigitsScore", sample("digits", "sample-input.json")).json
    assert digit["digit"] == [7]

    image = host.call("GET", "/api/ImageBytes?x=1&y=2")
    assert image.text == "/api/ImageBytes?x=1&y=2"
    assert image.headers["x-cache"] == "BYPASS"
    bundle = ROOT / "samples" / "bundles" / "image-bytes"
    reversed_text = host.call("POST", "/api/ImageBytes", (bundle / "sample-input.txt").read_bytes()).text
    assert reversed_text == (bundle / "expected-output.txt").read_text()
    body = bytes(range(256)) * 300
    assert host.call("POST", "/api/ImageBytes", body).body == body[::-1]

    score = host.post("/score", sample("digits", "sample-input.json"), x_ms_client_request_id="abc")
    assert score.json == sample("digits", "expected-output.json")
    assert score.headers["x-ms-run-function-failed"] == "False"
    assert score.headers["x-ms-client-request-id"] == "abc"
    assert score.headers["x-ms-request-id"] == "abc"
    assert score.headers["x-ms-server-version"].startswith("azmlinfsrv/")
    assert score.headers["x-request-id"]

    # `andiron invoke` prints the same.
    done = andiron("invoke", "digitsscore", "--url", host.info["url"], "-d", f"@{ROOT}/samples/bundles/digits/sample-input.json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == sample("digits", "expected-output.json")
    waited = andiron("wait", "--for", "DiabetesScore", "--ready-file", str(host.ready), "--timeout", "20")
    assert waited.returncode == 0, waited.stderr

    document = host.call("GET", "/openapi.json").json
    validate(document)
    schemas = document["components"]["schemas"]
    assert schemas["DiabetesScoreInput"]["properties"]["data"]["items"]["items"]["type"] == "number"
    assert "/api/ImageBytes" in document["paths"]


def test_the_declared_schema_checks_the_input(repository, start):
    host = start(repository, "--functions", "DiabetesScore")
    swagger = host.call("GET", "/swagger.json")
    assert swagger.json["swagger"] == "2.0"
    for version in ("2", "3", "3.1"):
        document = host.call("GET", f"/swagger.json?version={version}").json
        validate(document)
        definitions = document["definitions"] if version == "2" else document["components"]["schemas"]
        assert definitions["ServiceInput"]["example"]["data"]
    missing = host.call("GET", "/swagger.json?version=9")
    assert missing.status == 404
    assert missing.json["message"] == "Swagger version [9] is not valid. Supported versions: [2, 3, 3.1]."

    def score(body, kind="application/json"):
        return host.call("POST", "/score", body, {"Content-Type": kind})

    assert score(b"x", "text/plain").status == 415
    assert score(b"x", "text/plain").json == {"message": "Expects Content-Type to be application/json"}
    assert score(b"").json == {"message": "POST body is empty. Expecting a JSON dictionary."}
    assert score(b"[1]").json == {"message": "POST body should be a JSON dictionary."}
    assert score(b"{").status == 400
    assert score(b"{").json["message"].startswith("POST body could not be decoded as JSON: ")
    assert score(b"{}").json == {"message": "A value is not provided for the 'data' parameter."}
    wrong = score(b'{"data": [[1, 2]]}')
    assert wrong.status == 500
    assert wrong.headers["x-ms-run-function-failed"] == "True"
    assert wrong.json == {"message": "An unexpected error occurred in scoring script. Check the logs for more info."}
    # curl -d says it sends a form; it means JSON.
    form = score(json.dumps(sample("diabetes", "sample-input.json")).encode(), "application/x-www-form-urlencoded")
    assert form.status == 200
    # Another spelling of the same value is the same input.
    value = sample("diabetes", "sample-input.json")["data"]
    spelt = '{ "data" : [[' + " , ".join(f"{number}0" for number in value[0]) + "]] }"
    assert score(spelt.encode()).headers["x-cache"] == "HIT"


def test_the_functions_route_names_what_failed(repository, start):
    host = start(repository, "--functions", "DigitsScore")
    answer = host.post("/api/DigitsScore", '{"data": [[1, 2]]}')
    assert answer.status == 500
    error = answer.json["error"]
    assert "expecting 64 features" in error["message"] or "64 features" in error["message"]
    assert "score.py" in error["detail"]
    assert answer.json["function"] == "DigitsScore"
    until(lambda: answer.json["invocationId"] in host.log.read_text(), "the record of the failure")
    assert answer.json["log"] == str(host.log)
    nan = host.post("/api/DigitsScore", '{"data": [[' + ",".join(["NaN"] * 64) + "]]}")
    assert nan.status == 500
    assert "NaN" in nan.json["error"]["message"]
    invalid = host.post("/api/DigitsScore", b'{"data": "\xff"}')
    assert invalid.status == 400
    assert "Input cannot be decoded as UTF-8" in invalid.text


def test_a_digit_dropped_into_the_folder_is_scored(repository, start):
    host = start(repository)
    incoming = repository / "storage" / "incoming"
    until(incoming.is_dir, "the container")
    (incoming / "7.json").write_bytes((ROOT / "samples" / "bundles" / "digits" / "sample-input.json").read_bytes())
    scored = repository / "storage" / "scored" / "7.json"
    until(scored.exists, "the result")
    assert json.loads(scored.read_text()) == sample("digits", "expected-output.json")
    host.stop()
