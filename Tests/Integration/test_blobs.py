"""The blob trigger on the storage folder, with real files, processes, kills and full disks."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import tempfile
import threading
import time

import pytest

from conftest import ANDIRON, CACHE, DEADLINE, App, andiron, until

RECORDING = """
import json, os, pathlib
RUNS = pathlib.Path(os.environ["RUNS"])
def init(): pass
def run(data):
    with open(RUNS, "a") as file:
        file.write(json.dumps(data) + "\\n")
    if data.startswith("bad"):
        raise ValueError("a bad blob")
    return {"length": len(data)}
"""


def blob_function(app, name, path, script=None, outputs=(), **options):
    bindings = [{"name": "blob", "type": "blobTrigger", "direction": "in", "path": path}, *outputs]
    document = {"bindings": bindings, **options}
    if script is None:
        document.setdefault("bundle", "builtin:echo")
    else:
        app.write(f"{name}/score.py", script)
    app.write(f"{name}/function.json", document)
    return app


class Recorded:
    """An app whose function notes every blob it is given."""

    def __init__(self, app, start, path="incoming/{name}", outputs=(), **host):
        self.app, self.begin = app, start
        self.runs_file = app.folder / "runs.txt"
        self.storage = app.folder / "storage"
        self.incoming = self.storage / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)
        if host:
            app.write("host.json", {"version": "2.0", **host})
        blob_function(app, "Note", path, RECORDING, outputs)

    def start(self, *arguments, **options):
        self.host = self.begin(self.app, *arguments, environment={"RUNS": str(self.runs_file)}, **options)
        return self.host

    def runs(self):
        return [json.loads(line) for line in self.runs_file.read_text().splitlines()] if self.runs_file.exists() else []

    def settled(self, count, extra=0.3):
        """Waits for `count` runs, then a little longer for any that should not come."""
        until(lambda: len(self.runs()) >= count, f"{count} runs, there are {len(self.runs())}")
        time.sleep(extra)
        runs = self.runs()
        assert len(runs) == count, runs
        return sorted(runs)


@pytest.fixture
def noted(app, start):
    return Recorded(app, start)


def receipts(storage):
    """What the ledger holds, read after the host has ended."""
    with contextlib.closing(sqlite3.connect(storage / ".andiron" / "account.db")) as ledger:
        return ledger.execute("SELECT function, container, name, state, attempts FROM receipt ORDER BY name").fetchall()


def messages(storage, queue):
    with contextlib.closing(sqlite3.connect(storage / ".andiron" / "account.db")) as ledger:
        return [row[0] for row in ledger.execute("SELECT body FROM message WHERE queue = ? ORDER BY id", (queue,))]


def test_a_file_that_is_dropped_starts_the_function_once(noted):
    host = noted.start()
    (noted.incoming / "7.json").write_text("seven")
    assert noted.settled(1) == ["seven"]
    until(lambda: "incoming/7.json" in host.printed(), "its line")
    assert host.stop() == 0
    assert receipts(noted.storage) == [("Note", "incoming", "7.json", 1, 1)]
    # A restart runs nothing again, new content does.
    noted.start()
    noted.settled(1)
    (noted.incoming / "7.json").write_text("eight")
    assert noted.settled(2) == ["eight", "seven"]


def test_blobs_that_came_while_the_host_was_away_are_found(noted):
    (noted.incoming / "before").write_text("before")
    deep = noted.incoming / "a" / "b" / "c"
    deep.mkdir(parents=True, exist_ok=True)
    (deep / "deep").write_text("deep")
    host = noted.start()
    noted.settled(2)
    host.stop()
    (noted.incoming / "between").write_text("between")
    noted.start()
    assert noted.settled(3) == ["before", "between", "deep"]


def test_skip_existing_blobs(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"skipExistingBlobs": True}})
    (noted.incoming / "old").write_text("old")
    host = noted.start()
    until(lambda: noted.host.call("GET", "/readyz").status == 200, "ready")
    time.sleep(0.5)
    (noted.incoming / "new").write_text("new")
    assert noted.settled(1) == ["new"]
    host.stop()
    (noted.incoming / "later").write_text("later")
    noted.start()
    assert noted.settled(2) == ["later", "new"]


def test_a_half_written_file_is_never_scored(noted):
    noted.start()
    with open(noted.incoming / "slow", "w") as file:
        for part in ["one ", "two ", "three"]:
            file.write(part)
            file.flush()
            os.fsync(file.fileno())
            # Links and renames of it while it is open change nothing.
            time.sleep(0.4)
        assert noted.runs() == []
    assert noted.settled(1) == ["one two three"]


def test_a_file_that_is_open_when_the_host_starts_waits_for_its_writer(noted):
    with open(noted.incoming / "slow", "w") as file:
        file.write("half")
        file.flush()
        noted.start()
        time.sleep(1.5)
        assert noted.runs() == []
        file.write(" whole")
    assert noted.settled(1, extra=1.5) == ["half whole"]


def test_renames_links_and_moves(noted):
    noted.start()
    outside = noted.app.folder / "outside"
    outside.mkdir(exist_ok=True)
    temporary = noted.incoming / ".7.json.tmp"
    temporary.write_text("renamed")
    temporary.rename(noted.incoming / "7.json")
    (outside / "moved").write_text("moved")
    (outside / "moved").rename(noted.incoming / "moved")
    (outside / "linked").write_text("linked")
    os.link(outside / "linked", noted.incoming / "linked")
    (outside / "folder" / "sub").mkdir(parents=True, exist_ok=True)
    (outside / "folder" / "sub" / "x").write_text("in a folder")
    (outside / "folder").rename(noted.incoming / "folder")
    assert noted.settled(4) == ["in a folder", "linked", "moved", "renamed"]
    # Within the moved folder new files are events too, under its new name.
    (noted.incoming / "folder").rename(noted.incoming / "other")
    noted.settled(5)  # a new name is a new blob
    (noted.incoming / "other" / "sub" / "y").write_text("later")
    assert noted.settled(6)[-1] == "renamed"


def test_odd_names_are_names(noted):
    noted.start()
    names = ["with space", "ünïcødé ⌘", "line\nend", "x" * 255, "quote'\"", "per%cent", "a=b&c", "tab\t", "-dash", "[1]"]
    for name in names:
        (noted.incoming / name).write_text(name)
    (noted.incoming / "d" / "é").mkdir(parents=True, exist_ok=True)
    (noted.incoming / "d" / "é" / "deep").write_text("deep")
    assert noted.settled(11) == sorted([*names, "deep"])


def test_links_are_followed_inside_a_container_and_refused_outside(noted):
    secret = noted.app.folder / "secret"
    secret.write_text("secret")
    host = noted.start()
    (noted.incoming / "inside").write_text("inside")
    noted.settled(1)
    os.symlink("inside", noted.incoming / "link")
    os.symlink(secret, noted.incoming / "out")
    os.symlink("../../secret", noted.incoming / "relative")
    os.symlink(noted.app.folder, noted.incoming / "folder")
    assert noted.settled(2) == ["inside", "inside"]
    until(lambda: host.printed().count("AN7015") >= 2, "the refusals")
    assert "'incoming/out' is a link that leads out of its container" in host.printed()


def test_what_is_no_file_is_named_and_left_alone(noted):
    host = noted.start()
    (noted.incoming / "folder").mkdir(exist_ok=True)
    os.mkfifo(noted.incoming / "pipe")
    os.rename(noted.incoming / "pipe", noted.incoming / "pipe2")
    if os.geteuid() == 0:
        os.mknod(noted.incoming / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (noted.incoming / "good").write_text("good")
    assert noted.settled(1) == ["good"]
    until(lambda: "AN7014" in host.printed(), "the pipe is named")
    assert "'incoming/pipe2' is a pipe, not a file" in host.printed()
    if os.geteuid() == 0:
        until(lambda: "'incoming/device' is a device, not a file" in host.printed(), "the device is named")


def test_a_file_that_is_gone_before_it_is_read_is_nothing(noted):
    host = noted.start()
    until(lambda: host.workers(), "a worker")
    for number in range(200):
        path = noted.incoming / f"gone{number}"
        path.write_text("gone")
        path.unlink()
    (noted.incoming / "stays").write_text("stays")
    until(lambda: "stays" in noted.runs(), "the one that stays")
    assert "error" not in host.printed()


def test_a_file_over_the_limit_is_given_up_at_once(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"maxBlobBytes": 1000}})
    host = noted.start()
    (noted.incoming / "edge").write_text("e" * 1000)
    (noted.incoming / "large").write_text("l" * 1001)
    assert noted.settled(1) == ["e" * 1000]
    until(lambda: "AN7016" in host.printed(), "the refusal")
    assert "the blob 'incoming/large' has 1001 bytes; the limit is 1000" in host.printed()
    host.stop()
    assert [row[2:4] for row in receipts(noted.storage)] == [("edge", 1), ("large", 2)]
    assert len(messages(noted.storage, "webjobs-blobtrigger-poison")) == 1


def test_a_failing_blob_is_tried_five_times_and_then_announced(noted):
    host = noted.start()
    (noted.incoming / "x").write_text("bad")
    for number in range(10):
        (noted.incoming / f"good{number}").write_text(f"good{number}")
    runs = noted.settled(15)
    assert runs.count("bad") == 5
    assert "Message has reached MaxDequeueCount of 5. Moving message to queue 'webjobs-blobtrigger-poison'." in host.printed()
    host.stop()
    [body] = messages(noted.storage, "webjobs-blobtrigger-poison")
    message = json.loads(base64.b64decode(body))
    etag = message.pop("ETag")
    assert message == {
        "Type": "BlobTrigger", "FunctionId": "Host.Functions.Note", "BlobType": "BlockBlob", "ContainerName": "incoming", "BlobName": "x",
    }
    assert etag.startswith("0x8D")
    assert ("Note", "incoming", "x", 2, 5) in receipts(noted.storage)
    noted.start()
    noted.settled(15)


def test_the_retry_policy_runs_within_each_attempt(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"poisonBlobThreshold": 2}})
    app.write(
        "Note/function.json",
        {
            "bindings": [{"name": "b", "type": "blobTrigger", "path": "incoming/{name}"}],
            "retry": {"strategy": "fixedDelay", "maxRetryCount": 2, "delayInterval": "00:00:00.01"},
        },
    )
    noted.start()
    (noted.incoming / "x").write_text("bad")
    assert noted.settled(6) == ["bad"] * 6


def test_outputs_follow_expressions_and_chains(app, start):
    noted = Recorded(app, start, path="incoming/{name}.{ext}", outputs=[
        {"name": "$return", "type": "blob", "direction": "out", "path": "scored/{name}/{ext}-{Properties.Length}.json"},
    ])
    blob_function(app, "Second", "scored/{name}", outputs=[
        {"name": "copy", "type": "blob", "direction": "out", "path": "copies/{rand-guid:N}.json"},
        {"name": "$return", "type": "queue", "direction": "out", "queueName": "done"},
    ])
    host = noted.start("--log-file", str(app.folder / "log.ndjson"))
    host.log = app.folder / "log.ndjson"
    (noted.incoming / "a.b.txt").write_text("four")
    result = noted.storage / "scored" / "a.b" / "txt-4.json"
    until(result.exists, "the output")
    assert json.loads(result.read_text()) == {"length": 4}
    until(lambda: len(host.records("invocation_completed")) == 2, "both functions")
    first, second = host.records("invocation_completed")
    assert (first["source"], second["source"]) == ("incoming/a.b.txt", "scored/a.b/txt-4.json")
    assert second["parent_invocation_id"] == first["invocation_id"]
    host.stop()
    [body] = messages(noted.storage, "done")
    assert json.loads(base64.b64decode(body)) == {"length": 4}
    assert not (noted.storage / "copies").exists(), "'copy' is no property of the result"


def test_an_http_function_reads_and_writes_blobs(app, start):
    app.write("Copy/function.json", {
        "bundle": "builtin:echo",
        "bindings": [
            {"name": "req", "type": "httpTrigger", "authLevel": "anonymous", "route": "copy/{name}"},
            {"name": "source", "type": "blob", "direction": "in", "path": "incoming/{name}"},
            {"name": "$return", "type": "http", "direction": "out"},
            {"name": "result", "type": "blob", "direction": "out", "path": "out/{name}-{Headers.x-tag}-{query.q}"},
        ],
    })
    incoming = app.folder / "storage" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "a.json").write_text('{"result": {"n": 1}, "other": 2}')
    host = start(app)
    answer = host.call("POST", "/api/copy/a.json?q=z", "ignored", {"X-Tag": "t"})
    assert (answer.status, answer.json) == (200, {"result": {"n": 1}, "other": 2})
    assert (app.folder / "storage" / "out" / "a.json-t-z").read_text() == '{"n":1}'
    missing = host.call("POST", "/api/copy/none?q=z", "ignored", {"X-Tag": "t"})
    assert (missing.status, missing.body) == (200, b"")
    unnamed = host.call("POST", "/api/copy/a.json", "ignored", {"X-Tag": "t"})
    assert unnamed.status == 500 and unnamed.json["error"]["code"] == "AN7010"
    assert "No value for named parameter 'query.q'." in unnamed.json["error"]["message"]


def test_a_rawhttp_script_gets_the_bytes(app, start):
    blob_function(app, "Raw", "incoming/{name}", """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml.contrib.services.aml_response import AMLResponse
