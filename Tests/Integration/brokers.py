"""Other brokers for the tests: RabbitMQ with its AMQP 1.0 plugin, on free loopback ports."""

import os
import pathlib
import signal
import socket
import subprocess

from conftest import until

RABBIT = pathlib.Path("/usr/lib/rabbitmq/lib")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RabbitMQ:
    """One node of its own in a folder; no root, nothing outside loopback."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.epmd, dist = free_port(), free_port(), free_port()
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\namqp1_0.default_user = guest\n"
            "vm_memory_high_watermark.absolute = 512MB\ndisk_free_limit.absolute = 50MB\n")
        (self.folder / "enabled_plugins").write_text("[rabbitmq_amqp1_0].")
        self.environment = {
            **os.environ, "HOME": str(self.folder), "RABBITMQ_NODENAME": f"rmq{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"), "RABBITMQ_MNESIA_BASE": str(self.folder / "db"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"), "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(self.epmd),
        }
        self.process = None

    @property
    def url(self):
        return f"amqp://guest:guest@127.0.0.1:{self.port}"

    def start(self):
        program, = RABBIT.glob("rabbitmq_server-*/sbin/rabbitmq-server")
        self.output = open(self.folder / "output", "w")
        self.process = subprocess.Popen(
            [str(program)], env=self.environment, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)
        until(self.answers, "RabbitMQ", 90)
        return self

    def answers(self):
        assert self.process.poll() is None, (self.folder / "output").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"AMQP\x03\x01\x00\x00")
                return connection.recv(8)[:4] == b"AMQP"
        except OSError:
            return False

    def stop(self):
        if self.process is None:
            return
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None

    def end(self):
        """Stops the node and the name server it has started."""
        self.stop()
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
                if (entry / "comm").read_text().strip() == "epmd" and f"ERL_EPMD_PORT={self.epmd}".encode() in words:
                    os.kill(int(entry.name), signal.SIGTERM)
            except (OSError, ValueError):
                continue
