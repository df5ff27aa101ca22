"""Real Redis servers on loopback: plain, TLS, with users, with a replica, as a cluster of three."""

import pathlib
import socket
import ssl
import subprocess

from conftest import until


def free_port(below=0):
    """A free port; `below` bounds it, for servers that take a second one above their own."""
    for _ in range(200):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if not below:
            return port
        port = 20000 + port % (below - 20000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port")


class Certificates:
    """An authority and certificates signed by it, made by the openssl program."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=Test-Authority")
        self.authority = str(self.folder / "ca.pem")

    def run(self, line):
        subprocess.run(["openssl", *line.split()], cwd=self.folder, check=True, capture_output=True)

    def sign(self, name, names="DNS:localhost,IP:127.0.0.1", days=30):
        extension = self.folder / f"{name}.ext"
        extension.write_text(f"subjectAltName={names}\n")
        self.run(f"req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        self.run(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days {days} -extfile {name}.ext")
        return str(self.folder / f"{name}.pem"), str(self.folder / f"{name}.key")


class Redis:
    """One redis-server; `certificate` is a pair of files and makes it speak TLS only."""

    def __init__(self, folder, *arguments, certificate=None, password=None, cluster=False, port=None):
        self.port = port or free_port(below=50000 if cluster else 0)
        self.certificate = certificate
        self.password = password
        folder = pathlib.Path(folder) / f"redis-{self.port}"
        folder.mkdir(exist_ok=True)
        port = ["--port", str(self.port)]
        if certificate:
            port = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", certificate[0], "--tls-key-file", certificate[1], "--tls-auth-clients", "no", "--tls-ca-cert-file", str(pathlib.Path(certificate[0]).with_name("ca.pem"))]
        self.arguments = ["redis-server", *port, "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *arguments]
        if cluster:
            self.arguments += ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-config-file", "nodes.conf"]
            if certificate:
                self.arguments += ["--tls-cluster", "yes"]
        self.begin()

    def begin(self):
        self.process = subprocess.Popen(self.arguments, stdout=subprocess.DEVNULL)
        until(lambda: self.command("PING"), "Redis")

    def command(self, *words):
        """Sends one command, and returns what comes back within one read."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                if self.certificate:
                    context = ssl._create_unverified_context()
                    connection = context.wrap_socket(connection)
                def ask(words):
                    words = [w if isinstance(w, bytes) else str(w).encode() for w in words]
                    connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
                    return connection.recv(1 << 20)
                if self.password:
                    ask(["AUTH", self.password])
                return ask(words)
        except OSError:
            return b""

    def number(self, *words):
        answer = self.command(*words)
        return int(answer[1:].split(b"\r\n")[0]) if answer[:1] == b":" else -1

    def keys(self, pattern="andiron:*"):
        return [k for k in self.command("KEYS", pattern).decode(errors="replace").split("\r\n") if k.startswith("andiron:")]

    def info(self, field):
        for line in self.command("INFO").decode(errors="replace").split("\r\n"):
            if line.startswith(field + ":"):
                return line.split(":", 1)[1]

    def stop(self):
        self.process.kill()
        self.process.wait()


class Cluster:
    """Three primaries with all slots between them."""

    def __init__(self, folder, certificate=None):
        self.nodes = [Redis(folder, cluster=True, certificate=certificate) for _ in range(3)]
        ranges = [(0, 5460), (5461, 10922), (10923, 16383)]
        for node, (first, last) in zip(self.nodes, ranges):
            assert b"OK" in node.command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        until(lambda: all(b"cluster_state:ok" in n.command("CLUSTER", "INFO") and b"cluster_known_nodes:3" in n.command("CLUSTER", "INFO") for n in self.nodes), "the cluster")

    def id(self, node):
        return node.command("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def move(self, slot, source, target):
        """Moves a slot with its keys, as redis-cli --cluster reshard does."""
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        while keys := [k for k in source.command("CLUSTER", "GETKEYSINSLOT", slot, 10).decode().split("\r\n") if k.startswith("andiron:")]:
            for key in keys:
                source.command("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
        for node in (target, source):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def stop(self):
        for node in self.nodes:
            node.stop()
