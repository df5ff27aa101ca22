"""Apps that come from images: packaged, pushed, started cold, updated, and what their settings do."""

import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

import registry as r
from conftest import ANDIRON, CACHE, ROOT, Host, until
from registry import PASSWORD, USER, tar

SCRIPT = """
import os, json
def init():
    global text
    folder = os.environ["AZUREML_MODEL_DIR"]
    text = open(os.path.join(folder, os.listdir(folder)[0])).read()
def run(data):
    return {"model": text, "version": "%s", "greeting": os.environ.get("GREETING"),
            "password": os.environ.get("DOCKER_REGISTRY_SERVER_PASSWORD")}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = r.Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


class Workplace:
    """A place of its own for state and images, with the environments all tests share."""

    def __init__(self, folder, registry):
        self.folder, self.registry = folder, registry
        self.cache = folder / "cache"
        self.cache.mkdir()
        pathlib.Path(CACHE, "environments").mkdir(parents=True, exist_ok=True)
        (self.cache / "environments").symlink_to(pathlib.Path(CACHE, "environments"))
        self.environment = {"ANDIRON_STATE": str(folder / "state"), "ANDIRON_CACHE": str(self.cache), "HOME": str(folder)}

    def run(self, *arguments, ok=True, input=None):
        done = subprocess.run(
            [ANDIRON, *map(str, arguments)], capture_output=True, text=True, timeout=90, input=input,
            env={**os.environ, **self.environment}, cwd=self.folder)
        if ok:
            assert done.returncode == 0, done.stderr
        return done

    def json(self, *arguments):
        return json.loads(self.run(*arguments).stdout)

    def package(self, *arguments, version="1", host=None, **options):
        model = self.folder / "model.txt"
        if not model.exists():
            model.write_text("weights")
        script = self.folder / "score.py"
        script.write_text(SCRIPT % version)
        return self.run(
            "package", "--model", model, "--entry-script", script, "--registry", host or self.registry.host, "--username", USER,
            "--password", PASSWORD, "--auth-level", "anonymous", *arguments, **options)

    def app(self, image, name="app", host=None, **settings):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        values = {
            "DOCKER_CUSTOM_IMAGE_NAME": f"{host or self.registry.host}/{image}",
            "DOCKER_REGISTRY_SERVER_URL": f"http://{host or self.registry.host}",
            "DOCKER_REGISTRY_SERVER_USERNAME": USER, "DOCKER_REGISTRY_SERVER_PASSWORD": PASSWORD, **settings}
        values = {k: v for k, v in values.items() if v is not None}
        new = folder / "settings.new"
        new.write_text(json.dumps({"IsEncrypted": False, "Values": values}))
        new.rename(folder / "local.settings.json")
        return folder


@pytest.fixture
def place(tmp_path, registry):
    return Workplace(tmp_path, registry)


def begin(start, place, folder, *arguments, wait=False):
    host = start(folder, *arguments, environment=place.environment, wait=wait)
    if not wait:
        until(lambda: "waiting for" in host.printed() or host.process.poll() is not None, "the port")
        assert host.process.poll() is None, host.printed()
        line = next(line for line in host.printed().splitlines() if "waiting for" in line)
        host.port = int(line.split(",")[0].rsplit(":", 1)[1])
    return host


def docker_log(host):
    return "".join(p.read_text() for p in (host.folder / ".andiron/logs/LogFiles").glob("*_docker.log"))


def test_a_packaged_model_starts_cold_from_a_folder_with_nothing_but_settings(place, start):
    location = place.package("--image-label", "v1").stdout.strip()
    assert location.startswith(f"{place.registry.host}/package@sha256:") and len(location.split(":")[-1]) == 64
    folder = place.app("package:v1", GREETING="hello")
    assert os.listdir(folder) == ["local.settings.json"]
    host = begin(start, place, folder)
    answer = host.post("/api/score", {}).json
    assert answer == {"model": "weights", "version": "1", "greeting": "hello", "password": None}
    log = docker_log(host)
    for line in ("Pulling image: ", "v1 Pulling from package", "Pulling fs layer", "Verifying Checksum", "Pull complete",
                 " Digest: " + location.split("@")[1], "Status: Downloaded newer image for", "Pull Image successful, Time taken:",
                 "Starting container for site", "Initiating warmup request to container",
                 "for site app initialized successfully and is ready to serve requests."):
        assert line in log, line
    ready = until(lambda: [e for e in host.records("cold_start") if e["message"].startswith("the image is ready")], "the record")[0]
    assert ready["digest"] == location.split("@")[1]
    for phase in ("resolve", "pull", "unpack", "load", "warm-up"):
        assert phase + "=" in ready["milliseconds"]
    layers = {e["role"] for e in host.records("image_progress") if e["state"] == "done"}
    assert layers == {"model", "code"}
    assert PASSWORD not in host.printed() + log + host.log.read_text()


def test_a_second_start_has_everything_and_asks_once(place, start):
    place.package("--image-label", "again")
    folder = place.app("package:again")
    begin(start, place, folder, wait=True).stop()
    before = len([e for e in place.registry.log() if "response completed" in e.get("msg", "")])
    host = begin(start, place, folder, wait=True)
    assert host.post("/api/score", {}).status == 200
    requests = [e for e in place.registry.log() if "response completed" in e.get("msg", "")][before:]
    assert [e["http.request.method"] for e in requests] == ["HEAD"]
    assert "Image is up to date for" in docker_log(host)


def test_requests_wait_for_the_image_and_are_told_the_phase_when_it_takes_too_long(place, start):
    place.package("--image-label", "slow")
    proxy = r.FaultProxy(place.registry)
    proxy.fault("HEAD .*/manifests/slow", lambda h, a: time.sleep(2.5))
    folder = place.app("package:slow", host=proxy.host, ANDIRON_COLD_START_WAIT="1")
    host = begin(start, place, folder)
    early = host.post("/api/score", {})
    assert early.status == 503 and early.headers["retry-after"] == "10"
    assert early.json["code"] == "AN9015" and early.json["phase"] == "resolve"
    assert host.call("GET", "/readyz").status == 503
    assert "cold start: resolve" in host.call("GET", "/readyz?verbose").text
    until(lambda: host.post("/api/score", {}).status == 200, "the app")
    proxy.stop()


def test_an_app_without_credentials_is_inactive_until_they_are_set(place, start):
    place.package("--image-label", "private")
    folder = place.app("package:private", DOCKER_REGISTRY_SERVER_USERNAME=None, DOCKER_REGISTRY_SERVER_PASSWORD=None)
    host = begin(start, place, folder)
    answer = until(lambda: (a := host.post("/api/score", {})).status == 503 and "inactive" in a.text and a, "inactive")
    assert answer.json["code"] == "AN9016"
    assert "DOCKER_REGISTRY_SERVER_USERNAME, DOCKER_REGISTRY_SERVER_PASSWORD" in answer.json["message"]
    place.app("package:private")
    until(lambda: host.post("/api/score", {}).status == 200, "the pull after the settings")
    assert "unauthorized: authentication required" in docker_log(host)


def test_an_update_keeps_the_old_image_serving_until_the_new_one_is_warm(place, start):
    place.package("--image-label", "u1")
    slow = "import time\ntime.sleep(1.5)\n"
    script = place.folder / "score.py"
    place.package("--image-label", "u1", version="1")
    script.write_text(slow + SCRIPT % "2")
    place.run("package", "--model", place.folder / "model.txt", "--entry-script", script, "--registry", place.registry.host,
              "--username", USER, "--password", PASSWORD, "--auth-level", "anonymous", "--image-label", "u2")
    folder = place.app("package:u1")
    host = begin(start, place, folder, wait=True)
    assert host.post("/api/score", {}).json["version"] == "1"
    place.app("package:u2")
    seen = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and (not seen or seen[-1] != "2"):
        answer = host.post("/api/score", {})
        assert answer.status == 200, answer.text
        seen.append(answer.json["version"])
    assert seen[-1] == "2" and seen.count("1") > 5 and seen == sorted(seen)
    # One that cannot work leaves the running one alone, and says why.
    place.app("package:nowhere")
    until(lambda: any("manifest unknown" in e.get("message", "") for e in host.records("cold_start")), "the failure")
    assert host.post("/api/score", {}).json["version"] == "2"
    script.write_text("def init():\n    raise RuntimeError('broken model')\ndef run(data):\n    return 1\n")
    place.run("package", "--entry-script", script, "--registry", place.registry.host, "--username", USER, "--password", PASSWORD,
              "--auth-level", "anonymous", "--image-label", "u3")
    place.app("package:u3")
    until(lambda: any("broken model" in e.get("message", "") for e in host.records("cold_start")), "the failed warm-up")
    assert host.post("/api/score", {}).json["version"] == "2"


def test_a_changed_setting_recycles_the_app(place, start):
    place.package("--image-label", "recycle")
    folder = place.app("package:recycle", GREETING="one")
    host = begin(start, place, folder, wait=True)
    assert host.post("/api/score", {}).json["greeting"] == "one"
    place.app("package:recycle", GREETING="two")
    until(lambda: host.post("/api/score", {}).json["greeting"] == "two", "the new setting")


def test_the_registrys_webhook_updates_the_app(place, start):
    place.package("--image-label", "hook")
    folder = place.app("package:hook", DOCKER_ENABLE_CI="true")
    (folder / ".andiron").mkdir()
    (folder / ".andiron/webhook-password").write_text("geheim")
    host = begin(start, place, folder, wait=True)
    place.package("--image-label", "hook", version="2")
    event = {"action": "push", "target": {"repository": "package", "tag": "hook"}}
    assert host.post("/docker/hook", event).status == 401
    basic = lambda password: "Basic " + r.base64.b64encode(f"$app:{password}".encode()).decode()
    assert host.post("/docker/hook", event, Authorization=basic("wrong")).status == 401
    other = {"action": "push", "target": {"repository": "other", "tag": "hook"}}
    assert host.post("/docker/hook", other, Authorization=basic("geheim")).status == 200
    assert host.post("/docker/hook", {"events": [event]}, Authorization=basic("geheim")).status == 202
    until(lambda: host.post("/api/score", {}).json["version"] == "2", "the pushed image")


def test_the_start_time_limit_is_honoured(place, start):
    place.package("--image-label", "limit")
    proxy = r.FaultProxy(place.registry)
    proxy.fault("GET .*/blobs/", r.silent)
    folder = place.app("package:limit", host=proxy.host, WEBSITES_CONTAINER_START_TIME_LIMIT="10", ANDIRON_COLD_START_WAIT="0")
    host = begin(start, place, folder)
    until(lambda: host.post("/api/score", {}).json.get("code") == "AN9010", "the time limit", 25)
    assert "Image pull failed" in docker_log(host)
    proxy.stop()


def test_a_start_without_the_registry_takes_the_local_copy(place, start, tmp_path):
    own = r.Registry(tmp_path / "own")
    place.registry = own
    place.package("--image-label", "local")
    folder = place.app("package:local")
    begin(start, place, folder, wait=True).stop()
    own.stop()
    host = begin(start, place, folder, wait=True)
    assert host.post("/api/score", {}).status == 200
    assert "Defaulting to local copy" in docker_log(host)


def test_an_image_that_is_no_app_says_so(place, start):
    place.registry.push("other", "1", [tar(("etc/hello", b"x"))])
    host = begin(start, place, place.app("other:1"))
    answer = until(lambda: (a := host.post("/api/score", {})).status == 503 and a.json["code"] == "AN9013" and a, "the reason")
    assert "there is no host.json in '/home/site/wwwroot'" in answer.json["message"]


def test_validate_checks_the_settings_of_an_app_without_files(place):
    folder = place.app("package:v1", WEBSITES_CONTAINER_START_TIME_LIMIT="9", WEBSITES_PORT="70000", WEBSITES_ENABLE_APP_SERVICE_STORAGE="true")
    done = place.run("validate", folder)
    assert "from 10 to 1800" in done.stderr and "from 1 to 65535" in done.stderr and "hides the functions" in done.stderr
    assert "0 errors, 3 warnings" in done.stdout
    for limit in ("10", "1800"):
        assert "0 warnings" in place.run("validate", place.app("package:v1", WEBSITES_CONTAINER_START_TIME_LIMIT=limit)).stdout
    assert "1 warnings" in place.run("validate", place.app("package:v1", WEBSITES_CONTAINER_START_TIME_LIMIT="1801")).stdout
    assert "several containers" in place.run("validate", place.app("x", DOCKER_CUSTOM_IMAGE_NAME="COMPOSE|abc")).stderr


# Packaging.

def inspect(place, reference, *more):
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--creds", f"{USER}:{PASSWORD}", *more, f"docker://{place.registry.host}/{reference}"],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_tools_take_the_image(place, tmp_path):
    for form in ("oci", "docker"):
        location = place.package("--image-label", form, "--format", form).stdout.strip()
        seen = inspect(place, f"package:{form}")
        assert seen["Digest"] == location.split("@")[1]
        assert seen["Labels"]["org.opencontainers.image.title"] == "score"
        env = dict(e.split("=", 1) for e in seen["Env"])
        assert env["AzureWebJobsScriptRoot"] == "/home/site/wwwroot" and env["AML_APP_ROOT"] == "/var/azureml-app"
        assert env["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/model.txt/0"
        raw = inspect(place, f"package:{form}", "--raw")
        assert ("docker" in raw["mediaType"]) == (form == "docker")
    layout = tmp_path / "layout"
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", "--src-creds", f"{USER}:{PASSWORD}",
         f"docker://{place.registry.host}/package:oci", f"oci:{layout}:v1"], check=True, capture_output=True)
    subprocess.run(["umoci", "unpack", "--rootless", "--image", f"{layout}:v1", str(tmp_path / "bundle")], check=True, capture_output=True)
    root = tmp_path / "bundle/rootfs"
    assert (root / "var/azureml-app/azureml-models/model.txt/0/model.txt").read_text() == "weights"
    assert json.loads((root / "home/site/wwwroot/score/function.json").read_text())["bindings"][0]["type"] == "httpTrigger"


def test_equal_inputs_give_equal_digests_and_a_change_of_code_pushes_only_code(place):
    first = place.package("--image-label", "same", "--show-output")
    second = place.package("--image-label", "same", "--show-output")
    assert first.stdout == second.stdout
    assert second.stderr.count("already exists") == 3 and "pushed" not in second.stderr
    third = place.package("--image-label", "same", "--show-output", version="3")
    assert third.stdout != first.stdout
    lines = third.stderr.splitlines()
    pushed = [line.split(":")[0] for line in lines if line.endswith(": pushed")]
    code = next(line for line in lines if "code layer" in line)
    assert len(pushed) == 2 and any(digest in code for digest in pushed), third.stderr


def test_a_base_is_mounted_and_not_downloaded(place):
    base = tar(("bin/python", os.urandom(1 << 20)))
    place.registry.push("bases/python", "3.11", [base], config={"config": {"Env": ["PATH=/bin", "LANG=C"], "Cmd": ["/start.sh"]}})
    proxy = r.FaultProxy(place.registry)
    done = place.package("--image-label", "full", "--show-output", "--base", f"{proxy.host}/bases/python:3.11", host=proxy.host)
    assert ": mounted" in done.stderr
    assert proxy.count("GET .*/blobs/" + r.sha(base)) == 0
    seen = inspect(place, "package:full")
    assert seen["Layers"][0] == r.sha(base) and len(seen["Layers"]) == 3
    assert {"PATH=/bin", "LANG=C", "FUNCTIONS_WORKER_RUNTIME=python"} <= set(seen["Env"])
    raw = inspect(place, "package:full", "--raw")
    assert [layer["annotations"]["io.andiron.layer.role"] for layer in raw["layers"]] == ["base", "model", "code"]
    assert raw["annotations"]["org.opencontainers.image.base.name"].endswith("/bases/python:3.11")
    proxy.stop()


def test_images_with_a_name_get_versions(place):
    for version in ("1", "2"):
        place.package("--image-name", "versions", version=version)
    assert set(inspect(place, "versions:2")["RepoTags"]) == {"1", "2"}


@pytest.mark.parametrize("trigger, arguments, wire, binding", [
    ("http", ["--auth-level", "admin"], {"trigger": "Http", "authLevel": "admin"}, ("httpTrigger", "authLevel", "admin")),
    ("blob", ["--input-path", "input/{blobname}.json", "--output-path", "output/{blobname}_out.json"],
     {"trigger": "Blob", "inPath": "input/{blobname}.json", "outPath": "output/{blobname}_out.json"},
     ("blobTrigger", "path", "input/{blobname}.json")),
    ("service_bus_queue", ["--input-queue-name", "in", "--output-queue-name", "out"],
     {"trigger": "ServiceBusQueue", "inQueueName": "in", "outQueueName": "out"}, ("serviceBusTrigger", "queueName", "in")),
])
def test_triggers_are_packaged(place, tmp_path, trigger, arguments, wire, binding):
    script = place.folder / "score.py"
    script.write_text(SCRIPT % "1")
    place.run("package", "--entry-script", script, "--trigger", trigger, *arguments, "--registry", place.registry.host,
              "--image-label", trigger, "--username", USER, "--password", PASSWORD)
    label = json.loads(inspect(place, f"package:{trigger}")["Labels"]["io.andiron.bundle"])
    assert label["deployedApiOptions"] == {"flavor": "functionsApp", **wire}
    pulled = place.json("image", "pull", f"{place.registry.host}/package:{trigger}", "--username", USER, "--password", PASSWORD)
    function = json.loads(pathlib.Path(pulled["folder"], "home/site/wwwroot/score/function.json").read_text())
    kind, key, value = binding
    assert function["bindings"][0]["type"] == kind and function["bindings"][0][key] == value


def test_what_cannot_be_packaged_says_why(place):
    def refused(words, *arguments):
        done = place.run("package", *arguments, "--registry", place.registry.host, ok=False)
        assert done.returncode == 65 and words in done.stderr, done.stderr

    script = place.folder / "score.py"
    script.write_text(SCRIPT % "1")
    refused("Invalid trigger timer, valid options are [blob,service_bus_queue,http]", "--entry-script", script, "--trigger", "timer")
    refused("Invalid option input_path for trigger http", "--entry-script", script, "--input-path", "x")
    refused("Invalid option auth_level 'all'", "--entry-script", script, "--auth-level", "all")
    refused("does not exist", "--entry-script", "missing.py")
    refused("neither a file nor a registered model", "--entry-script", script, "--model", "missing")
    bad = place.folder / "my-script.py"
    bad.write_text("")
    refused("Python identifier", "--entry-script", bad)


# The whole story.

def test_the_tutorial(repository, tmp_path):
    python = next(
        str(p) for p in pathlib.Path(CACHE, "environments").glob("*/bin/python")
        if subprocess.run([str(p), "-c", "import sklearn"], capture_output=True).returncode == 0)
    done = subprocess.run(
        [str(ROOT / "samples/tutorial/run.sh")], capture_output=True, text=True, timeout=240,
        env={**os.environ, "ANDIRON": ANDIRON, "ANDIRON_CACHE": CACHE, "TUTORIAL_FOLDER": str(tmp_path), "PYTHON": python})
    assert done.returncode == 0, done.stderr + done.stdout
    assert "[7]" in done.stdout
    assert "/package@sha256:" in done.stdout


def test_a_package_with_a_blob_trigger_scores_dropped_files(place, start):
    script = place.folder / "score.py"
    script.write_text("import json\ndef init(): pass\ndef run(data): return {'length': len(data)}\n")
    place.run("package", "--entry-script", script, "--trigger", "blob", "--input-path", "input/{blobname}.json",
              "--output-path", "output/{blobname}_out.json", "--registry", place.registry.host, "--image-label", "blob",
              "--username", USER, "--password", PASSWORD)
    folder = place.app("package:blob", TriggerConnectionString="UseDevelopmentStorage=true", AzureWebJobsStorage="UseDevelopmentStorage=true")
    host = begin(start, place, folder, wait=True)
    (folder / "storage/input").mkdir(parents=True, exist_ok=True)
    (folder / "storage/input/sample_input.json").write_text("[1, 2, 3]")
    result = folder / "storage/output/sample_input_out.json"
    until(result.exists, "the result")
    assert json.loads(result.read_text()) == {"length": 9}, host.printed()


def test_a_package_with_a_queue_trigger_scores_messages(place, start):
    script = place.folder / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 'seen ' + data\n")
    place.run("package", "--entry-script", script, "--trigger", "service_bus_queue", "--input-queue-name", "in", "--output-queue-name", "out",
              "--registry", place.registry.host, "--image-label", "queue", "--username", USER, "--password", PASSWORD)
    pulled = place.json("image", "pull", f"{place.registry.host}/package:queue", "--username", USER, "--password", PASSWORD)
    folder = pathlib.Path(pulled["folder"], "home/site/wwwroot")
    done = place.run("validate", folder)
    assert "0 errors" in done.stdout, done.stderr


def test_a_push_to_the_real_registry_updates_the_app_by_its_notification(place, start, tmp_path):
    port = r.free_port()
    hook = "Basic " + r.base64.b64encode(b"$app:geheim").decode()
    own = r.Registry(tmp_path / "notifying", extra=f"""notifications:
  endpoints: [{{name: hook, url: 'http://127.0.0.1:{port}/docker/hook', timeout: 1s, threshold: 3, backoff: 1s, headers: {{Authorization: ['{hook}']}}}}]
""")
    place.registry = own
    place.package("--image-label", "notified")
    folder = place.app("package:notified", DOCKER_ENABLE_CI="true")
    (folder / ".andiron").mkdir()
    (folder / ".andiron/webhook-password").write_text("geheim")
    host = begin(start, place, folder, "--port", str(port), wait=True)
    assert host.port == port and host.post("/api/score", {}).json["version"] == "1"
    place.package("--image-label", "notified", version="2")
    until(lambda: host.post("/api/score", {}).json["version"] == "2", "the notified update")
    own.stop()
