"""Draining, stopping, and reloading without dropping a request."""

import itertools
import signal
import socket
import threading
import time

from conftest import until

SLOW = "import time\ndef init(): pass\ndef run(data):\n    time.sleep(float(data))\n    return 'done'\n"


def in_background(call):
    result = {}
    thread = threading.Thread(target=lambda: result.update(answer=call()))
    thread.start()
    return thread, result


def test_sigterm_lets_work_finish_and_frees_the_port(app, start):
    app.function("Slow", SLOW)
    host = start(app)
    host.post("/api/Slow", "0")
    thread, result = in_background(lambda: host.post("/api/Slow", "1"))
    until(lambda: 'in_flight{function="Slow"} 1.0' in host.call("GET", "/metrics").text, "the request")
    host.process.send_signal(signal.SIGTERM)
    until(lambda: host.call("GET", "/readyz").status == 503, "readyz 503 while draining")
    assert host.post("/api/Slow", "0").status == 503
    thread.join()
    assert result["answer"].status == 200 and result["answer"].text == '"done"'
    assert host.process.wait(5) == 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", host.port))
    assert not host.ready.exists()


def test_ctrl_c_stops_and_a_second_one_stops_at_once(app, start):
    app.function("Slow", SLOW)
    host = start(app)
    assert host.stop(signal.SIGINT) == 0
    host = start(app)
    host.post("/api/Slow", "0")
    thread, _ = in_background(lambda: host.raw(b"POST /api/Slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n30"))
    until(lambda: 'in_flight{function="Slow"} 1.0' in host.call("GET", "/metrics").text, "the request")
    host.process.send_signal(signal.SIGINT)
    until(lambda: host.call("GET", "/readyz").status == 503, "the drain")
    begun = time.monotonic()
    host.process.send_signal(signal.SIGINT)
    assert host.process.wait(5) == 130
    assert time.monotonic() - begun < 1
    thread.join()


def test_the_shutdown_timeout_ends_what_does_not_finish(app, start):
    app.function("Slow", SLOW)
    host = start(app, "--shutdown-timeout", "0.3")
    host.post("/api/Slow", "0")
    thread, _ = in_background(lambda: host.raw(b"POST /api/Slow HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n30"))
    until(lambda: 'in_flight{function="Slow"} 1.0' in host.call("GET", "/metrics").text, "the request")
    begun = time.monotonic()
    assert host.stop() == 0
    assert time.monotonic() - begun < 3
    thread.join()


def test_an_early_request_waits_for_the_worker(app, start):
    app.function("Late", "import time\ntime.sleep(0.5)\ndef init(): time.sleep(0.3)\ndef run(data): return 1\n")
    host = start(app)
    assert host.call("GET", "/readyz").status == 200
    answer = host.post("/api/Late", "x")
    assert answer.status == 200
    assert answer.timing["cold_import"] >= 400 and answer.timing["cold_init"] >= 250
    assert "cold_import" not in host.post("/api/Late", "x").timing


def test_code_is_reloaded_without_dropping_a_request(app, start):
    script = "import time\ndef init(): pass\ndef run(data):\n    time.sleep(0.02)\n    return {}\n"
    app.function("Score", script.format(1))
    host = start(app)
    assert host.post("/api/Score", "x").json == 1
    stop = threading.Event()
    statuses, values = [], []

    def load():
        while not stop.is_set():
            answer = host.post("/api/Score", "x")
            statuses.append(answer.status)
            values.append(answer.text)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in (2, 3):
        app.write("Score/score.py", script.format(version))
        until(lambda: values and values[-1] == str(version), f"version {version}")
    app.write("host.json", {"version": "2.0", "extensions": {"http": {"customHeaders": {"X-New": "1"}}}})
    until(lambda: host.post("/api/Score", "x").headers.get("x-new") == "1", "the new host.json")
    app.function("Added")
    until(lambda: host.post("/api/Added", "hi").text == "hi", "the new function")
    stop.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}
    assert [value for value in dict.fromkeys(values)] == ["1", "2", "3"]
    # A broken host.json changes nothing for those that run.
    app.write("host.json", "{")
    until(lambda: "host.json:1:2" in host.printed(), "the error")
    assert host.post("/api/Score", "x").status == 200


def test_an_idle_host_sleeps(app, start):
    app.function("Echo").function("Score", "def init(): pass\ndef run(data): return 1\n")
    host = start(app)
    host.post("/api/Score", "x")

    def switches():
        total = 0
        for thread in (f"/proc/{host.process.pid}/status",):
            text = open(thread).read()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("voluntary_ctxt"))
        return total

    time.sleep(1.5)  # the keep-alive sweep ends with the last connection
    before = switches()
    time.sleep(2)
    assert switches() - before <= 2


def test_host_json_decides_what_the_terminal_shows(app, start):
    levels = lambda **words: app.write("host.json", {"version": "2.0", "logging": {"logLevel": words}})
    levels(**{"Function.Loud": "Error", "Function.Loud.User": "Information"})
    script = "def init(): pass\ndef run(data):\n    print('said', data)\n    return 'x'\n"
    for name in ("Loud", "Other"):
        app.function(name, script=script)
    host = start(app)
    for name in ("Loud", "Other"):
        assert host.post(f"/api/{name}", b"one").status == 200
    until(lambda: "Other 200" in host.printed() and "Loud: said one" in host.printed(), "both functions' lines")
    assert "Loud 200" not in host.printed()
    levels(**{"default": "None", "Function.Other.User": "Information"})
    numbers = itertools.count(100)

    def is_quiet():
        # The terminal is written in order: with the second's print, the first's end would be there.
        before = host.printed().count("Other 200")
        for number in (next(numbers), next(numbers)):
            assert host.post("/api/Other", f"{number}".encode()).status == 200
        until(lambda: f"said {number}" in host.printed(), "what the script printed")
        return host.printed().count("Other 200") == before

    until(is_quiet, "no runs on the terminal")
