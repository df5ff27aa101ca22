"""A real Redis of every kind in front of the model: TLS, users, replicas, clusters; and in bad shape."""

import json
import os
import socket
import subprocess
import threading
import time

import pytest

from conftest import ROOT, andiron, until
from redis_servers import Certificates, Cluster, Redis, free_port

COUNT = "calls = 0\ndef init(): pass\ndef run(data):\n    global calls\n    calls += 1\n    return [data, calls]\n"


@pytest.fixture
def server(tmp_path):
    """Starts servers and ends them."""
    started = []

    def begin(kind=Redis, *arguments, **options):
        one = kind(tmp_path, *arguments, **options)
        started.append(one)
        return one

    yield begin
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def connected(host):
    return until(lambda: "[+] redis" in host.call("GET", "/readyz?verbose").text, "the connection", 20)


def begin(app, start, address, environment=None, **cache):
    app.write("host.json", {"version": "2.0", "inferenceCache": cache})
    app.function("Score", COUNT)
    host = start(app, environment={"RedisConnectionString": address, **(environment or {})})
    host.post("/api/Score", "warm")
    return host


def survives(app, start, server_keys, address, environment=None):
    """A result computed by one host is a hit for the next."""
    host = begin(app, start, address, environment)
    connected(host)
    before = server_keys()
    first = host.post("/api/Score", "a").json
    until(lambda: server_keys() > before, "the value")
    host.stop()
    host = start(app, environment={"RedisConnectionString": address, **(environment or {})})
    host.post("/api/Score", "other")
    connected(host)
    again = host.post("/api/Score", "a")
    assert again.json == first and again.headers["x-cache"] == "HIT"
    return host


def test_tls_with_the_portals_form(app, start, server, certificates):
    redis = server(Redis, "--requirepass", "key=", certificate=certificates.sign("good"), password="key=")
    address = f"localhost:{redis.port},password=key=,ssl=True,abortConnect=False"
    survives(app, start, lambda: redis.number("DBSIZE"), address, {"SSL_CERT_FILE": certificates.authority})


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        ("DNS:localhost", ",sslCaFile={ca}", None),
        ("DNS:localhost", ",sslVerify=False", None),
        ("DNS:localhost", "", "unknown authority"),
        ("DNS:other.example", ",sslCaFile={ca}", "not for 'localhost' but for DNS:other.example"),
        ("DNS:other.example", ",sslCaFile={ca},sslHost=other.example", None),
    ],
)
def test_certificates_are_checked(app, start, server, certificates, names, options, words):
    redis = server(certificate=certificates.sign("one", names))
    host = begin(app, start, f"localhost:{redis.port},ssl=True{options.format(ca=certificates.authority)}")
    if words is None:
        connected(host)
        return
    record = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6007"], "the reason")[0]
    assert words in record["message"] and f"localhost:{redis.port}" in record["message"] and record["try"]
    assert host.post("/api/Score", "x").status == 200
    assert words in host.call("GET", "/readyz?verbose").text


def test_an_expired_certificate(app, start, server, certificates):
    certificate = certificates.sign("old", days=0)
    time.sleep(1.1)
    redis = server(certificate=certificate)
    host = begin(app, start, f"localhost:{redis.port},ssl=True,sslCaFile={certificates.authority}")
    record = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6007"], "the reason")[0]
    assert "expired on" in record["message"] and "renew" in record["try"]


def test_tls_to_a_plain_server_and_plain_to_a_tls_server(app, start, server, certificates):
    plain = server()
    host = begin(app, start, f"localhost:{plain.port},ssl=True")
    record = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6007"], "the reason")[0]
    assert "did not finish the TLS handshake" in record["message"] and "ssl=False" in record["try"]
    host.stop()
    secure = server(certificate=certificates.sign("good"))
    host = start(app, environment={"RedisConnectionString": f"localhost:{secure.port}"})
    record = until(lambda: [r for r in host.records("cache_event") if r.get("code") in ("AN6002", "AN6006")], "the reason")[-1]
    assert "ssl" in record["try"]


