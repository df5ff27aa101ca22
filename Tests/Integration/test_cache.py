"""The inference cache, in memory and in a real Redis."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from conftest import App, until
from redis_servers import Redis, free_port

COUNT = "import time\ncalls = 0\ndef init(): pass\ndef run(data):\n    global calls\n    calls += 1\n    time.sleep(0.1)\n    return [data, calls]\n"


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    server.stop()


def cached(app, **options):
    app.write("host.json", {"version": "2.0", "inferenceCache": options})
    return app.function("Score", COUNT)


def test_results_are_kept_and_bypassed_on_demand(app, start):
    host = start(cached(app, timeToLive="00:00:02"))
    first = host.post("/api/Score", "a")
    assert (first.json, first.headers["x-cache"]) == (["a", 1], "MISS")
    second = host.post("/api/Score", "a")
    assert (second.json, second.headers["x-cache"]) == (["a", 1], "HIT")
    assert host.post("/api/Score", "b").json == ["b", 2]
    fresh = host.post("/api/Score", "a", Cache_Control="no-cache")
    assert (fresh.json, fresh.headers["x-cache"]) == (["a", 3], "BYPASS")
    until(lambda: host.post("/api/Score", "a").headers["x-cache"] == "MISS", "the end of its time")


def test_off_by_default_and_by_function(app, start):
    app.function("Score", COUNT)
    assert "x-cache" not in start(app).post("/api/Score", "a").headers
    cached(app).function("Never", COUNT, inferenceCache=False)
    host = start(app)
    assert "x-cache" not in host.post("/api/Never", "a").headers
    assert host.post("/api/Never", "a").json == ["a", 2]


def test_limits(app, start):
    host = start(cached(app, maxEntries=1, maxEntryBytes=400))
    host.post("/api/Score", "a")
    host.post("/api/Score", "b")
    assert host.post("/api/Score", "a").headers["x-cache"] == "MISS", "one entry is kept"
    big = "x" * 500
    host.post("/api/Score", big)
    assert host.post("/api/Score", big).headers["x-cache"] == "MISS", "too large to keep"


def test_equal_requests_at_one_time_are_computed_once(app, start):
    host = start(cached(app))
    host.post("/api/Score", "warm")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(host.post("/api/Score", "same"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {tuple(answer.json) for answer in answers} == {("same", 2)}
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 9 + ["MISS"]


def test_failures_are_not_kept(app, start):
    cached(app).function("Fail", "def init(): pass\ndef run(data): raise ValueError()\n")
    host = start(app)
    for _ in range(2):
        assert host.post("/api/Fail", "a").headers["x-cache"] == "MISS"


def test_a_result_in_redis_outlives_the_host(app, start, redis):
    environment = {"RedisConnectionString": f"127.0.0.1:{redis.port},abortConnect=False"}
    app.function("Score", COUNT)
    host = start(app, environment=environment)
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    first = host.post("/api/Score", "a").json
    until(lambda: b":2" in redis.command("DBSIZE") or b":1" in redis.command("DBSIZE"), "the value")
    host.stop()
    host = start(app, environment=environment)
    host.post("/api/Score", "other")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    again = host.post("/api/Score", "a")
    assert again.json == first and again.headers["x-cache"] == "HIT"
    # Another code is another key.
    app.write("Score/score.py", COUNT.replace("calls = 0", "calls = 100"))
    until(lambda: host.post("/api/Score", "a").json[1] > 100, "the new code's own result")


def test_a_damaged_value_is_a_miss(app, start, redis):
    environment = {"RedisConnectionString": f"redis://127.0.0.1:{redis.port}/0"}
    app.function("Score", COUNT)
    host = start(app, environment=environment)
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    # The first result may be kept or not, by when the connection came; the next one is.
    redis.command("FLUSHALL")
    host.post("/api/Score", "a")
    keys = until(lambda: [k for k in redis.command("KEYS", "andiron:*").decode().split("\r\n") if k.startswith("andiron:")], "the key")
    for key in keys:
        redis.command("SET", key, "AIC1" + "garbage" * 20)
    host.stop()
    host = start(app, environment=environment)
    host.post("/api/Score", "warm2")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    assert host.post("/api/Score", "a").headers["x-cache"] == "MISS"
    until(lambda: any("damaged" in r.get("message", "") for r in host.records("cache_event")), "the warning")


def test_a_redis_that_is_away_slow_or_silent_delays_nothing(app, start, redis):
    app.function("Score", "def init(): pass\ndef run(data): return data\n")
    silent = socket.create_server(("127.0.0.1", 0))
    addresses = {"away": free_port(), "silent": silent.getsockname()[1]}
    for name, port in addresses.items():
        host = start(app, environment={"RedisConnectionString": f"redis://127.0.0.1:{port}"})
        host.post("/api/Score", "warm")
        for number in range(5):
            answer = host.post("/api/Score", f"{name}{number}")
            assert answer.status == 200 and answer.timing["cache_lookup"] < 50, f"{name}: {answer.headers}"
        assert "[-] redis" in until(lambda: "[-] redis" in (t := host.call("GET", "/readyz?verbose").text) and t, "the report")
        host.stop()
    silent.close()
    # Stopped in the middle: SIGSTOP makes it slow, then it dies, then it is back.
    host = start(app, environment={"RedisConnectionString": f"redis://127.0.0.1:{redis.port}"})
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    redis.process.send_signal(19)
    for number in range(5):
        answer = host.post("/api/Score", f"slow{number}")
        assert answer.status == 200 and answer.timing["cache_lookup"] < 50
    redis.stop()
    assert host.post("/api/Score", "dead").status == 200
    redis.begin()

    def back():
        host.post("/api/Score", f"again{time.monotonic()}")
        return "[+] redis" in host.call("GET", "/readyz?verbose").text

    until(back, "the connection's return")


def test_a_wrong_password_is_said_once(app, start, tmp_path):
    server = Redis(tmp_path, "--requirepass", "right", password="right")
    try:
        app.function("Score", "def init(): pass\ndef run(data): return data\n")
        host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{server.port},password=wrong"})
        for number in range(3):
            assert host.post("/api/Score", f"x{number}").status == 200
        warnings = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6003"], "the warning")
        assert len(warnings) == 1 and "wrong" not in json.dumps(warnings).replace("WRONGPASS", "")
        host.stop()
        host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{server.port},password=right"})
        host.post("/api/Score", "x")
        until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    finally:
        server.stop()


def test_several_hosts_compute_once(app, start, redis, tmp_path_factory):
    """Two hosts that share a Redis: the second waits for the first one's result."""
    slow = "import os, time\ndef init(): pass\ndef run(data):\n    time.sleep(0.5)\n    return os.getpid()\n"
    environment = {"RedisConnectionString": f"127.0.0.1:{redis.port}"}
    other = App(tmp_path_factory.mktemp("other"))
    for one in (app, other):
        # What Redis may add is more here: past the limit each host computes on its own, which is right and not this.
        one.write("host.json", {"version": "2.0", "inferenceCache": {"redisTimeout": "00:00:02"}})
        one.function("Score", slow)
    hosts = [start(one, environment=environment) for one in (app, other)]
    for number, host in enumerate(hosts):
        host.post("/api/Score", f"warm{number}")
        until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    answers = []
    threads = [threading.Thread(target=lambda h=host: answers.append(h.post("/api/Score", "same"))) for host in hosts for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.json for answer in answers}) == 1, "one worker of one host computed"
    assert sorted(answer.headers["x-cache"] for answer in answers) == ["HIT"] * 5 + ["MISS"]
    # A host that dies while it computes holds nobody up for long.
    name = [k for k in redis.command("KEYS", "andiron:*").decode().split("\r\n") if k.startswith("andiron:") and not k.endswith("lock")][0]
    assert ":Score:" in name

    def call_the_one_that_dies():
        with contextlib.suppress(OSError, http.client.HTTPException):
            hosts[0].post("/api/Score", "left")

    threading.Thread(target=call_the_one_that_dies, daemon=True).start()
    time.sleep(0.2)
    hosts[0].process.kill()
    begun = time.monotonic()
    assert hosts[1].post("/api/Score", "left").status == 200
    assert time.monotonic() - begun < 6


