"""What an app from an image may do to its files, what its settings do, and how its start looks on a terminal."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import termios
import time

import pytest

import registry as r
from conftest import ANDIRON, CACHE, until
from registry import PASSWORD, USER, tar
from test_images_app import Workplace, begin

WRITER = """
import os, json
here = os.path.dirname(os.path.abspath(__file__))
def init():
    global models
    models = os.environ["AZUREML_MODEL_DIR"] + "/mnist"
def tried(path, mode):
    try:
        with open(path, mode) as file:
            file.write("changed")
        return "written"
    except OSError as error:
        return type(error).__name__
def run(data):
    seen = {"count": int(open(here + "/count.txt").read()), "helper": open(here + "/helper.py").read()}
    seen["new"] = os.path.exists(here + "/new.txt")
    open(here + "/count.txt", "w").write(str(seen["count"] + 1))
    seen["writes"] = [tried(here + "/new.txt", "w"), tried(here + "/helper.py", "a"), tried(models + "/small.txt", "w"),
                      tried(models + "/beside.txt", "w")]
    seen["cwd"] = tried("relative.txt", "w")
    seen["large"] = os.path.getsize(models + "/large.bin")
    seen["large_mode"] = os.stat(models + "/large.bin").st_mode & 0o777
    return seen
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = r.Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture
def place(tmp_path, registry):
    return Workplace(tmp_path, registry)


def tree(folder):
    """Every file of the store with its contents."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()}


def test_what_an_app_writes_is_its_own_and_gone_with_a_recycle(place, start):
    source, model = place.folder / "src", place.folder / "mnist"
    source.mkdir()
    model.mkdir()
    (source / "score.py").write_text(WRITER)
    (source / "helper.py").write_text("helper = 1\n")
    (source / "count.txt").write_text("0")
    (model / "small.txt").write_text("small")
    (model / "large.bin").write_bytes(os.urandom(1 << 20) * 17)
    place.run("package", "--model", model, "--entry-script", "score.py", "--source-directory", source, "--registry",
              place.registry.host, "--username", USER, "--password", PASSWORD, "--auth-level", "anonymous", "--image-label", "writer")
    folders = [place.app("package:writer", name=name, GREETING="one") for name in ("first", "second")]
    hosts = [begin(start, place, folder, wait=True) for folder in folders]
    layers = place.cache / "images/v1/layers"
    before = tree(layers)
    for count in range(3):
        seen = hosts[0].post("/api/score", {}).json
        assert seen["count"] == count and seen["new"] == (count > 0) and seen["large"] == 17 << 20
        assert seen["writes"] == ["written"] * 4 and seen["cwd"] == "written"
        # A large file is not copied but protected, unless the file system copies it when it is written.
        assert seen["large_mode"] in (0o444, 0o644)
    assert seen["helper"] == "helper = 1\n" + "changed" * 2
    assert tree(layers) == before
    # The other app sees nothing of it.
    other = hosts[1].post("/api/score", {}).json
    assert other["count"] == 0 and other["helper"] == "helper = 1\n" and not other["new"]
    # A recycle throws it away, and so does a stop.
    place.app("package:writer", name="first", GREETING="two")
    until(lambda: len([e for e in hosts[0].records("cold_start") if e["message"].startswith("the image is ready")]) == 2, "the recycle")
    seen = until(lambda: (a := hosts[0].post("/api/score", {}).json)["count"] == 0 and a, "the new files")
    assert seen["helper"] == "helper = 1\n"
    assert len(list((folders[0] / ".andiron/container").iterdir())) <= 2
    hosts[0].stop()
    assert list((folders[0] / ".andiron/container").iterdir()) == []
    assert tree(layers) == before
    again = begin(start, place, folders[0], wait=True)
    assert again.post("/api/score", {}).json["count"] == 0
    # What a killed host has left is thrown away by the next.
    os.kill(again.process.pid, 9)
    again.process.wait()
    assert len(list((folders[0] / ".andiron/container").iterdir())) == 1
    last = begin(start, place, folders[0], wait=True)
    assert last.post("/api/score", {}).json["count"] == 0
    assert len(list((folders[0] / ".andiron/container").iterdir())) == 1


def test_links_of_an_image_lead_to_the_apps_own_files(place, start):
    function = json.dumps({"bindings": [{"name": "req", "type": "httpTrigger", "direction": "in", "authLevel": "anonymous"},
                                        {"name": "$return", "type": "http", "direction": "out"}]}).encode()
    script = b"""