def test_users_databases_and_sockets(app, start, server, tmp_path):
    path = tmp_path / "redis.sock"
    redis = server(Redis, "--unixsocket", str(path), "--user", "admin", "on", "nopass", "~*", "+@all", "--user", "cache", "on", ">pass:word", "~andiron:*", "+@all")

    def keys():
        with socket.create_connection(("127.0.0.1", redis.port)) as connection:
            connection.sendall(b"AUTH admin x\r\nSELECT 3\r\nDBSIZE\r\n")
            time.sleep(0.05)
            return int(connection.recv(4096).split(b":")[1])

    survives(app, start, keys, f"redis://cache:pass%3Aword@127.0.0.1:{redis.port}/3").stop()
    host = start(app, environment={"RedisConnectionString": f"unix://cache:pass%3Aword@{path}?db=3"})
    host.post("/api/Score", "other")
    connected(host)
    assert host.post("/api/Score", "a").headers["x-cache"] == "HIT"


def test_a_user_with_few_rights(app, start, server):
    redis = server(Redis, "--user", "cache", "on", ">p", "~andiron:*", "+getrange", "+set", "+ping")
    survives(app, start, lambda: redis.number("DBSIZE"), f"127.0.0.1:{redis.port},user=cache,password=p")


def test_a_failover_is_ridden_out(app, start, server):
    first = server()
    second = server(Redis, "--replicaof", "127.0.0.1", str(first.port))
    until(lambda: second.info("master_link_status") == "up", "the replica")
    # Both are named, the replica first: the primary is found.
    host = begin(app, start, f"127.0.0.1:{second.port},127.0.0.1:{first.port}")
    connected(host)
    host.post("/api/Score", "a")
    until(lambda: first.number("DBSIZE") == 2 and second.number("DBSIZE") == 2, "the values on both")
    first.stop()
    second.command("REPLICAOF", "NO", "ONE")
    for number in range(20):
        assert host.post("/api/Score", f"during{number}").status == 200
    connected(host)
    host.post("/api/Score", "b")
    until(lambda: second.number("DBSIZE") > 2, "a value on the new primary")


def test_a_primary_that_becomes_a_replica_is_left(app, start, server):
    first, second = server(), server()
    host = begin(app, start, f"127.0.0.1:{first.port},127.0.0.1:{second.port}")
    connected(host)
    first.command("REPLICAOF", "127.0.0.1", second.port)

    def stored():
        assert host.post("/api/Score", f"x{time.monotonic()}").status == 200
        return second.number("DBSIZE") > 1

    until(stored, "values on the new primary")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    yield one
    one.stop()


def count(cluster):
    return sum(max(0, node.number("DBSIZE")) for node in cluster.nodes)


def test_a_cluster_is_used_whole(app, start, cluster):
    address = f"127.0.0.1:{cluster.nodes[0].port}"
    host = begin(app, start, address, maxEntries=1)
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "all nodes")
    before = count(cluster)
    answers = {number: host.post("/api/Score", number).json for number in range(60)}
    until(lambda: count(cluster) >= before + 60, "the values")
    assert all(node.number("DBSIZE") > 5 for node in cluster.nodes)
    for number, answer in answers.items():
        again = host.post("/api/Score", number)
        assert again.json == answer and again.headers["x-cache"] == "HIT", number


def test_resharding_under_load(app, start, cluster):
    host = begin(app, start, f"127.0.0.1:{cluster.nodes[1].port}", maxEntries=1)
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "all nodes")
    answers = {number: host.post("/api/Score", 1000 + number).json for number in range(40)}
    source, target = cluster.nodes[0], cluster.nodes[2]
    slots = [slot for slot in range(0, 5461) if source.number("CLUSTER", "COUNTKEYSINSLOT", slot) > 0][:12]
    assert slots
    statuses, ends = [], threading.Event()

    def load():
        while not ends.is_set():
            for number, answer in answers.items():
                got = host.post("/api/Score", 1000 + number)
                statuses.append((got.status, got.json == answer, got.headers["x-cache"]))

    thread = threading.Thread(target=load)
    thread.start()
    for slot in slots:
        cluster.move(slot, source, target)
    rounds = len(statuses)
    until(lambda: len(statuses) > rounds + 80, "two rounds more")
    ends.set()
    thread.join()
    assert {status for status, _, _ in statuses} == {200}
    # Keys that moved are found where they are now; a redirected read may miss its 5 ms now and then.
    hits = [kind for _, same, kind in statuses if same and kind == "HIT"]
    assert len(hits) > 0.9 * len(statuses)
    metrics = host.call("GET", "/metrics").text
    assert "andiron_cache_redis_redirections_total" in metrics


