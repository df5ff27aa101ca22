"""Benchmarks, all sides in one run: nginx for the HTTP path, azmlinfsrv for scoring.

`make bench` runs it with --write, which puts the tables into docs/reference/performance.md. Ratios are taken
inside a run; CPU per request (from /proc/*/schedstat) is the figure to trust on a shared machine.
"""

import argparse
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import storage

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANDIRON = ROOT / ".build/release/andiron"
VENV = ROOT / ".build/bench-venv"
PAGE = ROOT / "docs/reference/performance.md"
SECONDS = 3
ROUNDS = 3
SAMPLE = (ROOT / "samples/bundles/digits/sample-input.json").read_text().strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descendants(pid):
    pids = [pid]
    for parent in pids:
        for task in os.listdir(f"/proc/{parent}/task"):
            try:
                pids += [int(p) for p in open(f"/proc/{parent}/task/{task}/children").read().split()]
            except FileNotFoundError:
                pass
    return pids


def cpu_microseconds(pid):
    total = 0
    for each in descendants(pid):
        for task in os.listdir(f"/proc/{each}/task"):
            try:
                total += int(open(f"/proc/{each}/task/{task}/schedstat").read().split()[0])
            except FileNotFoundError:
                pass
    return total / 1e3


def resident_megabytes(pid):
    return next(int(l.split()[1]) for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")) / 1024


def microseconds(text):
    value, unit = re.match(r"([\d.]+)(us|ms|s)", text).groups()
    return float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
{headers}
local depth = {depth}
local counter = 0
{body}
request = function()
  local all = {{}}
  for i = 1, depth do
    counter = counter + 1
    all[i] = wrk.format(nil, nil, nil, body(counter))
  end
  return table.concat(all)
end
"""


class Load:
    """One kind of request."""

    def __init__(self, body, depth=1, headers=""):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False)
        self.file.write(LUA.format(body=body, depth=depth, headers=headers))
        self.file.close()

    def run(self, url, pid, connections=32, pin=None):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "--timeout", "10", "--latency", "-s", self.file.name, url]
        if pin is not None:
            command = ["taskset", "-c", "1"] + command
            for each in descendants(pid):
                subprocess.run(["taskset", "-acp", "0", str(each)], stdout=subprocess.DEVNULL)
        before = cpu_microseconds(pid)
        text = subprocess.run(command, capture_output=True, text=True).stdout
        spent = cpu_microseconds(pid) - before
        requests = int(re.search(r"(\d+) requests in", text).group(1))
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        if failed or requests == 0:
            raise SystemExit(f"{url}: answers were not all 200\n{text}")
        return {
            "rps": float(re.search(r"Requests/sec: *([\d.]+)", text).group(1)),
            "cpu": spent / requests,
            "p99": microseconds(re.search(r"99% *(\S+)", text).group(1)),
        }


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def constant(text):
    return "local text = " + json.dumps(text) + "\nlocal body = function() return text end"


SMALL = Load(constant('{"x":"' + "a" * 192 + '"}'))
LARGE = Load(constant("a" * 65536))
PIPELINED = Load(constant('{"x":"' + "a" * 192 + '"}'), depth=16)
DIGITS = Load(constant(SAMPLE), headers='wrk.headers["Cache-Control"] = "no-cache"')
CACHED = Load(constant(SAMPLE))


class Server:
    def __init__(self, command, url, folder=None, environment=None):
        self.log = tempfile.NamedTemporaryFile("w", delete=False)
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **(environment or {})})
        self.url = url

    @property
    def pid(self):
        return self.process.pid

    def until(self, check, what, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if check():
                    return
            except OSError:
                pass
            time.sleep(0.002)
            if self.process.poll() is not None:
                break
        raise SystemExit(f"{what} did not come up:\n{open(self.log.name).read()[-3000:]}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def get(url, body=None):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=60)


def nginx(folder):
    port = free_port()
    temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""worker_processes 1; daemon off; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 20000; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 200m; client_body_buffer_size 1m; {temporary}
server {{ listen 127.0.0.1:{port}; location / {{ default_type application/json; return 200 '{{"status":"ok"}}'; }} }} }}""")
    server = Server(["nginx", "-c", str(folder / "nginx.conf")], f"http://127.0.0.1:{port}/")
    server.until(lambda: get(server.url).status == 200, "nginx")
    return server


def app(folder, functions, host=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "host.json").write_text(json.dumps({"version": "2.0", **(host or {})}))
    for name, document in functions.items():
        (folder / name).mkdir(exist_ok=True)
        binding = {"name": "req", "type": "httpTrigger", "direction": "in", "authLevel": "anonymous", "methods": ["post"]}
        (folder / name / "function.json").write_text(
            json.dumps({"bindings": [binding, {"name": "$return", "type": "http", "direction": "out"}], **document}))
    return folder