def test_stale_results_and_age(app, start):
    host = start(cached(app, timeToLive="00:00:01", timeToLiveJitter=0, staleWhileRevalidate="00:01:00"))
    first = host.post("/api/Score", "a").json
    fresh = host.post("/api/Score", "a")
    assert fresh.headers["x-cache"] == "HIT" and fresh.headers["age"] == "0"
    stale = until(lambda: (a := host.post("/api/Score", "a")).headers["x-cache"] == "STALE" and a, "the end of its time")
    assert stale.json == first and int(stale.headers["age"]) >= 1
    renewed = until(lambda: (a := host.post("/api/Score", "a")).headers["x-cache"] == "HIT" and a, "the new result")
    assert renewed.json == ["a", 2] and int(renewed.headers["age"]) <= 1


def test_errors_are_kept_when_told_so(app, start):
    cached(app, errorTimeToLive="00:00:02").function("Fail", "calls = 0\ndef init(): pass\ndef run(data):\n    global calls\n    calls += 1\n    raise ValueError(calls)\n")
    host = start(app)
    first = host.post("/api/Fail", "a")
    again = host.post("/api/Fail", "a")
    assert first.status == again.status >= 400 and again.headers["x-cache"] == "HIT" and first.json["error"] == again.json["error"]
    until(lambda: host.post("/api/Fail", "a").headers["x-cache"] == "MISS", "the end of its time")