def test_a_cluster_with_slots_missing(app, start, server):
    node = server(Redis, "--cluster-require-full-coverage", "no", cluster=True)
    node.command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    until(lambda: b"cluster_state:ok" in node.command("CLUSTER", "INFO"), "half a cluster")
    host = begin(app, start, f"127.0.0.1:{node.port}", maxEntries=1)
    record = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6008"], "the reason")[0]
    assert "8192 of 16384" in record["message"]
    for number in range(20):
        assert host.post("/api/Score", number).status == 200
    until(lambda: node.number("DBSIZE") > 2, "what can be kept is kept")
    node.command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    connected(host)


def test_a_lost_node_of_a_cluster(app, start, server):
    cluster = server(Cluster)
    host = begin(app, start, f"127.0.0.1:{cluster.nodes[0].port}", maxEntries=1)
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "all nodes")
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    cluster.nodes[0].stop()
    until(lambda: "2 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "the loss")
    for number in range(40):
        assert host.post("/api/Score", number).status == 200
    hits = [host.post("/api/Score", number).headers["x-cache"] for number in range(40)].count("HIT")
    assert hits > 15, "the other nodes serve on"
    cluster.nodes[0].begin()
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "its return")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("localhost,pasword=x", "did you mean 'password'?"),
        ("bad--name.redis.cache.windows.net:6380,password=x,ssl=True", "no two hyphens in a row"),
        ("-x.redis.cache.windows.net:6380", "does not start or end with a hyphen"),
        ("redis://localhost/x", "'x' is no database number"),
        ("localhost:6379,ssl=maybe", "ssl is 'maybe'"),
    ],
)
def test_a_wrong_connection_string_is_explained(app, start, address, words):
    host = begin(app, start, address)
    record = until(lambda: [r for r in host.records("config_error") if r.get("code") == "AN6001"], "the mistake")[0]
    assert words in record["message"]
    assert host.post("/api/Score", "x").status == 200


def test_validate_knows_the_connection_string(app):
    app.function("Score", COUNT, features={})
    assert "AN6010" in andiron("validate", str(app.folder)).stderr
    app.write("local.settings.json", {"IsEncrypted": False, "Values": {"RedisConnectionString": "localhost,pasword=x"}})
    done = andiron("validate", str(app.folder))
    assert done.returncode == 78 and "AN6001" in done.stderr and "did you mean 'password'?" in done.stderr


class Fake:
    """A server on a free port that answers as told."""

    def __init__(self, answer):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.answer = answer
        self.accepted = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            while data := connection.recv(65536):
                for _ in range(data.count(b"*")):
                    self.answer(connection, data)
        except OSError:
            pass

    def stop(self):
        self.listener.close()


