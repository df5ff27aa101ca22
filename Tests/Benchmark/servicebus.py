"""The broker in the host beside RabbitMQ, with one client (amqp-load) in one run.

`make bench` runs it with --write, which puts the table into docs/reference/servicebus.md. Rates are medians of the
rounds; ratios are taken inside a run.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/Integration"))
from brokers import RABBIT, RabbitMQ  # noqa: E402

ANDIRON = ROOT / ".build/release/andiron"
LOAD = ROOT / ".build/release/amqp-load"
PAGE = ROOT / "docs/reference/servicebus.md"
CONFIG = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
    {"Name": "bench", "Properties": {"DefaultMessageTimeToLive": "P365D"}}, {"Name": "few"}, {"Name": "work"}]}]}}


class Host:
    def __init__(self, folder, *arguments, script=None):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "host.json").write_text('{"version": "2.0"}')
        (folder / "Config.json").write_text(json.dumps(CONFIG))
        if script:
            (folder / "Work").mkdir(exist_ok=True)
            (folder / "Work/score.py").write_text(script)
            (folder / "Work/function.json").write_text(json.dumps({"bindings": [
                {"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "work"}]}))
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [str(ANDIRON), "start", str(folder), "--port", "0", "--servicebus-port", "0", "--ready-file", str(ready), *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not ready.exists():
            assert self.process.poll() is None
            time.sleep(0.001)
        self.ready_ms = (time.perf_counter() - begin) * 1000
        info = json.loads(ready.read_text())
        self.port, self.http = info["serviceBusPort"], info["port"]
        self.url = f"amqp://127.0.0.1:{self.port}/bench"

    def memory(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def load(url, mode, count, *options):
    done = subprocess.run([str(LOAD), url, mode, str(count), *map(str, options)], capture_output=True, text=True, timeout=40)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def syncs(folder):
    """Appends of 300 bytes with fdatasync, a second."""
    file = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    end, count = time.monotonic() + 1, 0
    while time.monotonic() < end:
        os.write(file, b"x" * 300)
        os.fdatasync(file)
        count += 1
    os.close(file)
    return count


def rabbit_rates(rabbit):
    """What the peer sends, and sends and completes, a second; few messages, for it is slow where syncs are."""
    url = f"{rabbit.url}//queue/bench"
    theirs = load(url, "send", 5_000, "--window", 100)["rate"]
    load(url, "receive", 5_000, "--window", 100)
    return theirs, load(url, "both", 5_000, "--window", 100)["rate"]


def rates(folder, rounds, rabbit):
    """Rates of each side, medians of rounds that alternate."""
    durable, memory = Host(folder / "durable"), Host(folder / "memory", "--servicebus-memory")
    found = {}

    def note(name, value):
        found.setdefault(name, []).append(value)

    try:
        for _ in range(rounds):
            raw = syncs(folder)
            one = load(durable.url, "send", 1000, "--window", 1)["rate"]
            note("raw", raw)
            note("one", one)
            note("one/raw", one / raw)
            load(durable.url, "receive", 1000, "--window", 100)
            ours = load(durable.url, "send", 60_000, "--window", 100)["rate"]
            load(durable.url, "receive", 60_000, "--window", 100)
            both = load(durable.url, "both", 60_000, "--window", 100)["rate"]
            note("send", ours)
            note("both", both)
            for window in (100, 1000):
                for mode in ("send", "receive", "both"):
                    note(f"memory {mode} {window}", load(memory.url, mode, 200_000, "--window", window)["rate"])
            if rabbit:
                try:
                    theirs, their_both = rabbit_rates(rabbit)
                except (subprocess.TimeoutExpired, AssertionError) as error:
                    # The peer's failure is told in its row and takes nothing from ours.
                    print(f"RabbitMQ was not measured: {error}", file=sys.stderr)
                    rabbit = None
                    continue
                note("rabbit send", theirs)
                note("rabbit both", their_both)
                note("send/rabbit", ours / theirs)
                note("both/rabbit", both / their_both)
    finally:
        durable.stop()
        memory.stop()
    return {name: statistics.median(values) for name, values in found.items()}


def backlog(folder):
    """Receive rates with a few messages waiting and with a million, of two queues in turn, and the memory of that."""
    host = Host(folder / "backlog")
    few = host.url.replace("/bench", "/few")
    try:
        # More than are received: what a receiver has fetched when it leaves stays locked.
        load(few, "send", 60_000, "--window", 1000)
        load(host.url, "send", 1_000_000, "--window", 1000)
        memory = host.memory()
        pairs = [[load(url, "receive", 10_000, "--window", 100)["rate"] for url in (few, host.url)] for _ in range(5)]
    finally:
        host.stop()
    return statistics.median(many for _, many in pairs), statistics.median(many / few for few, many in pairs), memory


def connections(folder):
    host = Host(folder / "connections")
    idle = subprocess.Popen([str(LOAD), host.url, "idle", "1000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert "1000" in idle.stdout.readline()
        return host.memory()
    finally:
        idle.stdin.close()
        idle.wait(30)
        host.stop()


def latency(folder):
    """From the answer to a send to run(), in microseconds, medians; negative when run() began before the answer came."""
    notes = folder / "notes"
    script = f"import time\ndef init(): pass\ndef run(data):\n    open({str(notes)!r}, 'a').write(data + ' ' + str(time.time_ns()) + '\\n')\n"
    host = Host(folder / "latency", script=script)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", host.http)
        sent = {}
        for number in range(220):
            connection.request("POST", "/work/messages", str(number))
            assert connection.getresponse().read() == b""
            sent[number] = time.time_ns()
            time.sleep(0.003)
        end = time.monotonic() + 20
        while time.monotonic() < end and len(notes.read_text().splitlines() if notes.exists() else []) < 220:
            time.sleep(0.05)
        pairs = [line.split() for line in notes.read_text().splitlines()]
        return statistics.median((int(when) - sent[int(number)]) / 1000 for number, when in pairs[20:])
    finally:
        host.stop()


def ready(folder):
    times = []
    for number in range(7):
        host = Host(folder / f"ready{number}")
        times.append(host.ready_ms)
        host.stop()
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reference/servicebus.md")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="andiron-bus-", dir=ROOT / ".build"))
    rabbit = None
    try:
        if RABBIT.is_dir():
            rabbit = RabbitMQ(folder / "rabbit").start()
        r = rates(folder, options.rounds, rabbit)
        many, ratio, memory = backlog(folder)
        rows = [
            ("durable send, window 100", f"{r['send']:,.0f}/s", "30,000/s"),
            ("durable send to completion, credit 100", f"{r['both']:,.0f}/s", "20,000/s"),
            *(
                (
                    f"in memory, window {window:,}: send; receive; send to completion",
                    "; ".join(f"{r[f'memory {mode} {window}']:,.0f}/s" for mode in ("send", "receive", "both")),
                    "150,000/s",
                )
                for window in (100, 1000)
            ),
            ("one send in flight, against appends with fdatasync", f"{r['one']:,.0f}/s, {r['one/raw']:.0%} of {r['raw']:,.0f}/s", "70%"),
        ]
        if "rabbit send" not in r:
            rows.append(("RabbitMQ durable, and against it", "not measured", "3 ×"))
        else:
            rows += [
                ("RabbitMQ durable: send; send to completion", f"{r['rabbit send']:,.0f}/s; {r['rabbit both']:,.0f}/s", ""),
                ("against it: send; send to completion", f"{r['send/rabbit']:.1f} ×; {r['both/rabbit']:.1f} ×", "3 ×"),
            ]
        rows += [
            ("receive with 1,000,000 waiting, against 60,000", f"{many:,.0f}/s, {ratio:.2f} ×", "0.8 ×"),
            ("memory with 1,000,000 waiting", f"{memory:.0f} MB", "300 MB"),
            ("memory with 1,000 connections", f"{connections(folder):.0f} MB", "100 MB"),
            ("host and broker ready after", f"{ready(folder):.0f} ms", "50 ms"),
            ("from the answer to a send to run(), median", f"{latency(folder):,.0f} µs", "1,000 µs"),
        ]
    finally:
        if rabbit:
            rabbit.end()
        shutil.rmtree(folder, ignore_errors=True)
    text = f"256 B messages, medians of {options.rounds} rounds, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}.\n\n"
    text += "| load | measured | goal |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows)
    print(text)
    if options.write:
        page = PAGE.read_text()
        start, end = "<!-- measured -->\n", "<!-- end -->"
        PAGE.write_text(page.split(start)[0] + start + text + "\n" + end + page.split(end)[1])


if __name__ == "__main__":
    main()
