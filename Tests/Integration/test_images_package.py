"""Packages as they are made and used: from Azure's configuration files, started by messages, taken by other tools."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

import registry as r
from conftest import ANDIRON, CACHE, ROOT, until
from registry import PASSWORD, USER
from test_images_app import Workplace, begin, inspect


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = r.Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture
def place(tmp_path, registry):
    return Workplace(tmp_path, registry)


def push(place, *arguments, **options):
    return place.run("package", *arguments, "--registry", place.registry.host, "--username", USER, "--password", PASSWORD, **options)


SCRIPT = """
import json, os
import helper
def init():
    global text
    folder = os.environ["AZUREML_MODEL_DIR"]
    text = open(os.path.join(folder, os.listdir(folder)[0])).read()
def run(data):
    return {"model": text, "helper": helper.value, "variable": os.environ["FROM_THE_CONFIGURATION"],
            "threads": os.environ.get("OMP_NUM_THREADS"), "data": json.loads(data)}
"""


@pytest.mark.parametrize("dependencies", ["inline", "file"])
def test_an_inference_and_a_deployment_configuration_make_a_package_that_answers(place, start, dependencies):
    project = place.folder / "project"
    (project / "src").mkdir(parents=True)
    (project / "src/score.py").write_text(SCRIPT)
    (project / "src/helper.py").write_text("value = 42\n")
    (project / "model.txt").write_text("weights")
    packages = {"name": "project", "channels": ["conda-forge"], "dependencies": [{"pip": ["azureml-defaults>=1.0.45"]}]}
    (project / "env.yml").write_text("name: project\ndependencies:\n- pip:\n  - azureml-defaults>=1.0.45\n")
    python = {"condaDependencies": packages, "userManagedDependencies": False} if dependencies == "inline" else {"condaDependenciesFile": "env.yml"}
    (project / "inferenceconfig.json").write_text(json.dumps({
        "entryScript": "score.py", "sourceDirectory": "./src",
        "environment": {"name": "project", "environmentVariables": {"FROM_THE_CONFIGURATION": "yes"}, "python": python}}))
    (project / "deploymentconfig.json").write_text(json.dumps({
        "computeType": "local", "containerResourceRequirements": {"cpu": 1, "memoryInGB": 0.7}, "scoringTimeoutMs": 5000}))
    place.run("model", "register", "-n", "project-model", "-p", project / "model.txt")
    push(place, "--model", "project-model:1", "--ic", project / "inferenceconfig.json", "--dc", project / "deploymentconfig.json",
         "--auth-level", "anonymous", "--image-label", dependencies)
    environment = dict(e.split("=", 1) for e in inspect(place, f"package:{dependencies}")["Env"])
    assert environment["AZUREML_ENTRY_SCRIPT"] == "src/score.py" and environment["AZUREML_SOURCE_DIRECTORY"] == "src"
    assert environment["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/project-model/1"
    raw = inspect(place, f"package:{dependencies}", "--raw")
    assert [layer["annotations"]["io.andiron.layer.role"] for layer in raw["layers"]] == ["dependencies", "model", "code"]
    host = begin(start, place, place.app(f"package:{dependencies}"), wait=True)
    done = subprocess.run(["curl", "-sS", "-d", '{"x": 1}', f"http://127.0.0.1:{host.port}/api/score"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"model": "weights", "helper": 42, "variable": "yes", "threads": "1", "data": {"x": 1}}
    function = host.call("GET", "/admin/functions/score").json
    assert function["name"] == "score"


def test_the_configurations_of_a_package_that_are_wrong(place):
    project = place.folder
    (project / "score.py").write_text("def run(d): return d\n")
    config = project / "inferenceconfig.json"

    def refused(document, words, *arguments):
        config.write_text(document if isinstance(document, str) else json.dumps(document))
        done = push(place, "--ic", config, *arguments, ok=False)
        assert done.returncode == 65 and words in done.stderr, done.stderr

    refused("{", "cannot be read as JSON")
    refused({}, "no entry script is named")
    refused({"entryScript": "missing.py"}, "missing.py' does not exist")
    refused({"entryScript": "score.py", "environment": {"python": {"condaDependenciesFile": "none.yml"}}}, "none.yml' cannot be read")
    refused({"entryScript": "score.py"}, "none.json", "--dc", project / "none.json")


def test_messages_start_a_package_and_its_results_are_sent(place, start):
    (place.folder / "score.py").write_text("def init(): pass\ndef run(data): return 'seen ' + data\n")
    push(place, "--entry-script", place.folder / "score.py", "--trigger", "service_bus_queue", "--input-queue-name", "numbers",
         "--output-queue-name", "results", "--image-label", "queue")
    port = r.free_port()
    connection = (f"Endpoint=sb://localhost:{port};SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=SAS_KEY_VALUE;"
                  "UseDevelopmentEmulator=true;")
    folder = place.app("package:queue", TriggerConnectionString=connection)
    host = begin(start, place, folder, "--servicebus-port", str(port), wait=True)
    with ServiceBusClient.from_connection_string(connection) as bus:
        with bus.get_queue_sender("numbers") as sender:
            sender.send_messages([ServiceBusMessage(str(n)) for n in range(3)])
        found = []
        with bus.get_queue_receiver("results", max_wait_time=30) as receiver:
            for message in receiver:
                found.append(str(message))
                receiver.complete_message(message)
                if len(found) == 3:
                    break
        assert sorted(found) == ["seen 0", "seen 1", "seen 2"], host.printed()
        with bus.get_queue_receiver("numbers", max_wait_time=1) as receiver:
            until(lambda: not receiver.peek_messages(10), "completion of the messages")
    # Another image takes over where the old one was.
    (place.folder / "score.py").write_text("def init(): pass\ndef run(data): return 'again ' + data\n")
    push(place, "--entry-script", place.folder / "score.py", "--trigger", "service_bus_queue", "--input-queue-name", "numbers",
         "--output-queue-name", "results", "--image-label", "queue2")
    place.app("package:queue2", TriggerConnectionString=connection)
    ready = lambda: [e for e in host.records("cold_start") if e["message"].startswith("the image is ready")]
    until(lambda: len(ready()) == 2, "the update")
    with ServiceBusClient.from_connection_string(connection) as bus:
        with bus.get_queue_sender("numbers") as sender:
            sender.send_messages(ServiceBusMessage("4"))
        with bus.get_queue_receiver("results", max_wait_time=30) as receiver:
            message, = receiver.receive_messages(1, max_wait_time=30)
            assert str(message) == "again 4"
            receiver.complete_message(message)


# Other tools.

def tool(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def shell_files():
    """A shell and what it needs to run inside an image that has nothing: places there, files here."""
    shell = pathlib.Path("/bin/sh").resolve()
    linked = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout.split()
    yield "/bin/sh", shell
    for path in linked:
        if path.startswith("/"):
            yield path, pathlib.Path(path).resolve()


def test_buildah_and_podman_take_a_package_and_build_on_it(place, tmp_path):
    if os.getuid() != 0:
        pytest.skip("buildah and podman, as root")
    assert shutil.which("buildah") and shutil.which("podman"), "they are not installed; `make integration` installs them"
    (place.folder / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (place.folder / "model.txt").write_text("weights")
    arguments = ["--entry-script", place.folder / "score.py", "--model", place.folder / "model.txt"]
    # podman refuses a long runroot.
    state = tempfile.mkdtemp(prefix="bp-")
    storage = ["--root", f"{state}/storage", "--runroot", f"{state}/run", "--storage-driver", "vfs"]
    buildah, podman = ["buildah", *storage], ["podman", *storage]
    sign_in = ["--tls-verify=false", "--creds", f"{USER}:{PASSWORD}"]
    try:
        for form in ("oci", "docker"):
            digest = push(place, *arguments, "--format", form, "--image-label", f"tools-{form}").stdout.strip().split("@")[1]
            image = f"{place.registry.host}/package:tools-{form}"
            tool(*podman, "pull", "-q", *sign_in, image)
            seen, = json.loads(tool(*podman, "image", "inspect", image))
            # Both forms have one configuration, and so are one image here.
            assert any(name.endswith("@" + digest) for name in seen["RepoDigests"])
            assert "AzureWebJobsScriptRoot=/home/site/wwwroot" in seen["Config"]["Env"]
            container = tool(*podman, "create", image, "/bin/true")
            tool(*podman, "cp", f"{container}:/var/azureml-app/azureml-models/model.txt/0/model.txt", tmp_path / form)
            assert (tmp_path / form).read_text() == "weights"
            tool(*podman, "rm", container)
        container = tool(*buildah, "from", *sign_in, f"{place.registry.host}/package:tools-oci")
        for path, file in shell_files():
            tool(*buildah, "copy", container, file, path)
        run = lambda words: tool(*buildah, "run", "--isolation", "chroot", container, "--", "/bin/sh", "-c", words)
        assert run("cd $AzureWebJobsScriptRoot; echo $AZUREML_ENTRY_SCRIPT *").split() == ["score.py", "host.json", "score"]
        assert run('read line < $AZUREML_MODEL_DIR/model.txt; echo "$line"') == "weights"
        tool(*buildah, "config", "--cmd", '["/bin/sh", "-c", "echo started in $AZUREML_ENTRY_SCRIPT"]', container)
        tool(*buildah, "commit", "--format", "oci", container, "mine")
        tool(*buildah, "push", *sign_in, "mine", f"docker://{place.registry.host}/mine:1")
        pulled = place.json("image", "pull", f"{place.registry.host}/mine:1", "--username", USER, "--password", PASSWORD)
        root = pathlib.Path(pulled["folder"])
        assert (root / "bin/sh").stat().st_mode & 0o111 and (root / "var/azureml-app/score.py").exists()
        # A package on that base starts as the base does, as Azure's functions image is started.
        (place.folder / "second.py").write_text("def init(): pass\ndef run(data): return 2\n")
        push(place, "--entry-script", place.folder / "second.py", "--base", f"{place.registry.host}/mine:1", "--image-label", "based")
        container = tool(*buildah, "from", *sign_in, f"{place.registry.host}/package:based")
        command = json.loads(tool(*buildah, "inspect", container))["OCIv1"]["config"]["Cmd"]
        assert run(command[2]) == "started in second.py"
    finally:
        subprocess.run([str(p) for p in (*buildah, "rm", "--all")], capture_output=True, timeout=60)
        subprocess.run([str(p) for p in (*podman, "rmi", "--all", "--force")], capture_output=True, timeout=60)
        shutil.rmtree(state, ignore_errors=True)


# Python.

def test_the_tutorials_python_installed_in_an_environment_of_its_own(place, start):
    environment = place.folder / "venv"
    tool(sys.executable, "-m", "venv", environment)
    source = place.folder / "source"
    shutil.copytree(ROOT / "samples/python/andiron_azureml", source)
    tool(environment / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", source)
    (place.folder / "model.pkl").write_text("weights")
    (place.folder / "score.py").write_text(
        "import os\ndef init(): pass\ndef run(data): return os.listdir(os.environ['AZUREML_MODEL_DIR'])\n")
    program = f"""
