"""Entry scripts that behave and that do not, in worker processes."""

import concurrent.futures
import json
import os
import signal
import threading
import time

import pytest

from conftest import is_alive, until

ECHO = "def init(): pass\ndef run(data):\n    return data\n"


def test_helpers_models_and_output_reach_where_they_belong(app, start):
    app.function(
        "Score",
        """
import logging, os, sys
import helper
from azureml.core.model import Model

def init():
    global model
    model = open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "m.txt")).read()
    assert open(Model.get_model_path("m.txt")).read() == model
    print("init says hello")

def run(data):
    print("printing", data)
    logging.getLogger("mine").warning("careful")
    os.write(1, b"straight to descriptor 1\\n")
    return helper.twice(model) + data
""",
        {"helper.py": "def twice(text): return text * 2\n", "model/m.txt": "ab"},
    )
    host = start(app)
    answer = host.post("/api/Score", "x")
    assert answer.json == "ababx"
    until(lambda: len([r for r in host.records("log") if r.get("source") == "user"]) >= 4, "the output")
    lines = {r["message"]: r for r in host.records("log")}
    assert "init says hello" in lines and "straight to descriptor 1" in lines
    printed = lines["printing x"]
    assert printed["level"] == "Information" and printed["function"] == "Score"
    assert lines["mine: careful"]["level"] == "Warning"
    assert lines["mine: careful"]["invocation_id"] == printed["invocation_id"]


@pytest.mark.parametrize(
    "returned, body",
    [
        ("None", "{}"), ("[1, 2.5, 'é']", '[1, 2.5, "\\u00e9"]'), ("json.dumps({'a': 1})", '"{\\"a\\": 1}"'),
        ("float('nan')", "NaN"), ("True", "true"), ("(1, 2)", "[1, 2]"),
    ],
)
def test_return_values_become_json_as_azure_ml_has_it(app, start, returned, body):
    app.function("Score", f"import json\ndef init(): pass\ndef run(data):\n    return {returned}\n")
    assert start(app).post("/score", "x").text == body