def test_large_results_are_compressed(app, start, redis):
    app.function("Score", "def init(): pass\ndef run(data): return [0.25] * 20000\n")
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{redis.port}"})
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    body = host.post("/api/Score", "a").body
    assert len(body) > 100_000
    key = until(lambda: [k for k in redis.keys() if not k.endswith(":lock")], "the value")[0]
    assert redis.number("STRLEN", key) < 5000
    host.stop()
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{redis.port}"})
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    again = host.post("/api/Score", "a")
    assert again.headers["x-cache"] == "HIT" and again.body == body


def test_redis_alone_without_memory(app, start, redis):
    app.write("host.json", {"version": "2.0", "inferenceCache": {"maxEntries": 0}})
    app.function("Score", COUNT)
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{redis.port}"})
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    first = host.post("/api/Score", "a").json
    until(lambda: redis.keys(), "the value")
    again = host.post("/api/Score", "a")
    assert again.json == first and again.headers["x-cache"] == "HIT"
    metrics = host.call("GET", "/metrics").text
    assert 'andiron_cache_requests_total{function="Score",result="hit"} 1' in metrics
    assert "andiron_cache_redis_connected 1" in metrics and "andiron_cache_entries 0" in metrics
    redis.command("FLUSHALL")
    assert host.post("/api/Score", "a").headers["x-cache"] == "MISS"


def test_a_slow_redis_opens_the_breaker_which_closes_by_itself(app, start, redis):
    app.write("host.json", {"version": "2.0", "inferenceCache": {"maxEntries": 0, "singleFlightAcrossHosts": False}})
    app.function("Score", "def init(): pass\ndef run(data): return data\n")
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{redis.port}"})
    host.post("/api/Score", "warm")
    until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection")
    redis.process.send_signal(19)
    for number in range(10):
        answer = host.post("/api/Score", f"x{number}")
        assert answer.status == 200 and answer.timing["cache_lookup"] < 50
    assert "andiron_cache_redis_breaker_open 1" in host.call("GET", "/metrics").text
    assert "left alone" in host.call("GET", "/readyz?verbose").text
    redis.process.send_signal(18)

    def closed():
        host.post("/api/Score", f"y{time.monotonic()}")
        return "andiron_cache_redis_breaker_open 0" in host.call("GET", "/metrics").text

    until(closed, "the breaker")
    words = [r["message"] for r in host.records("cache_event")]
    assert "Redis is left alone for a while" in words and "Redis is used again" in words