import os
def init(): pass
def run(data):
    here = os.path.dirname(os.path.abspath(__file__))
    open(here + "/alias.txt", "a").write("!")
    open(here + "/far.txt", "a").write("?")
    return [open(here + "/" + name).read() for name in ("text.txt", "alias.txt", "far.txt", "../../../../opt/data.txt")]
"""
    site = "home/site/wwwroot"
    layer = tar((f"{site}/host.json", b'{"version": "2.0"}'), (f"{site}/f/function.json", function), (f"{site}/f/score.py", script),
                (f"{site}/f/text.txt", b"text"), r.link(f"{site}/f/alias.txt", "text.txt"),
                r.link(f"{site}/f/far.txt", "/home/site/wwwroot/f/text.txt"), ("opt/data.txt", b"data"))
    place.registry.push("links", "1", [layer])
    host = begin(start, place, place.app("links:1"), wait=True)
    assert host.post("/api/f", {}).json == ["text!?", "text!?", "text!?", "data"]
    stored = [c for p, c in tree(place.cache / "images/v1/layers").items() if p.endswith("f/text.txt")]
    assert stored == [b"text"]


# Settings.

def test_settings_that_change_nothing_say_so(place, start):
    place.package("--image-label", "quiet")
    without = {"WEBSITES_PORT": "8080", "WEBSITE_WARMUP_PATH": "/warm", "WEBSITE_WARMUP_STATUSES": "200", "WEBSITE_PULL_IMAGE_OVER_VNET": "true"}
    folder = place.app("package:quiet", **without)
    host = begin(start, place, folder, wait=True)
    warnings = until(lambda: (w := host.records("config_error")) if len(host.records("config_error")) >= 4 else None, "the warnings")
    for name in without:
        assert [w for w in warnings if f"'{name}' changes nothing here" in w["message"] and w["level"] == "Warning"], warnings
    assert host.post("/api/score", {}).status == 200
    assert "0 errors, 4 warnings" in place.run("validate", folder).stdout


def test_the_stop_time_limit_is_honoured(place, start):
    script = place.folder / "slow.py"
    script.write_text("import time\ndef init(): pass\ndef run(data):\n    time.sleep(30)\n    return 1\n")
    place.run("package", "--entry-script", script, "--registry", place.registry.host, "--username", USER, "--password", PASSWORD,
              "--auth-level", "anonymous", "--image-label", "slow-stop")
    host = begin(start, place, place.app("package:slow-stop", WEBSITES_CONTAINER_STOP_TIME_LIMIT="1"), wait=True)
    connection = host.connect()
    connection.request("POST", "/api/score", "{}", {"Content-Type": "application/json"})
    until(lambda: re.search(r"in_flight\S* 1", host.call("GET", "/metrics").text), "the call")
    began = time.monotonic()
    host.stop()
    assert 0.9 < time.monotonic() - began < 10


# The terminal.

class Screen:
    """As much of a terminal as the host uses: lines, cursor up, erase below, colours."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [[]], 0, 0
        self.shown = []

    def feed(self, text):
        position = 0
        while position < len(text):
            match = re.compile(r"\x1b\[(\d*)([A-Za-z])").match(text, position)
            if match:
                number, letter = int(match.group(1) or 1), match.group(2)
                if letter == "A":
                    self.row = max(0, self.row - number)
                elif letter == "J":
                    assert match.group(1) in ("", "0")
                    self.lines[self.row + 1:] = []
                    del self.lines[self.row][self.column:]
                else:
                    assert letter == "m", match.group()
                position = match.end()
                continue
            character = text[position]
            position += 1
            if character == "\r":
                self.column = 0
            elif character == "\n":
                self.row += 1
                while self.row >= len(self.lines):
                    self.lines.append([])
            else:
                assert character != "\x1b", repr(text[position - 1:position + 20])
                if self.column == self.columns:
                    self.row, self.column = self.row + 1, 0
                    while self.row >= len(self.lines):
                        self.lines.append([])
                line = self.lines[self.row]
                line.extend(" " * (self.column - len(line)))
                line[self.column:self.column + 1] = [character]
                self.column += 1

    def rows(self):
        return ["".join(line).rstrip() for line in self.lines]


