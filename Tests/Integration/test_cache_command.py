"""`andiron cache` against a running host with a real Redis; an entry script with its own client."""

import json

import pytest

from conftest import andiron, until
from redis_servers import Certificates, Redis
from test_redis import certificates, connected, server  # noqa: F401

# Decorated, so that JSON counts by its value. The stand-in takes the place of inference-schema.
SCHEMA = """
import json
from inference_schema.schema_decorators import input_schema
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
calls = 0
def init(): pass
@input_schema("data", StandardPythonParameterType([1.0]))
def run(data):
    global calls
    calls += 1
    return [sum(data), calls]
"""
PLAIN = "calls = 0\ndef init(): pass\ndef run(data):\n    global calls\n    calls += 1\n    return [data, calls]\n"


@pytest.fixture
def cache(app, start, server):
    app.function("Score", PLAIN)
    app.function("Other", PLAIN)
    redis = server()
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{redis.port}"})
    connected(host)
    host.post("/api/Score", "a")

    def run(*arguments, code=0):
        done = andiron("cache", *arguments, "--ready-file", str(host.ready))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    host.cache, host.redis = run, redis
    return host


def test_stats_ls_get_flush(cache):
    for body in ("b", "b", "c"):
        cache.post("/api/Score", body)
    cache.post("/api/Other", "x")
    until(lambda: len([k for k in cache.redis.keys() if not k.endswith(":lock")]) == 4, "the values")
    assert "Score: 25.0 % hits (1 hits, 0 stale, 3 misses, 0 bypassed)" in cache.cache("stats")
    stats = json.loads(cache.cache("stats", "--json"))
    assert stats["redis"]["connected"] is True and stats["entries"] == 4
    lines = cache.cache("ls").splitlines()
    assert len(lines) == 4 and sum(line.startswith("memory+redis") for line in lines) == 4
    assert len(cache.cache("ls", "--function", "other").splitlines()) == 1
    key = next(line.split("\t")[3] for line in lines if ":Other:" in line)
    done = andiron("cache", "get", key, "--ready-file", str(cache.ready))
    assert json.loads(done.stdout) == ["x", 1] and "200 application/json from memory" in done.stderr
    assert "AN6014" in cache.cache("get", "andiron:nothing", code=1)
    assert cache.cache("flush", "--function", "Score") == "3 results forgotten\n"
    assert cache.post("/api/Score", "b").headers["x-cache"] == "MISS"
    assert cache.post("/api/Other", "x").headers["x-cache"] == "HIT"
    assert "did you mean 'Score'" in cache.cache("ls", "--function", "Scor", code=1)
    cache.cache("flush")
    until(lambda: not cache.redis.keys(), "an empty Redis")


def test_explain_and_verify(cache):
    told = cache.cache("explain", "Score", "-d", "a")
    assert "function:  Score" in told and "input:     bytes" in told and "kept:      in memory" in told
    told = cache.cache("explain", "Score", "-d", "a", "--with", "b")
    assert "the other input's key" in told and "differ in their bytes" in told
    assert "both inputs have this key" in cache.cache("explain", "Score", "-d", "a", "--with", "a")
    # The script counts its calls, so a new result is never the kept one.
    cache.post("/api/Score", "v")
    told = cache.cache("verify", "Score", "-d", "v", code=1)
    assert "they differ at [1]: 2 and 3" in told
    assert "AN6014" in cache.cache("verify", "Score", "-d", "never asked", code=1)


def test_explain_json_by_value(app, start):
    app.write("host.json", {"version": "2.0", "inferenceCache": {}})
    app.function("Score", SCHEMA, files={"requirements.txt": "azureml-defaults\ninference-schema\n"})
    host = start(app)
    assert host.post("/api/Score", '{"data": [1.0, 2.5]}').status == 200
    assert host.post("/api/Score", '{ "data" : [1.00, 25e-1] }').headers["x-cache"] == "HIT"
    assert host.post("/api/Score", '{"data": [1, 2.5]}').headers["x-cache"] == "HIT"

    def run(one, other):
        done = andiron("cache", "explain", "Score", "-d", one, "--with", other, "--ready-file", str(host.ready))
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = run('{"data": [1.0, 2.5]}', '{"data":[1.0,2.50]}')
    assert "input:     json" in told and 'canonical: {"data":[1,2.5]}' in told and "both inputs have this key" in told
    assert "they differ at data[1]: 2.5 and 2.6" in run('{"data": [1.0, 2.5]}', '{"data": [1.0, 2.6]}')
    assert "they differ at data: 2 and 1 elements" in run('{"data": [1.0, 2.5]}', '{"data": [1.0]}')


def test_a_host_without_a_cache_says_so(app, start):
    app.function("Score", PLAIN)
    host = start(app)
    done = andiron("cache", "stats", "--ready-file", str(host.ready))
    assert done.returncode == 1 and "AN6013" in done.stderr and "RedisConnectionString" in done.stderr


def test_keys_are_demanded(app, start):
    app.write("host.json", {"version": "2.0", "inferenceCache": {}})
    app.function("Score", PLAIN)
    host = start(app, "--enable-auth")
    done = andiron("cache", "stats", "--ready-file", str(host.ready))
    assert done.returncode == 1 and "AN3004" in done.stderr


OWN = """
import os, redis
def init():
    global one, other
    one = redis.StrictRedis(host=os.environ["REDIS_HOST"], port=int(os.environ["REDIS_PORT"]), password=os.environ["REDIS_PASSWORD"], ssl=True)
    other = redis.from_url(os.environ["REDIS_URL"])
def run(data):
    other.set("own", data)
    return one.get("own").decode()
"""


def test_an_entry_script_has_its_own_client(app, start, server, certificates):
    redis = server(Redis, "--requirepass", "p/w=", certificate=certificates.sign("own"), password="p/w=")
    app.function("Score", OWN, files={"requirements.txt": "azureml-defaults\nredis\n"})
    address = f"localhost:{redis.port},password=p/w=,ssl=True"
    host = start(app, environment={"RedisConnectionString": address, "SSL_CERT_FILE": certificates.authority})
    answer = host.post("/api/Score", "hello")
    assert (answer.status, answer.json) == (200, "hello"), answer.text
    connected(host)
