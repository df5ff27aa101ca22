"""The model's input fetched from a real Redis by a key in the request."""

import json
import struct

import pytest

from conftest import until
from redis_servers import Cluster, Redis, free_port
from test_redis import connected, server  # noqa: F401

ECHO = "import json\ndef init(): pass\ndef run(data): return json.loads(data)\n"


def begin(app, start, port, **features):
    app.function("Score", ECHO, features=features)
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{port}"})
    host.post("/api/Score", {"key": "none"})
    connected(host)
    return host


def test_json_by_key_and_by_many_keys_in_one_round_trip(app, start, server):
    redis = server()
    redis.command("SET", "user:42", "[1, 2.5]")
    redis.command("SET", "user:43", '{"a": [3]}')
    host = begin(app, start, redis.port, prefix="user:")
    assert host.post("/api/Score", {"key": "42", "threshold": 0.5}).json == {"threshold": 0.5, "data": [[1, 2.5]]}
    assert host.post("/api/Score", {"key": 42, "data": "replaced"}).json == {"data": [[1, 2.5]]}
    before = int(redis.info("total_reads_processed") or 0)
    many = host.post("/api/Score", {"key": ["42", "43", "42"] * 100})
    assert many.json["data"] == [[1, 2.5], {"a": [3]}, [1, 2.5]] * 100
    # One read by the server for all 300 (and one for each INFO).
    assert int(redis.info("total_reads_processed")) - before < 12
    missing = host.post("/api/Score", {"key": ["42", "44", "45"]})
    assert missing.status == 404 and missing.json["error"]["code"] == "AN6011"
    assert "'user:44', 'user:45'" in missing.json["error"]["message"]


def test_hashes_and_packed_floats(app, start, server):
    redis = server()
    redis.command("HSET", "u1", "age", "42", "name", "Ada", "score", "1.5e3")
    redis.command("SET", "f1", struct.pack("<3f", 0.1, -2.0, 3e10))
    redis.command("SET", "f2", b"abc")
    redis.command("SET", "f3", struct.pack("<f", float("nan")))
    redis.command("SET", "j1", "{no json")
    redis.command("LPUSH", "list", "x")
    host = begin(app, start, redis.port, format="hash", shape="single")
    assert host.post("/api/Score", {"key": "u1"}).json == {"data": {"age": 42, "name": "Ada", "score": 1500}}
    host.stop()
    host = begin(app, start, redis.port, format="hash", fields=["score", "age"])
    assert host.post("/api/Score", {"key": "u1"}).json == {"data": [[1500, 42]]}
    assert host.post("/api/Score", {"key": "u2"}).status == 404
    host.stop()
    host = begin(app, start, redis.port, format="hash", fields=["name"])
    assert "'name' is 'Ada', no number" in host.post("/api/Score", {"key": "u1"}).json["error"]["message"]
    host.stop()
    host = begin(app, start, redis.port, format="float32", input="x")
    values = host.post("/api/Score", {"key": "f1"}).json["x"][0]
    assert values == pytest.approx([0.1, -2, 3e10], rel=1e-6)
    for key, words in [("f2", "no whole number of 32-bit floats"), ("f3", "not finite"), ("list", "WRONGTYPE")]:
        answer = host.post("/api/Score", {"key": key})
        assert answer.status == 422 and words in answer.json["error"]["message"], key
    host.stop()
    host = begin(app, start, redis.port)
    assert "it is not JSON" in host.post("/api/Score", {"key": "j1"}).json["error"]["message"]


def test_a_changed_feature_is_another_result(app, start, server):
    redis = server()
    redis.command("SET", "k", "1")
    host = begin(app, start, redis.port)
    assert host.post("/api/Score", {"key": "k"}).headers["x-cache"] == "MISS"
    assert host.post("/api/Score", {"key": "k"}).headers["x-cache"] == "HIT"
    redis.command("SET", "k", "2")
    answer = host.post("/api/Score", {"key": "k"})
    assert answer.json == {"data": [2]} and answer.headers["x-cache"] == "MISS"


def test_bad_requests_and_limits(app, start, server):
    redis = server()
    redis.command("SET", "big", "x" * ((1 << 20) + 1))
    redis.command("SET", "full", '"' + "x" * ((1 << 20) - 2) + '"')
    redis.command("SET", b"bin\x00", "[7]")
    host = begin(app, start, redis.port)
    for body in ({"key": []}, {"key": [1, {}]}, {"key": None}, {"key": ""}, {"key": ["x"] * 1001}, {}, [1], "no"):
        answer = host.post("/api/Score", body)
        assert answer.status == 400 and answer.json["error"]["code"] == "AN6009", body
    assert host.post("/api/Score", {"key": ["full"] * 2}).status == 200
    assert "more than 1048576 bytes" in host.post("/api/Score", {"key": "big"}).json["error"]["message"]
    assert host.post("/api/Score", {"key": "bin\u0000"}).json == {"data": [[7]]}
    assert host.post("/api/Score", {"key": ["none"] * 1000}).status == 404


def test_without_redis_a_request_fails_clearly_or_goes_on_with_its_body(app, start):
    app.function("Score", ECHO, features={})
    app.function("Own", ECHO, features={"missing": "body"})
    for environment in ({}, {"RedisConnectionString": f"127.0.0.1:{free_port()}"}):
        host = start(app, environment=environment)
        answer = host.post("/api/Score", {"key": "a"})
        assert answer.status == 503 and answer.json["error"]["code"] == "AN6010"
        assert host.post("/api/Own", {"key": "a", "data": [1]}).json == {"key": "a", "data": [1]}
        assert host.post("/api/Own", {"data": [1]}).json == {"data": [1]}
        host.stop()


def test_keys_all_over_a_cluster(app, start, server):
    cluster = server(Cluster)
    host = begin(app, start, cluster.nodes[0].port)
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "all nodes")
    for number in range(30):
        for node in cluster.nodes:
            node.command("SET", f"k{number}", str(number))
    assert host.post("/api/Score", {"key": [f"k{n}" for n in range(30)]}).json == {"data": list(range(30))}


def test_a_wrong_section_is_explained(app, start):
    app.function("Score", ECHO, features={"format": "csv", "mising": "body", "fields": ["a"]})
    host = start(app)
    texts = until(lambda: len(r := host.records("config_error")) >= 3 and json.dumps(r), "the mistakes")
    assert "one of json, hash, float32" in texts and "missing" in texts and "belongs to the format 'hash'" in texts