def init(): pass
@rawhttp
def run(request):
    data = request.get_data()
    return AMLResponse(data[::-1] + request.headers["X-Trigger-name"].encode(), 200)
""", outputs=[{"name": "$return", "type": "blob", "direction": "out", "path": "out/{name}"}])
    app.write("Raw/requirements.txt", "azureml-contrib-services==1.62.0\ninference-schema==1.8\n")
    host = start(app)
    incoming = app.folder / "storage" / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "b").write_bytes(bytes(range(256)))
    out = app.folder / "storage" / "out" / "b"
    until(out.exists, lambda: host.printed())
    assert out.read_bytes() == bytes(range(256))[::-1] + b"b"


def test_containers_come_and_go(noted):
    noted.incoming.rmdir()
    noted.start()
    time.sleep(0.3)
    noted.incoming.mkdir(exist_ok=True)
    (noted.incoming / "a").write_text("a")
    noted.settled(1)
    shutil.rmtree(noted.incoming)
    noted.incoming.mkdir(exist_ok=True)
    (noted.incoming / "b").write_text("b")
    noted.settled(2)
    aside = noted.app.folder / "aside"
    aside.mkdir(exist_ok=True)
    (aside / "c").write_text("c")
    noted.incoming.rename(noted.app.folder / "gone")
    aside.rename(noted.incoming)
    noted.settled(3)
    (noted.incoming / "d").write_text("d")
    assert noted.settled(4) == ["a", "b", "c", "d"]


def test_more_events_than_the_kernel_remembers(app, start):
    noted = Recorded(app, start)
    blob_function(app, "Note", "incoming/{name}", bundle="builtin:echo")
    host = noted.start("--log-file", str(app.folder / "log.ndjson"))
    host.log = app.folder / "log.ndjson"
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    count = limit // 2 + 1000
    host.process.send_signal(signal.SIGSTOP)
    for number in range(count):
        (noted.incoming / f"{number}").write_text("x")
    host.process.send_signal(signal.SIGCONT)
    until(lambda: host.log.read_text().count('"invocation_completed"') >= count, "all of them")
    time.sleep(0.5)
    assert "more files changed than the system remembers" in host.printed()
    sources = [record["source"] for record in host.records("invocation_completed")]
    assert len(sources) == len(set(sources)) == count


def test_a_killed_host_loses_nothing_and_repeats_only_what_had_no_receipt(noted):
    count = 600
    for number in range(count):
        (noted.incoming / f"{number:04}").write_text(f"{number:04}")
    for round in range(4):
        host = noted.start()
        until(lambda: len(noted.runs()) > (round + 1) * 60, "some runs")
        host.process.kill()
        host.process.wait()
        host.output.close()
    done = {row[2] for row in receipts(noted.storage) if row[3] == 1}
    before = len(noted.runs())
    host = noted.start()
    until(lambda: len(set(noted.runs())) == count, "all of them")
    time.sleep(0.5)
    host.stop()
    runs = noted.runs()
    assert not done & set(runs[before:]), "what had a receipt ran again"
    assert len(receipts(noted.storage)) == count
    # Each kill can repeat what was under way, which is bounded.
    assert len(runs) - count <= 4 * 8 * (os.cpu_count() or 1) + 4 * 100


def test_a_slow_function_holds_up_no_other(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"maxDegreeOfParallelism": 2}})
    blob_function(app, "Slow", "slow/{name}", "import time\ndef init(): pass\ndef run(data):\n    time.sleep(0.3)\n    return 1\n")
    slow = noted.storage / "slow"
    slow.mkdir(exist_ok=True)
    for number in range(50):
        (slow / f"{number}").write_text("x")
    noted.start()
    for number in range(5):
        (noted.incoming / f"{number}").write_text(f"{number}")
    begun = time.monotonic()
    noted.settled(5)
    assert time.monotonic() - begun < 8, "the slow one's fifty take fifteen seconds"


def test_a_read_only_folder_is_said_and_other_functions_run(app, start):
    noted = Recorded(app, start)
    app.function("Hello")
    # Nobody can make a folder there, not even root.
    host = noted.start("--storage", "/proc/sys/storage")
    assert host.call("GET", "/api/Hello").status == 200
    until(lambda: "AN7012" in host.printed(), "the folder is named")
    assert "/proc/sys/storage" in host.printed()
    assert "trigger of Note: the storage folder" in host.call("GET", "/readyz?verbose").text


def test_a_second_host_on_the_same_folder_is_told_who_has_it(app, start, tmp_path_factory):
    noted = Recorded(app, start)
    first = noted.start()
    (noted.incoming / "a").write_text("a")
    noted.settled(1)
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(app.folder / "Note", other / "Note")
    shutil.copy(app.folder / "host.json", other / "host.json")
    second = start(other, "--storage", str(noted.storage), environment={"RUNS": str(noted.runs_file)})
    until(lambda: "AN7002" in second.printed(), "the refusal")
    assert f"process {first.process.pid}" in second.printed()
    # When the first ends, the second takes over, and runs nothing again.
    first.stop()
    (noted.incoming / "b").write_text("b")
    assert noted.settled(2, extra=0.5) == ["a", "b"]


def test_a_damaged_ledger_is_named_and_left_alone(noted):
    host = noted.start()
    (noted.incoming / "a").write_text("a")
    noted.settled(1)
    host.stop()
    ledger = noted.storage / ".andiron" / "account.db"
    with open(ledger, "r+b") as file:
        file.seek(0)
        file.write(b"x" * 64)
    damaged = ledger.read_bytes()
    host = noted.start()
    until(lambda: "AN7003" in host.printed(), "the damage")
    assert str(ledger) in host.printed()
    noted.settled(1)
    assert ledger.read_bytes() == damaged
    for suffix in ["", "-wal"]:
        pathlib.Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    # It is tried again; without receipts the blob is new.
    assert noted.settled(2, extra=0.5) == ["a", "a"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)])


def test_a_full_disk_loses_nothing(app, start, small_disk):
    noted = Recorded(app, start, outputs=[{"name": "$return", "type": "blob", "direction": "out", "path": "out/{name}"}])
    incoming = small_disk / "storage" / "incoming"
    host = noted.start("--storage", str(small_disk / "storage"))
    until(lambda: (small_disk / "storage" / ".andiron" / "account.db").exists(), "the ledger")
    incoming.mkdir(parents=True, exist_ok=True)
    (incoming / "first").write_text("first")
    noted.settled(1)
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    os.link(incoming / "first", incoming / "second")
    until(lambda: "AN7019" in host.printed() or "AN7005" in host.printed(), "the full disk")
    time.sleep(2.5)
    filler.unlink()
    until(lambda: (small_disk / "storage" / "out" / "second").exists(), "the output")
    time.sleep(1)
    host.stop()
    kept = receipts(small_disk / "storage")
    assert [(row[2], row[3], row[4]) for row in kept] == [("first", 1, 1), ("second", 1, 1)]
    assert messages(small_disk / "storage", "webjobs-blobtrigger-poison") == []


def test_an_unreadable_file_is_named_and_read_when_it_can_be(start, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file another user's")
    # The host runs as another user: root may read everything. pytest keeps its own folders from other users.
    app = App(pathlib.Path(tempfile.mkdtemp(prefix="andiron-test-")))
    noted = Recorded(app, start)
    for path in [app.folder, noted.storage, noted.incoming]:
        os.chmod(path, 0o777)
    blob_function(app, "Note", "incoming/{name}", bundle="builtin:echo")
    closed = noted.incoming / "closed"
    closed.write_text("closed")
    closed.chmod(0)
    output = open(app.folder / "output", "w")
    process = subprocess.Popen(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", ANDIRON, "start", str(app.folder), "--port", "0"],
        stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "ANDIRON_CACHE": str(app.folder / "cache")}, cwd=app.folder,
    )
    try:
        printed = lambda: (app.folder / "output").read_text()
        until(lambda: "the blob 'incoming/closed' cannot be read: Permission denied" in printed(), "the refusal")
        closed.chmod(0o644)
        until(lambda: "succeeded" in printed(), "its run")
    finally:
        process.terminate()
        process.wait(20)
        output.close()
        shutil.rmtree(app.folder)


def test_a_clock_that_is_set_back_runs_nothing_again_and_hides_nothing(app, start):
    noted = Recorded(app, start, outputs=[{"name": "$return", "type": "queue", "direction": "out", "queueName": "orders"}])
    host = noted.start()
    for name, when in [("old", 1), ("now", time.time()), ("future", 4102444800)]:
        temporary = noted.app.folder / name
        temporary.write_text(name)
        os.utime(temporary, (when, when))
        temporary.rename(noted.incoming / name)
    assert noted.settled(3) == ["future", "now", "old"]
    host.stop()
    # What the ledger holds was written by a clock an hour ahead.
    with contextlib.closing(sqlite3.connect(noted.storage / ".andiron" / "account.db")) as ledger, ledger:
        ledger.execute("UPDATE receipt SET updated = updated + 3600")
        ledger.execute("UPDATE message SET inserted = inserted + 3600, expires = expires + 3600")
    app.write("Order/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "m", "type": "queueTrigger", "queueName": "orders"},
        {"name": "$return", "type": "blob", "direction": "out", "path": "orders/{Id}"},
    ]})
    noted.start()
    until(lambda: len(list((noted.storage / "orders").glob("*"))) == 3, "the messages")
    noted.settled(3)


def test_no_reader_sees_half_an_output(app, start):
    app.write("Keep/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "req", "type": "httpTrigger", "authLevel": "anonymous"},
        {"name": "$return", "type": "blob", "direction": "out", "path": "kept/large"},
    ]})
    host = start(app)
    path = app.folder / "storage" / "kept" / "large"
    size = 2_000_000
    seen = set()
    done = threading.Event()

    def look():
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                data = path.read_bytes()
                seen.add((len(data), data == data[:1] * len(data)))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(30):
        assert host.call("POST", "/api/Keep", bytes([65 + number]) * size, {"Content-Type": "text/plain"}).status == 200
    done.set()
    reader.join()
    assert seen == {(size, True)}


def test_bad_paths_and_connections_are_function_errors(app, start):
    blob_function(app, "One", "con{x}/blob")
    blob_function(app, "Two", "incoming/{name")
    app.write("Three/function.json", {"bundle": "builtin:echo", "bindings": [{"name": "b", "type": "blobTrigger", "path": "incoming/{name}", "connection": "Nowhere"}]})
    app.write("Four/function.json", {"bundle": "builtin:echo", "bindings": [{"name": "b", "type": "queueTrigger", "queueName": "No_Queue"}]})
    app.write("Five/function.json", {"bundle": "builtin:echo", "bindings": [{"name": "b", "type": "blobTrigger", "path": "%Missing%/x"}]})
    app.write("local.settings.json", {"Values": {"Broken": "AccountName=a;AccountKey=@"}})
    app.write("Six/function.json", {"bundle": "builtin:echo", "bindings": [{"name": "b", "type": "blobTrigger", "path": "incoming/{name}", "connection": "Broken"}]})
    app.function("Hello")
    host = start(app)
    assert host.call("GET", "/api/Hello").status == 200
    for message in [
        "Invalid blob trigger path 'con{x}/blob'. Container paths cannot contain {resolve} tokens.",
        "Invalid template '{name'. Missing closing bracket at position 1.",
        "Storage account connection string 'Nowhere' does not exist. Make sure that it is a defined App Setting.",
        "A queue name must be 3 to 63 letters, digits and single hyphens: 'No_Queue'",
        "'%Missing%' does not resolve to a value.",
        "Storage account connection string for 'Broken' is invalid: AccountKey is not Base64",
    ]:
        until(lambda: message in host.printed(), message)


def test_the_command_line_sees_the_folder_with_and_without_a_host(noted):
    storage = ["--storage", str(noted.storage)]
    (noted.app.folder / "file").write_text("put")
    put = andiron("blob", "put", str(noted.app.folder / "file"), "incoming/a/b", "--content-type", "text/plain", "--metadata", "camera=front", *storage)
    assert put.returncode == 0, put.stderr
    assert andiron("blob", "ls", *storage).stdout == "incoming\n"
    assert andiron("blob", "ls", "incoming", *storage).stdout.split()[-1] == "a/b"
    assert andiron("blob", "get", "incoming/a/b", *storage).stdout == "put"
    assert os.getxattr(noted.incoming / "a" / "b", "user.metadata.camera") == b"front"
    assert andiron("blob", "get", "incoming/none", *storage).returncode == 66
    host = noted.start()
    noted.settled(1)
    (noted.incoming / "bad").write_text("bad")
    noted.settled(6)
    lines = andiron("blob", "receipts", *storage).stdout.splitlines()
    assert [line.rsplit(" ", 1)[0] for line in lines] == ["completed 1 Note incoming/a/b", "poison 5 Note incoming/bad"]
    assert andiron("blob", "poison", *storage).stdout.startswith("incoming/bad Host.Functions.Note 0x8D")
    done = andiron("blob", "reprocess", "incoming/a/b", *storage)
    assert done.stdout == "1 receipts forgotten\n", done.stderr
    noted.settled(7)
    triggered = andiron("trigger", "blob", "note", "incoming/a/b", *storage)
    assert (triggered.returncode, triggered.stdout) == (0, '{"length": 3}\n'), triggered.stderr
    noted.settled(8)
    failed = andiron("trigger", "blob", "Note", "incoming/bad", *storage)
    assert failed.returncode == 1 and "AN4004" in failed.stderr
    assert "AN2013" in andiron("trigger", "blob", "Nobody", "incoming/bad", *storage).stderr
    assert "AN7013" in andiron("trigger", "blob", "Note", "incoming/none", *storage).stderr
    host.stop()
    assert andiron("blob", "receipts", "incoming/a", "--json", *storage).stdout.count("completed") == 1
    assert andiron("blob", "reprocess", "incoming", "--function", "Note", *storage).stdout == "2 receipts forgotten\n"
    assert andiron("blob", "rm", "incoming/a/b", *storage).returncode == 0
    assert andiron("trigger", "blob", "Note", "incoming/bad", *storage).returncode == 69


def test_queue_messages_start_functions_and_fail_into_the_poison_queue(app, start):
    noted = Recorded(app, start, outputs=[{"name": "$return", "type": "queue", "direction": "out", "queueName": "orders"}])
    app.write("Order/function.json", {"bindings": [
        {"name": "m", "type": "queueTrigger", "queueName": "Orders"},
        {"name": "$return", "type": "blob", "direction": "out", "path": "out/{length}-{DequeueCount}"},
    ]})
    app.write("Order/score.py", "import json\ndef init(): pass\ndef run(data):\n    if json.loads(data)['length'] == 3: raise ValueError('three')\n    return data\n")
    host = noted.start("--log-file", str(app.folder / "log.ndjson"))
    host.log = app.folder / "log.ndjson"
    (noted.incoming / "four").write_text("four")
    (noted.incoming / "six").write_text("six")
    until((noted.storage / "out" / "4-1").exists, "the message's blob")
    assert json.loads((noted.storage / "out" / "4-1").read_text()) == {"length": 4}
    until(lambda: "Moving message to queue 'orders-poison'" in host.printed(), "the poison queue")
    time.sleep(0.3)
    host.stop()
    attempts = [record.get("attempt", 1) for record in host.records("invocation_completed") if record["function"] == "Order" and record["outcome"] == "failed"]
    assert attempts == [1, 2, 3, 4, 5]
    assert messages(noted.storage, "orders") == []
    assert json.loads(base64.b64decode(messages(noted.storage, "orders-poison")[0])) == {"length": 3}


def test_a_killed_host_gives_messages_back(app, start):
    noted = Recorded(app, start, outputs=[{"name": "$return", "type": "queue", "direction": "out", "queueName": "orders"}])
    app.write("Order/function.json", {"bindings": [{"name": "m", "type": "queueTrigger", "queueName": "orders"}]})
    app.write("Order/score.py", "import time, os, pathlib\ndef init(): pass\ndef run(data):\n    mark = pathlib.Path(os.environ['RUNS'] + '.order')\n    first = not mark.exists()\n    mark.write_text('x')\n    if first: time.sleep(1000)\n    pathlib.Path(os.environ['RUNS'] + '.done').write_text('x')\n    return 1\n")
    host = noted.start()
    (noted.incoming / "a").write_text("a")
    until(pathlib.Path(str(noted.runs_file) + ".order").exists, "the message is taken")
    host.process.kill()
    host.process.wait()
    noted.start()
    until(pathlib.Path(str(noted.runs_file) + ".done").exists, "the message comes again")


def test_a_folder_is_scored_and_goes_on_after_a_kill(app):
    folder = app.folder / "in"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    for number in range(40):
        (folder / f"{number:02}.json").write_text(json.dumps({"n": number}))
    (folder / "sub" / "deep").write_text('{"n": 100}')
    (folder / ".hidden").write_text("x")
    runs = app.folder / "runs.txt"
    app.function("Score", "import json, os, time\ndef init(): pass\ndef run(data):\n    n = json.loads(data)['n']\n    open(os.environ['RUNS'], 'a').write(f'{n}\\n')\n    time.sleep(0.05)\n    if n == 7: raise ValueError('seven')\n    return {'n': n}\n")
    environment = {**os.environ, "ANDIRON_CACHE": CACHE, "RUNS": str(runs)}
    command = [ANDIRON, "batch", "Score", "--input", str(folder), "--output", str(app.folder / "out"), "--workers", "2", "--app", str(app.folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        until(lambda: len(list((app.folder / "out").glob("*.json"))) > 10, "some results")
        process.kill()
    had = {path.name for path in (app.folder / "out").glob("*.json")}
    before = len(runs.read_text().split())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1, "one file fails"
    assert f"{40 - len(had)} scored, 1 failed, {len(had)} done before, of 41 files" in done.stdout, done.stdout
    assert "seven" in done.stderr
    again = {f"{int(n):02}.json" for n in runs.read_text().split()[before:]}
    assert not again & had, "what had a result was scored again"
    assert json.loads((app.folder / "out" / "sub" / "deep").read_text()) == {"n": 100}
    assert len(list((app.folder / "out").rglob("*"))) == 41 and not list((app.folder / "out").glob(".*.tmp"))
    # Changed input is scored again, nothing else.
    (folder / "03.json").write_text('{"n": 333}')
    (folder / "07.json").write_text('{"n": 8}')
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0 and "2 scored, 0 failed, 39 done before" in done.stdout, done.stdout
    assert json.loads((app.folder / "out" / "03.json").read_text()) == {"n": 333}


def test_the_watched_container_is_there_for_a_first_file(app, start):
    blob_function(app, "Note", "incoming/{name}", bundle="builtin:echo")
    host = start(app)
    incoming = app.folder / "storage" / "incoming"
    until(incoming.is_dir, "the container")
    (incoming / "first").write_text("x")
    until(lambda: "incoming/first" in host.printed(), "its run")


def test_a_terminal_shows_a_bar(app):
    import pty

    (app.folder / "in").mkdir()
    for number in range(30):
        (app.folder / "in" / f"{number}").write_text("x")
    app.function("Echo")
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [ANDIRON, "batch", "Echo", "--input", str(app.folder / "in"), "--output", str(app.folder / "out"), "--app", str(app.folder)],
        stdout=secondary, stderr=secondary, env={**os.environ, "ANDIRON_CACHE": CACHE})
    os.close(secondary)
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(primary, 4096):
            shown += chunk
    assert process.wait(DEADLINE) == 0
    assert "█" in shown.decode() and "30/30" in shown.decode() and "30 scored, 0 failed" in shown.decode()


def test_the_root_container_and_metadata_of_a_file(app, start):
    root = app.folder / "storage" / "$root"
    root.mkdir(parents=True)
    blob_function(app, "Root", "$root/{name}", outputs=[{"name": "$return", "type": "blob", "direction": "out", "path": "out/{name}-{Metadata.camera}-{Properties.ContentType}"}])
    start(app)
    path = root / ".new"
    path.write_text("x")
    os.setxattr(path, "user.metadata.camera", b"front")
    os.setxattr(path, "user.mime_type", b"text")
    path.rename(root / "a")
    until((app.folder / "storage" / "out" / "a-front-text").exists, "the output")


def test_concurrency_is_what_host_json_says(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"maxDegreeOfParallelism": 16}})
    host = noted.start()
    assert host.call("GET", "/admin/host/config").json["blobs"] == {
        "maxDegreeOfParallelism": 16, "batchSize": 9, "newBatchThreshold": 7, "poisonBlobThreshold": 5}


def test_many_large_blobs_do_not_raise_memory_by_their_contents(app, start):
    noted = Recorded(app, start, extensions={"blobs": {"maxDegreeOfParallelism": 4}})
    blob_function(app, "Note", "incoming/{name}", bundle="builtin:size")
    large = app.folder / "large"
    large.write_bytes(b"x" * 4_000_000)
    host = noted.start("--log-file", str(app.folder / "log.ndjson"))
    host.log = app.folder / "log.ndjson"
    for number in range(250):
        os.link(large, noted.incoming / f"{number}")
    until(lambda: len(host.records("invocation_completed")) >= 250, "all of them")
    peak = next(int(line.split()[1]) for line in open(f"/proc/{host.process.pid}/status") if line.startswith("VmHWM"))
    assert peak < 150_000, f"{peak} kB, with 1 000 000 kB of blobs"


def test_a_port_that_is_taken_is_said_and_the_folder_goes_on(noted):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        host = noted.start("--blob-port", str(port), "--queue-port", "-1")
        assert f"the Blob service is not served on port {port}" in host.printed()
        assert "blob" not in host.info and "queue" not in host.info
        (noted.incoming / "a").write_text("a")
        noted.settled(1)


def test_a_drained_host_starts_nothing_until_it_resumes(noted):
    host = noted.start()
    (noted.incoming / "before").write_text("before")
    noted.settled(1)
    assert host.call("POST", "/admin/host/drain").status == 202
    until(lambda: host.call("GET", "/admin/host/drain/status").json["state"] == "Completed", "the drain")
    (noted.incoming / "meanwhile").write_text("meanwhile")
    assert noted.settled(1) == ["before"]
    assert host.call("POST", "/admin/host/resume").json == {"state": "Running"}
    assert noted.settled(2) == ["before", "meanwhile"]


def test_a_changed_binding_listens_elsewhere_and_the_others_go_on(noted):
    other = noted.app.folder / "other.txt"
    blob_function(noted.app, "Other", "others/{name}", RECORDING.replace('os.environ["RUNS"]', repr(str(other))))
    noted.start()
    (noted.incoming / "one").write_text("one")
    assert noted.settled(1) == ["one"]
    blob_function(noted.app, "Note", "elsewhere/{name}", RECORDING)
    elsewhere = noted.storage / "elsewhere"
    until(elsewhere.is_dir, "the new container")
    (elsewhere / "two").write_text("two")
    assert noted.settled(2) == ["one", "two"]
    (noted.incoming / "three").write_text("three")
    assert noted.settled(2) == ["one", "two"], "the old path is not listened to any more"
    (noted.storage / "others" / "four").write_text("four")
    until(lambda: other.exists() and "four" in other.read_text(), "the function that did not change")