FAILURES = {
    "raises": ("raise ValueError('bad shape')", "AN4004", "ValueError: bad shape"),
    "exits": ("import sys; sys.exit(3)", "AN4004", "the entry script called sys.exit(3) in run()"),
    "interrupts": ("raise KeyboardInterrupt()", "AN4004", "KeyboardInterrupt"),
    "returns a set": ("return {1, 2}", "AN4005", "run() returned a value that is not JSON: Object of type set is not JSON serializable"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_script_that_fails_leaves_its_worker_alive(app, start, name):
    code, number, message = FAILURES[name]
    app.function("Score", f"def init(): pass\ndef run(data):\n    if data == 'ok': return 1\n    {code}\n")
    host = start(app)
    failed = host.post("/api/Score", "x")
    assert failed.status == 500
    assert failed.json["error"]["code"] == number and failed.json["error"]["message"] == message
    pids = host.workers()
    score = host.post("/score", "x")
    assert score.status == 500
    assert score.headers["x-ms-run-function-failed"] == ("False" if number == "AN4005" else "True")
    assert host.post("/api/Score", "ok").text == "1"
    assert host.workers() == pids


def test_strict_failures_have_an_empty_body(app, start):
    app.function("Score", "def init(): pass\ndef run(data): raise ValueError()\n")
    answer = start(app, "--strict").post("/api/Score", "x")
    assert answer.status == 500 and answer.body == b""


DEATHS = {
    "os._exit": ("os._exit(7)", "exit status 7"),
    "a crash": ("import ctypes; ctypes.string_at(0)", "signal 11"),
    "garbage": ("os.write(3, b'hello, host')", "is no frame"),
    "closing the channel": ("os.close(3); time.sleep(30)", ""),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_worker_that_dies_is_replaced_and_its_request_told(app, start, name):
    code, message = DEATHS[name]
    app.function("Score", f"import os, time\ndef init(): pass\ndef run(data):\n    if data == 'ok': return 1\n    {code}\n    return 2\n")
    host = start(app, environment={"AzureFunctionsJobHost__functionTimeout": "00:00:02"})
    assert host.post("/api/Score", "ok").text == "1"
    old = host.workers()
    begun = time.monotonic()
    failed = host.post("/api/Score", "die")
    assert failed.status == 500, failed.text
    assert failed.json["error"]["code"] in ("AN4002", "AN4003", "AN4007") and message in failed.json["error"]["message"]
    if name != "closing the channel":
        assert time.monotonic() - begun < 1.5, "told at once"
    assert host.post("/api/Score", "ok").text == "1"
    assert host.workers() != old
    assert not any(is_alive(pid) for pid in old)


def test_requests_behind_a_dead_one_are_run_by_the_next_worker(app, start):
    app.function("Score", "import os, time\ndef init(): pass\ndef run(data):\n    time.sleep(0.2)\n    if data == 'die': os._exit(1)\n    return data\n")
    host = start(app)
    host.post("/api/Score", "warm")
    answers = {}

    def call(text):
        answers[text] = host.post("/api/Score", text)

    threads = [threading.Thread(target=call, args=(text,)) for text in ("die", "a", "b", "c")]
    for thread in threads:
        thread.start()
        time.sleep(0.03)
    for thread in threads:
        thread.join()
    assert answers["die"].status == 500
    assert [answers[text].text for text in "abc"] == ['"a"', '"b"', '"c"']


def test_a_script_that_never_returns_is_ended(app, start):
    app.write("host.json", {"version": "2.0", "functionTimeout": "00:00:01"})
    app.function("Score", "import time\ndef init(): pass\ndef run(data):\n    while data == 'hang': time.sleep(1)\n    return 1\n")
    host = start(app)
    host.post("/api/Score", "x")
    old = host.workers()
    begun = time.monotonic()
    failed = host.post("/api/Score", "hang")
    assert failed.status == 500 and failed.json["error"]["code"] == "AN4003"
    assert "functionTimeout" in failed.json["error"]["try"]
    assert 0.9 < time.monotonic() - begun < 5
    assert host.post("/api/Score", "x").text == "1"
    assert not any(is_alive(pid) for pid in old)


def test_the_scoring_timeout_of_the_deployment_configuration(app, start):
    app.function("Score", "import time\ndef init(): pass\ndef run(data):\n    time.sleep(5)\n", {"deploymentconfig.json": {"scoringTimeoutMs": 300}})
    failed = start(app).post("/score", "x")
    assert failed.status == 500 and "longer than 0.3 s" in failed.json["message"]


def test_a_worker_that_outgrows_its_memory_is_ended(app, start):
    app.function(
        "Score",
        "import time\nkept = []\ndef init(): pass\ndef run(data):\n    if data == 'ok': return 1\n    for _ in range(40):\n        kept.append(b'x' * (10 << 20))\n        time.sleep(0.02)\n    return 2\n",
        {"deploymentconfig.json": {"containerResourceRequirements": {"cpu": 1, "memoryInGB": 0.1}}},
    )
    host = start(app)
    assert host.post("/api/Score", "ok").text == "1"
    failed = host.post("/api/Score", "grow")
    assert failed.status == 500 and failed.json["error"]["code"] == "AN4006", failed.text
    assert "limit of 102 MB" in failed.json["error"]["message"]
    assert host.post("/api/Score", "ok").text == "1"


def test_cores_are_honoured(app, start):
    script = "import os\ndef init(): pass\ndef run(data): return [len(os.sched_getaffinity(0)), os.environ.get('OMP_NUM_THREADS')]\n"
    app.function("Score", script, {"deploymentconfig.json": {"containerResourceRequirements": {"cpu": 1}}})
    assert start(app).post("/api/Score", "x").json == [1, "1"]


def test_a_script_that_forks_answers_once_and_leaves_nothing(app, start):
    app.function("Score", "import os, time\ndef init(): pass\ndef run(data):\n    pid = os.fork()\n    if pid == 0 and data == 'stay': time.sleep(1000)\n    return pid\n")
    host = start(app)
    for _ in range(5):
        assert host.post("/api/Score", "x").json > 0
    child = host.post("/api/Score", "stay").json
    assert is_alive(child)
    host.stop()
    until(lambda: not is_alive(child), "the child's end")


def test_a_million_lines_are_bounded(app, start):
    app.function("Score", "def init(): pass\ndef run(data):\n    for i in range(1000000): print('line', i)\n    return 1\n")
    host = start(app)
    assert host.post("/api/Score", "x").text == "1"
    until(lambda: any("lines skipped" in r.get("message", "") for r in host.records("log")), "the count of lines left out")
    assert host.log.stat().st_size < 64 << 20
    assert host.post("/api/Score", "x").text == "1"


INITS = {
    "raises": ("def init(): raise RuntimeError('no model')\ndef run(data): pass\n", "RuntimeError: no model", "init"),
    "a missing module": ("import nowhere_to_be_found\ndef init(): pass\ndef run(data): pass\n", "No module named 'nowhere_to_be_found'", "import"),
    "a missing model": ("import os\ndef init(): open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'model.pkl'))\ndef run(data): pass\n", "No such file or directory", "Model Directory Contents"),
    "a syntax error": ("def init(:\n", "SyntaxError", "init"),
    "no run": ("def init(): pass\n", "does not have a run() function defined.", ""),
    "sys.exit": ("import sys\ndef init(): sys.exit(4)\ndef run(data): pass\n", "sys.exit(4)", ""),
    "os._exit": ("import os\ndef init():\n    print('going', flush=True)\n    os.write(2, b'last words\\n')\n    os._exit(9)\ndef run(data): pass\n", "exit status 9", "last words"),
    "arguments": ("def init(): pass\ndef run(*args): pass\n", "run() cannot accept positional-only arguments, *args, or **kwargs.", ""),
}


@pytest.mark.parametrize("name", INITS)
def test_a_script_that_cannot_start_shows_why_and_recovers(app, start, name):
    script, message, detail = INITS[name]
    app.function("Score", script)
    app.function("Other")
    host = start(app)
    failed = host.post("/api/Score", "x")
    assert failed.status == 500
    assert message in failed.json["error"]["message"], failed.text
    assert detail in failed.json["error"].get("detail", "") or detail == "import"
    assert host.post("/api/Other", "x").status == 200
    assert message in host.call("GET", "/admin/functions/Score/status").json["errors"][0]
    assert "[-] function Score" in host.call("GET", "/readyz?verbose").text
    app.write("Score/score.py", ECHO)
    until(lambda: host.post("/api/Score", "x").status == 200, "the corrected script")


def test_several_processes(app, start):
    app.function("Score", "import os, time\ndef init(): pass\ndef run(data):\n    time.sleep(0.05)\n    return os.getpid()\n")
    host = start(app, environment={"FUNCTIONS_WORKER_PROCESS_COUNT": "3"})
    host.post("/api/Score", "x")
    pids = until(lambda: len(host.workers()) == 3 and host.workers(), "three workers")
    seen = set()

    def call():
        seen.add(host.post("/api/Score", "x").json)

    def enough():
        threads = [threading.Thread(target=call) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return seen == set(pids)

    until(enough, "all workers in use")


def test_the_number_of_workers_is_restored_after_crashes_in_a_row(app, start):
    app.function("Score", "import os\ndef init(): pass\ndef run(data): os._exit(1)\n")
    host = start(app, environment={"FUNCTIONS_WORKER_PROCESS_COUNT": "2"})
    for _ in range(4):
        # Each crash meets two ready workers, so that the pause after several is what restores the number.
        until(lambda: "2 workers ready" in host.call("GET", "/readyz?verbose").text, "two workers", deadline=10)
        assert host.post("/api/Score", "x").status == 500
    until(lambda: "2 workers ready" in host.call("GET", "/readyz?verbose").text, "two workers again", deadline=10)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_orphan_is_left_when_the_host_dies(app, start, number):
    app.function("Score", "import os, time\ndef init():\n    global child\n    child = os.fork()\n    if child == 0: time.sleep(1000)\ndef run(data):\n    if data == 'hang': time.sleep(1000)\n    return child\n")
    host = start(app, "--shutdown-timeout", "0.2")
    child = host.post("/api/Score", "x").json
    pids = host.workers()
    threading.Thread(target=lambda: host.raw(b"POST /api/Score HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nhang"), daemon=True).start()
    until(lambda: "1" in [l.split()[-1] for l in host.call("GET", "/metrics").text.splitlines() if l.startswith("andiron_workers") and "busy" in l or l.startswith("andiron_workers") and '"busy"' in l] or "1.0" in host.call("GET", "/metrics").text, "a busy worker")
    host.stop(number)
    until(lambda: not any(is_alive(pid) for pid in pids + [child]), "the end of all processes")


def test_raw_http_scripts(app, start):
    app.function(
        "Raw",
        """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    if request.method == "DELETE":
        return AMLResponse({"gone": True}, 202, {"X-Two": "a, b"}, json_str=True)
    if request.path.endswith("fail"):
        return AMLResponse("broken", 503)
    return {"method": request.method, "args": request.args.to_dict(), "header": request.headers["X-Mine"], "size": len(request.get_data())}
""",
        {"requirements.txt": "azureml-contrib-services==1.62.0\ninference-schema==1.8\n"},
        route="raw/{*rest}",
    )
    host = start(app)
    answer = host.call("PUT", "/api/raw/x?a=1", b"\x00\xff" * 10, {"X-Mine": "v"})
    assert answer.json == {"method": "PUT", "args": {"a": "1"}, "header": "v", "size": 20}
    gone = host.call("DELETE", "/api/raw/x")
    assert gone.status == 202 and gone.json == {"gone": True} and gone.headers["content-type"] == "application/json"
    assert host.call("GET", "/api/raw/fail").status == 503
    assert host.call("OPTIONS", "/score", headers={"X-Mine": "o"}).json["method"] == "OPTIONS"
    assert host.call("GET", "/score", headers={"X-Mine": "v", "x-request-id": "q" * 101}).status == 431


def test_request_headers_and_get_arguments(app, start):
    app.function("Score", "def init(): pass\ndef run(data, request_headers): return [data, request_headers.get('X-Mine')]\n")
    host = start(app)
    assert host.post("/score", "in", X_Mine="h").json == ["in", "h"]
    assert host.call("GET", '/score?a=1&b=[1,2]&d=null&f=x&f=y').json[0] == '{"a": 1, "b": [1, 2], "d": null, "f": ["x", "y"]}'
    assert host.call("HEAD", "/score").status == 405
    assert host.call("PUT", "/score").json == {"message": "The method is not allowed for the requested URL."}
    options = host.call("OPTIONS", "/score")
    assert options.status == 200 and options.body == b""


def test_a_deleted_model_file_is_an_error_that_names_it(app, start):
    app.function("Score", "import os\ndef init(): pass\ndef run(data): return open(os.environ['AZUREML_MODEL_DIR'] + '/m').read()\n", {"model/m": "v1"})
    host = start(app)
    assert host.post("/api/Score", "x").json == "v1"
    os.unlink(app.folder / "Score" / "model" / "m")
    failed = until(lambda: (a := host.post("/api/Score", "x")).status == 500 and a, "the failure")
    assert "No such file or directory" in failed.json["error"]["message"]


def test_dependencies_that_cannot_be_had(app, start):
    app.function("NoDefaults", ECHO, {"inferenceconfig.json": {"entryScript": "score.py", "environment": {"python": {"condaDependenciesFile": "conda.yml"}}}, "conda.yml": "dependencies: [numpy, {pip: ['azureml-defaults==1.0.44']}]"})
    app.function("CondaOnly", ECHO, {"conda.yml": "dependencies:\n- cudatoolkit=11\n"})
    app.function("NoSuch", ECHO, {"requirements.txt": "no-such-package-anywhere-andiron==1\n"})
    host = start(app)
    refused = host.post("/api/NoDefaults", "x").json["error"]
    assert refused["code"] == "AN5004" and "1.0.45" in refused["try"]
    conda = host.post("/api/CondaOnly", "x").json["error"]
    assert conda["code"] == "AN5003" and "'cudatoolkit'" in conda["message"] and "conda.yml:2" in conda["detail"]
    missing = host.post("/api/NoSuch", "x", ).json["error"]
    assert missing["code"] == "AN5005" and "no-such-package-anywhere-andiron" in missing["message"]
    assert missing["try"].startswith("see /")


def test_calls_that_may_wait_have_a_limit(app, start):
    app.function("Slow", "import time\ndef init(): pass\ndef run(data):\n    time.sleep(float(data))\n    return data\n")
    host = start(app, environment={"ANDIRON_WORKER_QUEUE": "2"})
    assert host.post("/api/Slow", "0").status == 200
    # The worker has one that runs; a second is with it, so that it need not wait for the next.
    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        begun = [threads.submit(host.post, "/api/Slow", "3")]
        until(lambda: "in_flight{function=\"Slow\"} 1" in host.call("GET", "/metrics").text, "the call that runs")
        begun += [threads.submit(host.post, "/api/Slow", "0") for _ in range(10)]
        answers = [each.result() for each in begun]
    refused = [a for a in answers if a.status == 503]
    assert {a.status for a in answers} == {200, 503}
    assert all(a.json["error"]["code"] == "AN4008" for a in refused)
    depth = len(answers) - len(refused) - 2
    assert 1 <= depth <= 8, depth


def test_a_start_has_a_limit(app, start):
    app.function("Late", "import time\ndef init(): time.sleep(60)\ndef run(data): return data\n")
    host = start(app, environment={"ANDIRON_WORKER_START_SECONDS": "1"})
    answer = host.post("/api/Late", "x")
    assert answer.status == 500 and answer.json["error"]["code"] == "AN4001"
    assert "init() took longer than 1.0 s" in answer.json["error"]["message"]
