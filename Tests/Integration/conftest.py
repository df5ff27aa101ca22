"""Starts the real host on free loopback ports, for apps made in temporary folders."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANDIRON = os.environ.get("ANDIRON", str(ROOT / ".build/debug/andiron"))
CACHE = os.environ.get("ANDIRON_TEST_CACHE", str(ROOT / ".build/andiron-cache"))
DEADLINE = 60  # seconds any wait may take before it is a failure


def until(condition, what, deadline=DEADLINE):
    """Polls until `condition` gives something true, and returns that."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {deadline} s: {what}")


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def timing(self):
        entries = [part.strip().split(";dur=") for part in self.headers["server-timing"].split(",")]
        return {name: float(value) for name, value in entries}


class App:
    """A function app in a temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.write("host.json", {"version": "2.0"})

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("." + path.name + ".new")
        temporary.write_text(content if isinstance(content, str) else json.dumps(content))
        temporary.rename(path)
        return path

    def function(self, name, script=None, files=None, **options):
        """Adds an HTTP function with an entry script of its own, or the echo."""
        trigger = {"name": "req", "type": "httpTrigger", "direction": "in", "authLevel": options.pop("authLevel", "anonymous")}
        for key in ("methods", "route"):
            if key in options:
                trigger[key] = options.pop(key)
        document = {"bindings": [trigger, {"name": "$return", "type": "http", "direction": "out"}], **options}
        if script is None:
            document.setdefault("bundle", "builtin:echo")
        else:
            self.write(f"{name}/score.py", script)
        for file, content in (files or {}).items():
            self.write(f"{name}/{file}", content)
        self.write(f"{name}/function.json", document)
        return self


class Host:
    """A running `andiron start`."""

    def __init__(self, folder, *arguments, environment=None, wait=True):
        self.folder = pathlib.Path(folder)
        self.ready = self.folder / ".ready.json"
        self.ready.unlink(missing_ok=True)
        self.log = self.folder / ".andiron" / "logs" / "host.ndjson"
        self.output = open(self.folder / ".output", "w+")
        self.process = subprocess.Popen(
            [ANDIRON, "start", str(folder), "--port", "0", "--ready-file", str(self.ready), *arguments],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "ANDIRON_CACHE": CACHE, "ANDIRON_SERVICEBUS_PORT": "0", **(environment or {})},
        )
        self.port = None
        if wait:
            until(lambda: self.ready.exists() or self.process.poll() is not None, "the ready file")
            assert self.process.poll() is None, self.printed()
            self.info = json.loads(self.ready.read_text())
            self.port = self.info["port"]

    def printed(self):
        return (self.folder / ".output").read_text()

    def records(self, kind=None):
        """What the log file holds so far. It is written by a thread of its own: wait for what must come."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if kind is None or record["kind"] == kind]

    def connect(self, timeout=DEADLINE):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(self, method, path, body=None, headers=None, timeout=DEADLINE):
        connection = self.connect(timeout)
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def post(self, path, body, **headers):
        body = json.dumps(body) if not isinstance(body, (str, bytes)) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.call("POST", path, body, {"Content-Type": "application/json", **named})

    def raw(self, data, timeout=DEADLINE):
        """Sends bytes as they are and returns all that comes back until the host closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data)
            received = b""
            try:
                while chunk := connection.recv(65536):
                    received += chunk
            except ConnectionResetError:
                pass
            return received

    def workers(self):
        processes = self.call("GET", "/admin/host/processes").json["processes"]
        return [p["processId"] for p in processes if p["processName"] == "python"]

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("the host did not stop")
        self.output.close()
        return self.process.returncode


@pytest.fixture
def app(tmp_path):
    return App(tmp_path)


@pytest.fixture
def start():
    """Starts hosts and stops them at the end, whatever happens."""
    hosts = []

    def begin(app, *arguments, **options):
        host = Host(getattr(app, "folder", app), *arguments, **options)
        hosts.append(host)
        return host

    yield begin
    for host in hosts:
        if host.process.poll() is None:
            host.process.send_signal(signal.SIGTERM)
    for host in hosts:
        try:
            host.process.wait(20)
        except subprocess.TimeoutExpired:
            host.process.kill()
            host.process.wait()


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A copy of the repository's own function app, with its environments built."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copy(ROOT / "host.json", folder / "host.json")
    shutil.copytree(ROOT / "functions", folder / "functions")
    shutil.copytree(ROOT / "samples" / "bundles", folder / "samples" / "bundles", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "ANDIRON_CACHE": CACHE}
    done = subprocess.run([ANDIRON, "prepare", str(folder)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def andiron(*arguments, **options):
    """Runs the command line to its end."""
    return subprocess.run(
        [ANDIRON, *arguments], capture_output=True, text=True, timeout=DEADLINE,
        env={**os.environ, "ANDIRON_CACHE": CACHE}, **options,
    )


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
