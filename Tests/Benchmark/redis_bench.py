"""The inference cache in Redis: against memory, against redis-benchmark, with TLS, with a million keys."""

import pathlib
import re
import subprocess
import time

from bench import Load, andiron, app, compare, free_port, get

BODY = 'local pad = string.rep("a", 180)\nlocal body = function(n) return "{\\"x\\":\\"" .. (n % 1000) .. pad .. "\\"}" end'
KEYS = Load(BODY)
SCRIPT = "def init(): pass\ndef run(data): return data\n"


class Redis:
    def __init__(self, folder, tls=False):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        port = ["--port", str(self.port)]
        self.options = []
        if tls:
            line = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
            subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-ca-cert-file", "cert.pem", "--tls-auth-clients", "no"]
            self.options = ["--tls", "--cacert", str(folder / "cert.pem")]
        self.address = f"localhost:{self.port}" + (f",ssl=True,sslCaFile={folder / 'cert.pem'}" if tls else "")
        self.process = subprocess.Popen(
            ["redis-server", *port, "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "yes"], cwd=folder, stdout=subprocess.DEVNULL)
        while "PONG" not in self.cli("PING"):
            time.sleep(0.02)

    def cli(self, *words):
        return subprocess.run(["redis-cli", "-h", "localhost", "-p", str(self.port), *self.options, *words], capture_output=True, text=True).stdout

    def stop(self):
        self.process.kill()
        self.process.wait()


def host(folder, redis, entries):
    app(folder, {"Score": {}}, {"inferenceCache": {"maxEntries": entries, "redisTimeout": "00:00:01"}})
    (folder / "Score" / "score.py").write_text(SCRIPT)
    server = andiron(folder, warm=["Score"], environment={"RedisConnectionString": redis.address})
    server.until(lambda: "[+] redis" in get(server.url + "/readyz?verbose").read().decode(), "Redis")
    for number in range(1000):
        get(server.url + "/api/Score", ('{"x":"%d%s"}' % (number, "a" * 180)).encode()).read()
    return server


def hits_of(server):
    text = get(server.url + "/metrics").read().decode()
    return [int(re.search(name + r'\{function="Score"[^}]*\} (\d+)', text).group(1)) for name in ("andiron_cache_redis_hits_total",)][0]


def redis_path(folder):
    plain, secure = Redis(folder / "plain"), Redis(folder / "tls", tls=True)
    servers = {
        "andiron, from memory": host(folder / "memory", plain, 10_000),
        "andiron, from Redis": host(folder / "redis", plain, 0),
        "andiron, from Redis by TLS": host(folder / "secure", secure, 0),
    }
    try:
        sides = {name: (server.url + "/api/Score", server.pid) for name, server in servers.items()}
        results = [("1 000 inputs of 200 B", compare(sides, KEYS, pin=True))]
        assert hits_of(servers["andiron, from Redis"]) > 1000
        rates = []
        for _ in range(3):
            text = subprocess.run(
                ["redis-benchmark", "-p", str(plain.port), "-c", "32", "-n", "100000", "-d", "200", "-t", "get", "--csv"],
                capture_output=True, text=True).stdout
            rates.append(float(re.search(r'"GET","([\d.]+)"', text).group(1)))
        rate = sorted(rates)[1]
        one = {"andiron, from Redis": sides["andiron, from Redis"]}
        free = compare(one, KEYS)["andiron, from Redis"]
        plain.cli("DEBUG", "POPULATE", "1000000", "other", "200")
        million = compare(one, KEYS)["andiron, from Redis"]
    finally:
        for server in servers.values():
            server.stop()
        plain.stop()
        secure.stop()
    memory, redis, tls = (results[0][1][name] for name in servers)
    rows = [
        ("CPU of a hit in Redis, against one in memory", f"{redis['cpu'] / memory['cpu']:.2f} ×", "at most 1.5 ×"),
        ("CPU of TLS, against plain", f"{tls['cpu'] / redis['cpu']:.2f} ×", "at most 1.4 ×"),
        ("hits in Redis per second, against `redis-benchmark` GET (32 connections, not pipelined)", f"{free['rps']:,.0f} of {rate:,.0f}: {free['rps'] / rate:.2f} ×", "at least 0.6 ×"),
        ("CPU with 1 000 000 keys more in Redis", f"{million['cpu'] / free['cpu']:.2f} ×", "no dearer"),
    ]
    return results, rows