@pytest.mark.parametrize("columns", [200, 60])
def test_bars_and_log_lines_do_not_mix(place, columns):
    script = place.folder / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 1\n")
    models = []
    for index in range(3):
        model = place.folder / f"model{index}.bin"
        model.write_bytes(os.urandom(1 << 20))
        models += ["--model", model]
    place.run("package", *models, "--entry-script", script, "--registry", place.registry.host, "--username", USER,
              "--password", PASSWORD, "--auth-level", "anonymous", "--image-label", f"bars{columns}")
    proxy = r.FaultProxy(place.registry)

    def trickle(handler, answer):
        handler.send_response_only(200)
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        step = len(answer.content) // 8 + 1
        for offset in range(0, len(answer.content), step):
            handler.wfile.write(answer.content[offset:offset + step])
            time.sleep(0.1)
        return True

    proxy.fault("GET .*/blobs/", trickle)
    folder = place.app(f"package:bars{columns}", host=proxy.host)
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [ANDIRON, "start", str(folder), "--port", "0", "--verbose", "--ready-file", str(folder / "ready.json")], stdin=other,
        stdout=other, stderr=other, start_new_session=True,
        env={**os.environ, **place.environment, "ANDIRON_SERVICEBUS_PORT": "0", "TERM": "xterm"})
    os.close(other)
    screen, seen, most = Screen(columns), b"", 0
    end = time.monotonic() + 60
    while time.monotonic() < end and not (folder / "ready.json").exists():
        if select.select([main], [], [], 0.1)[0]:
            seen += os.read(main, 65536)
    process.terminate()
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(30) == 0
    os.close(main)
    proxy.stop()
    text = seen.decode()
    screen.feed(text)
    rows = screen.rows()
    printed = "\n".join(rows)
    # The bars were drawn again and again, with lines in between, and each stands there once.
    assert text.count("\x1b[J") > 10, text
    bars = [row for row in rows if re.match(r"[0-9a-f]{12} \[", row)]
    assert len(bars) == 4 and all(len(row) < columns for row in bars), printed
    assert all(("█" * 24 + "]") in row for row in bars), printed
    assert [row[:12] for row in bars] == sorted({row[:12] for row in bars}, key=[row[:12] for row in bars].index), printed
    first, last = rows.index(bars[0]), rows.index(bars[-1])
    assert last - first == 3, printed
    # No line is torn: nothing but whole records above, and what the record file has is all there.
    lines = [json.loads(line) for line in (folder / ".andiron/logs/host.ndjson").read_text().splitlines()]
    debug = [e for e in lines if e["kind"] == "image_progress" and e["state"] == "downloading"]
    assert len(debug) > 3
    whole = "".join(row.ljust(columns) if len(row) == columns else row + "\n" for row in rows)
    stamped = [row for row in whole.splitlines() if row.startswith("[20")]
    assert all(re.match(r"\[20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] \S", row) for row in stamped), printed
    assert sum("image layer" in row and "state=downloading" in row for row in stamped) == len(debug), printed
    assert "█" not in "".join(row for row in rows if row not in bars), printed
    assert sum("waiting for" in row for row in rows) == 1 and sum(row.startswith("Functions:") for row in rows) == 1, printed


def test_a_pull_that_fails_leaves_its_bars_and_then_says_why(place):
    layer = tar(("f", os.urandom(200_000)))
    place.registry.push("failing", "1", [layer])
    proxy = r.FaultProxy(place.registry)
    proxy.fault("GET .*/blobs/" + r.sha(layer), r.corrupted(100_000))
    main, other = pty.openpty()
    process = subprocess.Popen(
        [ANDIRON, "image", "pull", f"{proxy.host}/failing:1", "--username", USER, "--password", PASSWORD], stdout=subprocess.DEVNULL,
        stderr=other, env={**os.environ, **place.environment})
    os.close(other)
    seen = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(30) != 0
    os.close(main)
    proxy.stop()
    screen = Screen(80)
    screen.feed(seen.decode())
    rows = screen.rows()
    assert rows[0].startswith(r.sha(layer)[7:19] + " [") and rows[1].startswith("error[AN9007]"), rows