def test_a_value_of_600_mb_and_garbage_delay_nothing(app, start):
    state = {"n": 0}

    def flood(connection, data):
        state["n"] += 1
        if state["n"] <= 3:
            connection.sendall(b"+PONG\r\n")
        elif b"GETRANGE" in data or b"GET" in data:
            connection.sendall(b"$629145600\r\n")
            piece = b"x" * (1 << 20)
            for _ in range(600):
                connection.sendall(piece)

    fakes = [Fake(flood), Fake(lambda c, d: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")), Fake(lambda c, d: c.sendall(b"$abc\r\n"))]
    for fake in fakes:
        host = begin(app, start, f"127.0.0.1:{fake.port}")
        for number in range(5):
            answer = host.post("/api/Score", f"x{number}")
            assert answer.status == 200 and answer.timing["cache_lookup"] < 100, answer.headers
        with open(f"/proc/{host.process.pid}/status") as file:
            resident = int(next(line for line in file if line.startswith("VmHWM")).split()[1])
        assert resident < 300_000, f"{resident} KiB"
        host.stop()
        fake.stop()


def test_a_wrong_password_makes_no_storm(app, start, server):
    redis = server(Redis, "--requirepass", "right", password="right")
    host = begin(app, start, f"127.0.0.1:{redis.port},password=wrong")
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert host.post("/api/Score", f"{time.monotonic()}").status == 200
    assert redis.number("ACL", "LOG", "RESET") == -1  # +OK
    records = until(lambda: [r for r in host.records("cache_event") if r.get("code") == "AN6003"], "the record")
    assert len(records) == 1 and "wrong" not in json.dumps(records).replace("WRONGPASS", "")
    assert int(redis.info("total_connections_received")) < 12


@pytest.mark.parametrize("arguments", [("--maxmemory", "1"), ("--min-replicas-to-write", "3")])
def test_a_redis_that_refuses_writes(app, start, server, arguments):
    redis = server(Redis, *arguments)
    host = begin(app, start, f"127.0.0.1:{redis.port}")
    connected(host)
    for number in range(10):
        answer = host.post("/api/Score", f"x{number}")
        assert answer.status == 200 and answer.timing["cache_lookup"] < 50
    until(lambda: "andiron_cache_redis_errors_total 0" not in host.call("GET", "/metrics").text, "the count")


def test_binary_keys_are_kept_apart(app, start, server):
    redis = server()
    host = begin(app, start, f"127.0.0.1:{redis.port}")
    connected(host)
    for body in (b"\x00\xff\r\n", b"\x00\xff\r\n\x00", b"$5\r\nhello\r\n"):
        first = host.call("POST", "/api/Score", body, {"Content-Type": "application/octet-stream"})
        again = host.call("POST", "/api/Score", body, {"Content-Type": "application/octet-stream"})
        assert (first.status, first.body) == (again.status, again.body)


def test_the_sample_server(app, start):
    script = ROOT / "samples" / "redis" / "start.sh"
    plain, secure = free_port(), free_port()
    process = subprocess.Popen(
        [script], stdout=subprocess.DEVNULL, env={**os.environ, "PLAIN_PORT": str(plain), "TLS_PORT": str(secure)})
    try:
        authority = ROOT / "samples" / "redis" / "certificates" / "ca.pem"
        address = f"localhost:{secure},password=local-key,ssl=True,sslCaFile={authority}"
        connected(begin(app, start, address))
    finally:
        process.kill()
        process.wait()


class Slow:
    """Passes bytes on to a server, each way after a delay."""

    def __init__(self, port, delay):
        self.target, self.delay = port, delay
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.target))
            for one, other, delay in ((near, far, 0), (far, near, self.delay)):
                threading.Thread(target=self.copy, args=(one, other, delay), daemon=True).start()

    def copy(self, one, other, delay):
        try:
            while data := one.recv(65536):
                time.sleep(delay)
                other.sendall(data)
        except OSError:
            pass

    def stop(self):
        self.listener.close()


def test_a_redis_200_ms_away_delays_nothing(app, start, server):
    redis = server()
    slow = Slow(redis.port, 0.2)
    host = begin(app, start, f"127.0.0.1:{slow.port}", maxEntries=0, singleFlightAcrossHosts=False)
    connected(host)
    waits = []
    for number in range(30):
        answer = host.post("/api/Score", f"x{number}")
        assert answer.status == 200
        waits.append(answer.timing["cache_lookup"])
        time.sleep(0.02)
    # Each that asked Redis waited for 5 ms (a busy machine may add some); most did not ask.
    assert max(waits) < 60 and sorted(waits)[15] < 2, waits
    assert "left alone" in host.call("GET", "/readyz?verbose").text
    slow.stop()


def test_a_replica_alone_serves_what_it_has(app, start, server):
    primary = server()
    replica = server(Redis, "--replicaof", "127.0.0.1", str(primary.port))
    until(lambda: replica.info("master_link_status") == "up", "the replica")
    host = begin(app, start, f"127.0.0.1:{primary.port}")
    connected(host)
    first = host.post("/api/Score", "a").json
    until(lambda: replica.number("DBSIZE") > 1, "the value on the replica")
    host.stop()
    host = start(app, environment={"RedisConnectionString": f"127.0.0.1:{replica.port}"})
    connected(host)
    assert "only reads" in host.call("GET", "/readyz?verbose").text
    again = until(lambda: (r := host.post("/api/Score", "a")) and r.headers["x-cache"] == "HIT" and r, "the hit")
    assert again.json == first
    for number in range(5):
        assert host.post("/api/Score", f"new{number}").status == 200


def test_a_cluster_with_tls_whose_nodes_are_numbers(app, start, server, certificates):
    cluster = server(Cluster, certificate=certificates.sign("cluster", "DNS:localhost"))
    address = f"localhost:{cluster.nodes[0].port},ssl=True,sslCaFile={certificates.authority}"
    host = begin(app, start, address, maxEntries=0)
    until(lambda: "3 of 3 nodes" in host.call("GET", "/readyz?verbose").text, "all nodes")
    before = count(cluster)
    for number in range(20):
        host.post("/api/Score", number)
    until(lambda: count(cluster) >= before + 20, "the values")
    assert [host.post("/api/Score", number).headers["x-cache"] for number in range(20)] == ["HIT"] * 20