from andiron_azureml import *
ws = Workspace.create("tutorial", registry="{place.registry.host}", username="{USER}", password="{PASSWORD}")
model = Model.register(ws, model_path="model.pkl", model_name="sklearn_mnist", tags={{"area": "digits"}}, description="d")
env = Environment("tutorial")
env.python.conda_dependencies = CondaDependencies.create(pip_packages=["azureml-defaults"])
config = InferenceConfig(entry_script="score.py", environment=env)
made = package(ws, [model], config, functions_enabled=True, trigger=HTTP_TRIGGER, auth_level="anonymous")
made.wait_for_creation(show_output=True)
print(made.location)
"""
    done = subprocess.run(
        [environment / "bin/python", "-c", program], capture_output=True, text=True, timeout=90, cwd=place.folder,
        env={**os.environ, **place.environment, "ANDIRON": ANDIRON})
    assert done.returncode == 0, done.stderr
    assert "Package creation Succeeded" in done.stdout
    location = done.stdout.strip().splitlines()[-1]
    host = begin(start, place, place.app(location.removeprefix(place.registry.host + "/")), wait=True)
    assert host.post("/api/score", {}).json == ["model.pkl"]


@pytest.fixture
def docker():
    """A Docker of its own: no bridge, no rules in the firewall, a socket of its own. Gives the command."""
    if os.getuid() != 0:
        pytest.skip("dockerd runs as root only")
    assert shutil.which("dockerd"), "docker.io is not installed; `make integration` installs it"
    # Paths of sockets are short.
    state = pathlib.Path(tempfile.mkdtemp(prefix="dk-"))
    with open(state / "log", "w") as log:
        daemon = subprocess.Popen(
            ["dockerd", "--data-root", state / "data", "--exec-root", state / "exec", "--pidfile", state / "pid",
             "-H", f"unix://{state}/socket", "--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false"],
            stdout=log, stderr=log)
    program = shutil.which("docker", path="/usr/bin") or shutil.which("docker")
    command = [program, "--config", state / "config", "-H", f"unix://{state}/socket"]
    (state / "config").mkdir()
    answers = lambda: daemon.poll() is None and subprocess.run([*command, "version"], capture_output=True, timeout=60).returncode == 0
    try:
        if not until(lambda: answers() or daemon.poll() is not None, "dockerd") or daemon.poll() is not None:
            pytest.skip(f"dockerd does not start on this machine: {(state / 'log').read_text()[-300:]}")
        yield command
    finally:
        daemon.terminate()
        daemon.wait(60)
        shutil.rmtree(state, ignore_errors=True)


def test_docker_takes_a_package_and_runs_what_is_built_on_it(place, docker):
    (place.folder / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    (place.folder / "model.txt").write_text("weights")
    arguments = ["--entry-script", place.folder / "score.py", "--model", place.folder / "model.txt"]
    tool(*docker, "login", "--username", USER, "--password-stdin", place.registry.host, input=PASSWORD)
    for form in ("oci", "docker"):
        digest = push(place, *arguments, "--format", form, "--image-label", f"moby-{form}").stdout.strip().split("@")[1]
        image = f"{place.registry.host}/package:moby-{form}"
        tool(*docker, "pull", "-q", image)
        seen, = json.loads(tool(*docker, "image", "inspect", image))
        assert any(name.endswith("@" + digest) for name in seen["RepoDigests"])
        assert "AzureWebJobsScriptRoot=/home/site/wwwroot" in seen["Config"]["Env"]
    context = place.folder / "context"
    context.mkdir()
    lines = [f"FROM {image}"]
    for number, (path, file) in enumerate(shell_files()):
        shutil.copy(file, context / str(number))
        lines.append(f"COPY {number} {path}")
    words = 'read line < $AZUREML_MODEL_DIR/model.txt; cd $AzureWebJobsScriptRoot; echo $AZUREML_ENTRY_SCRIPT $line *'
    lines.append("CMD " + json.dumps(["/bin/sh", "-c", words]))
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    mine = f"{place.registry.host}/moby:1"
    tool(*docker, "build", "-q", "-t", mine, context, env={**os.environ, "DOCKER_BUILDKIT": "0"})
    assert tool(*docker, "run", "--rm", "--network", "none", mine).split() == ["score.py", "weights", "host.json", "score"]
    tool(*docker, "push", "-q", mine)
    pulled = place.json("image", "pull", mine, "--username", USER, "--password", PASSWORD)
    assert (pathlib.Path(pulled["folder"]) / "bin/sh").stat().st_mode & 0o111
