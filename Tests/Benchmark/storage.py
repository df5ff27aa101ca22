"""Benchmarks of the blob trigger, a section of bench.py: latency, throughput, a quiet tree of 100 000 files."""

import json
import os
import pathlib
import sqlite3
import statistics
import contextlib
import time

SCRIPT = """
import os, time
LOG = os.open(os.environ["RUNS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def init(): pass
def run(data):
    os.write(LOG, f"{time.monotonic_ns()} {data}\\n".encode())
    return 1
"""


def blob_app(bench, folder, script=SCRIPT):
    (folder / "host.json").write_text('{"version": "2.0"}')
    (folder / "Score").mkdir(parents=True)
    (folder / "Score" / "score.py").write_text(script)
    (folder / "Score" / "function.json").write_text(json.dumps({"bindings": [{"name": "b", "type": "blobTrigger", "path": "incoming/{name}"}]}))
    (folder / "storage" / "incoming").mkdir(parents=True)
    return folder / "storage" / "incoming"


@contextlib.contextmanager
def running(bench, folder, workers=1, environment=None):
    host = bench.andiron(folder, workers=workers, environment=environment)
    try:
        yield host
    finally:
        host.stop()


def wait(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def runs(folder):
    path = folder / "runs"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def latency(bench, folder, count=300):
    incoming = blob_app(bench, folder)
    with running(bench, folder, environment={"RUNS": str(folder / "runs")}) as host:
        (incoming / "warm").write_text("warm")
        wait(lambda: runs(folder), "the first")
        closed = {}
        for number in range(count):
            with open(incoming / f"{number}", "w") as file:
                file.write(f"n{number}")
            closed[f"n{number}"] = time.monotonic_ns()
            time.sleep(0.01)
        wait(lambda: len(runs(folder)) > count, "all of them")
    waits = sorted((int(at) - closed[name]) / 1e6 for at, name in runs(folder) if name in closed)
    return waits[len(waits) // 2], waits[int(len(waits) * 0.99)]


def throughput(bench, folder, count=10_000):
    incoming = blob_app(bench, folder)
    aside = folder / "aside"
    aside.mkdir()
    for number in range(count):
        (aside / f"{number}").write_text(f"n{number}")
    with running(bench, folder, workers=2, environment={"RUNS": str(folder / "runs")}) as host:
        (incoming / "warm").write_text("warm")
        wait(lambda: runs(folder), "the first")
        cpu = bench.cpu_microseconds(host.pid)
        begun = time.monotonic_ns()
        # All at once: each appears with a rename.
        for number in range(count):
            os.rename(aside / f"{number}", incoming / f"{number}")
        wait(lambda: (folder / "runs").read_bytes().count(b"\n") > count, "all of them")
        last = max(int(at) for at, _ in runs(folder))
        cpu = bench.cpu_microseconds(host.pid) - cpu
        time.sleep(1)
    names = [name for _, name in runs(folder)]
    assert len(names) == len(set(names)) == count + 1, "lost or run twice"
    with contextlib.closing(sqlite3.connect(folder / "storage/.andiron/account.db")) as ledger:
        assert ledger.execute("SELECT count(*) FROM receipt WHERE state = 1").fetchone()[0] == count + 1
    return count / ((last - begun) / 1e9), cpu / count


def quiet(bench, folder, count=100_000, seconds=10):
    incoming = blob_app(bench, folder)
    for number in range(count):
        if number % 1000 == 0:
            (incoming / f"{number // 1000:03}").mkdir()
        (incoming / f"{number // 1000:03}" / f"{number}").write_text("x")
    with running(bench, folder, workers=2, environment={"RUNS": "/dev/null"}) as host:
        def receipts():
            text = bench.get(host.url + "/metrics").read().decode()
            return any(l.startswith("andiron_invocations_total") and 'outcome="succeeded"' in l and float(l.split()[-1]) >= count for l in text.splitlines())
        wait(receipts, "all of them", 300)
        time.sleep(2)
        peak = bench.resident_megabytes(host.pid)
    # The next start finds a receipt for each.
    with running(bench, folder, environment={"RUNS": "/dev/null"}) as host:
        time.sleep(8)
        cpu = bench.cpu_microseconds(host.pid)
        time.sleep(seconds)
        cpu = bench.cpu_microseconds(host.pid) - cpu
        return peak, bench.resident_megabytes(host.pid), cpu / seconds / 1e4


def section(bench, folder):
    (folder / "latency").mkdir()
    (folder / "throughput").mkdir()
    (folder / "quiet").mkdir()
    median, p99 = latency(bench, folder / "latency")
    rounds = []
    for number in range(bench.ROUNDS):
        (folder / "throughput" / f"{number}").mkdir()
        rounds.append(throughput(bench, folder / "throughput" / f"{number}"))
    rate = statistics.median(rate for rate, _ in rounds)
    cost = statistics.median(cost for _, cost in rounds)
    peak, resident, percent = quiet(bench, folder / "quiet")
    return [
        ("file closed → `run()` begins, idle host, p50", f"{median:.2f} ms", "1 ms"),
        ("the same, p99", f"{p99:.2f} ms", "20 ms"),
        ("10 000 files dropped at once, each scored and its receipt durable", f"{rate:,.0f} a second, {cost:.0f} µs CPU each", "5 000 a second"),
        ("host while it scores 100 000 files", f"{peak:.0f} MB", "60 MB"),
        ("host with a quiet tree of 100 000 files", f"{resident:.0f} MB, {percent:.2f} % of a core", "60 MB, 0 %"),
    ]