def andiron(folder, workers=1, warm=(), environment=None):
    port = free_port()
    server = Server(
        [str(ANDIRON), "start", str(folder), "--port", str(port)], f"http://127.0.0.1:{port}",
        environment={"FUNCTIONS_WORKER_PROCESS_COUNT": str(workers), **(environment or {})})
    server.until(lambda: get(server.url + "/readyz").status == 200, "andiron")
    server.started = time.monotonic() - server.begun
    for name in warm:
        server.until(lambda: get(f"{server.url}/api/{name}", SAMPLE.encode()).status == 200, name)
        server.until(lambda: f"[+] function {name}: {workers} workers" in get(server.url + "/readyz?verbose").read().decode(), "workers")
    return server


def peer(folder, workers):
    port = free_port()
    server = Server(
        [str(VENV / "bin/azmlinfsrv"), "--entry_script", "score.py", "--model_dir", "model", "--port", str(port),
         "--worker_count", str(workers)], f"http://127.0.0.1:{port}/score", folder)
    server.until(lambda: get(server.url, SAMPLE.encode()).status == 200, "azmlinfsrv")
    return server


def compare(sides, load, connections=32, pin=None):
    """Runs the sides in turn, ROUNDS times, and returns their medians."""
    runs = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, (url, pid) in sides.items():
            runs[name].append(load.run(url, pid, connections, pin))
    return {name: medians(each) for name, each in runs.items()}


def http_path(folder):
    echo = app(folder / "echo", {"Echo": {"bundle": "builtin:echo"}, "Size": {"bundle": "builtin:size"}})
    ours, theirs = andiron(echo), nginx(folder)
    results = []
    try:
        # nginx answers large bodies with a few bytes, so ours does too.
        for name, load, function in (("200 B", SMALL, "echo"), ("64 KiB", LARGE, "size"), ("200 B, 16 pipelined", PIPELINED, "echo")):
            sides = {
                "nginx `return 200`": (theirs.url, theirs.pid),
                f"andiron `builtin:{function}`": (f"{ours.url}/api/{function}", ours.pid),
            }
            results.append((name, compare(sides, load, pin=True)))
    finally:
        ours.stop()
        theirs.stop()
    return results


def python_path(folder):
    script = "def init(): pass\ndef run(data): return None\n"
    noop = app(folder / "noop", {"Noop": {}})
    (noop / "Noop" / "score.py").write_text(script)
    server = andiron(noop, warm=["Noop"])
    try:
        return compare({"andiron, run() that does nothing": (server.url + "/api/Noop", server.pid)}, SMALL)
    finally:
        server.stop()


ALONE = """
import json, os, sys, time
os.environ["AZUREML_MODEL_DIR"] = sys.argv[1] + "/model"
sys.path.insert(0, sys.argv[1])
import score
score.init()
sample, count = sys.argv[2], 0
for _ in range(200): score.run(sample)
begin, spent = time.monotonic(), time.process_time()
while time.monotonic() - begin < float(sys.argv[3]):
    json.dumps(score.run(sample)); count += 1
print(json.dumps({"rps": count / (time.monotonic() - begin), "cpu": (time.process_time() - spent) / count * 1e6, "p99": 0}))
"""


def alone(bundle):
    """The entry script in a loop, no server around it: what one worker could reach if serving cost nothing."""
    command = [str(VENV / "bin/python"), "-c", ALONE, str(bundle), SAMPLE, str(SECONDS)]
    return medians([json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(ROUNDS)])


def scoring(folder):
    bundle = ROOT / "samples/bundles/digits"
    digits = app(folder / "digits", {"Digits": {"bundle": str(folder / "bundle")}}, {"inferenceCache": {}})
    shutil.copytree(bundle, folder / "bundle", ignore=shutil.ignore_patterns("__pycache__", "deploymentconfig.json"))
    results = []
    for workers in (1, 2):
        ours, theirs = andiron(digits, workers, ["Digits"]), peer(bundle, workers)
        try:
            sides = {f"azmlinfsrv, {workers} workers": (theirs.url, theirs.pid), f"andiron, {workers} workers": (ours.url + "/api/Digits", ours.pid)}
            measured = compare(sides, DIGITS)
            results.append((f"digits, {workers} workers each", measured))
            if workers == 1:
                measured["score.py in a loop, no server"] = alone(bundle)
                hit = compare({"andiron, cache hit": (ours.url + "/api/Digits", ours.pid)}, CACHED)
                results.append(("digits, from the inference cache", hit))
        finally:
            ours.stop()
            theirs.stop()
    return results


def footprint(folder):
    echo = app(folder / "idle", {"Echo": {"bundle": "builtin:echo"}})
    rows = []
    starts = []
    for _ in range(5):
        server = andiron(echo)
        starts.append(server.started * 1000)
        server.stop()
    rows.append(("start to readyz", f"{statistics.median(starts):.0f} ms", "under 50 ms"))
    server = andiron(echo)
    time.sleep(2)
    rows.append(("resident when idle", f"{resident_megabytes(server.pid):.1f} MB", "under 20 MB"))
    switches = lambda: sum(
        int(l.split()[1]) for t in os.listdir(f"/proc/{server.pid}/task")
        for l in open(f"/proc/{server.pid}/task/{t}/status") if l.startswith("voluntary"))
    before = switches()
    time.sleep(5)
    rows.append(("wake-ups in 5 s of idleness", str(switches() - before), "none"))
    idle = resident_megabytes(server.pid)
    port = int(server.url.rsplit(":", 1)[1])
    sockets = []
    for _ in range(10_000):
        each = socket.create_connection(("127.0.0.1", port))
        each.sendall(b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi")
        sockets.append(each)
    for each in sockets:
        each.recv(4096)
    rows.append(("10 000 idle keep-alive connections", f"{resident_megabytes(server.pid) - idle:.0f} MB", "under 100 MB"))
    for each in sockets:
        each.close()
    server.stop()
    many = app(folder / "many", {f"F{number:04}": {"bundle": "builtin:echo"} for number in range(1000)})
    one, thousand = andiron(echo), andiron(many)
    sides = {"one": (one.url + "/api/Echo", one.pid), "thousand": (thousand.url + "/api/F0999", thousand.pid)}
    result = compare(sides, SMALL, pin=True)
    one.stop()
    thousand.stop()
    ratio = result["thousand"]["cpu"] / result["one"]["cpu"]
    rows.append(("CPU per request with 1 000 functions, against one", f"{ratio:.2f} ×", "no slower"))
    return rows


def table(results):
    lines = ["| load | side | requests/s | p99 | CPU per request | against the first |", "|---|---|---|---|---|---|"]
    for load, sides in results:
        first = next(iter(sides.values()))
        for name, run in sides.items():
            ratio = "" if run is first else f"{run['rps'] / first['rps']:.2f} × req/s, {run['cpu'] / first['cpu']:.2f} × CPU"
            if run is not first and first["p99"]:
                ratio += f", {run['p99'] / first['p99']:.2f} × p99"
            lines.append(f"| {load} | {name} | {run['rps']:,.0f} | {run['p99'] / 1000:.2f} ms | {run['cpu']:.1f} µs | {ratio} |")
    return "\n".join(lines)


def machine():
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
    version = subprocess.run([str(ANDIRON), "--version"], capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, andiron {version}, {time.strftime('%Y-%m-%d')}"


def main():
    global SECONDS, ROUNDS
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/reference/performance.md")
    parser.add_argument("--only", choices=["http", "python", "scoring", "footprint", "storage", "redis", "images"])
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    SECONDS, ROUNDS = options.seconds, options.rounds
    if not (VENV / "bin/azmlinfsrv").exists() and options.only in (None, "scoring"):
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        subprocess.run(
            [VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", "-r", ROOT / "Tests/Benchmark/requirements.txt"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="andiron-bench-"))
    sections = []
    try:
        parts = {"http": http_path, "python": lambda f: [("200 B", python_path(f))], "scoring": scoring}
        results = []
        for name, part in parts.items():
            if options.only in (None, name):
                (folder / name).mkdir()
                results += part(folder / name)
        if results:
            sections.append(table(results))
        if options.only in (None, "redis"):
            import redis_bench

            results, rows = redis_bench.redis_path(folder / "redis")
            sections.append(table(results))
            sections.append("| Redis | measured | goal |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows))
        if options.only in (None, "footprint"):
            (folder / "footprint").mkdir()
            rows = footprint(folder / "footprint")
            sections.append("| footprint | measured | goal |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows))
        # The last two make and delete the most files; images first, which suffer from what was deleted before.
        if options.only in (None, "images"):
            done = subprocess.run([sys.executable, ROOT / "Tests/Benchmark/images.py"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            sections.append(done.stdout.strip())
        if options.only in (None, "storage"):
            (folder / "storage").mkdir()
            rows = storage.section(sys.modules[__name__], folder / "storage")
            sections.append("| blobs | measured | goal |\n|---|---|---|\n" + "\n".join(f"| {a} | {b} | {c} |" for a, b, c in rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = f"{machine()}; medians of {ROUNDS} rounds of {SECONDS} s, 32 connections.\n\n" + "\n\n".join(sections)
    print(text)
    if options.write and options.only is None:
        page = PAGE.read_text()
        start, end = "<!-- measured -->\n", "<!-- end -->"
        PAGE.write_text(page.split(start)[0] + start + text + "\n" + end + page.split(end)[1])


if __name__ == "__main__":
    sys.modules["bench"] = sys.modules["__main__"]
    main()
