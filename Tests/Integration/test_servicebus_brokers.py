"""The trigger and the output on brokers outside the host: RabbitMQ, and a Service Bus with TLS and tokens."""

import json
import subprocess
import time

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from brokers import RABBIT, RabbitMQ
from conftest import until

SCRIPT = """
import json, os
def init(): pass
def run(data):
    order = json.loads(data)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps(order) + "\\n")
    if order.get("fail"): raise ValueError("no good")
    return order
"""


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory):
    assert RABBIT.is_dir(), "rabbitmq-server is not installed; `make integration` installs it"
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbit")).start()
    yield broker
    broker.end()


def seen(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def relay(app, connection):
    """An HTTP function that sends to a queue, and a function that the queue starts."""
    app.write("Send/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "req", "type": "httpTrigger", "direction": "in", "authLevel": "anonymous"},
        {"name": "$return", "type": "serviceBus", "direction": "out", "queueName": "relay", "connection": connection}]})
    app.write("Take/score.py", SCRIPT)
    app.write("Take/function.json", {"bindings": [
        {"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "relay", "connection": connection}]})


def test_rabbitmq_gives_and_takes_messages_and_its_restart_loses_none(app, start, rabbit):
    relay(app, "Rabbit")
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    for number in range(5):
        assert host.post("/api/Send", {"n": number}).status < 300
    until(lambda: sorted(o["n"] for o in seen(notes)) == list(range(5)), "five orders")
    rabbit.stop()
    until(lambda: "AN8008" in host.printed(), "the lost broker")
    rabbit.start()
    answer = until(lambda: (a := host.post("/api/Send", {"n": 5})).status < 300 and a, "a message after the restart")
    assert answer
    until(lambda: 5 in [o["n"] for o in seen(notes)], "the order after the restart")


def test_on_rabbitmq_failures_are_counted_here(app, start, rabbit):
    relay(app, "Rabbit")
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    host.post("/api/Send", {"n": 77, "fail": 1})
    until(lambda: len([o for o in seen(notes) if o["n"] == 77]) == 10, "ten attempts")
    time.sleep(1)
    assert len([o for o in seen(notes) if o["n"] == 77]) == 10
    host.post("/api/Send", {"n": 78})
    until(lambda: 78 in [o["n"] for o in seen(notes)], "the next order")


@pytest.fixture
def certificate(tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True)
    return key, chain


def test_a_service_bus_with_tls_and_tokens(tmp_path_factory, start, certificate):
    from conftest import App

    key, chain = certificate
    far, near = App(tmp_path_factory.mktemp("far")), App(tmp_path_factory.mktemp("near"))
    far.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [{"Name": "relay"}]}]}})
    settings = {
        "ANDIRON_SERVICEBUS_TLS_PORT": "0", "ANDIRON_SERVICEBUS_CERT_FILE": str(chain),
        "ANDIRON_SERVICEBUS_KEY_FILE": str(key), "ANDIRON_SERVICEBUS_KEYS": "Root=c2VjcmV0;Other=x"}
    remote = start(far, "--servicebus-port", "0", environment=settings)
    port = remote.info["serviceBusTlsPort"]
    address = f"Endpoint=sb://localhost:{port};SharedAccessKeyName=Root;SharedAccessKey=c2VjcmV0"
    relay(near, "Azure")
    notes = near.folder / "notes"
    environment = {"Azure": address, "NOTES": str(notes), "ANDIRON_SERVICEBUS_CA_FILE": str(chain)}
    host = start(near, environment=environment)
    for number in range(3):
        answer = host.post("/api/Send", {"n": number})
        assert answer.status < 300, answer.text
    until(lambda: sorted(o["n"] for o in seen(notes)) == [0, 1, 2], "three orders")

    # A wrong key is refused, in words, and the host goes on.
    wrong = App(tmp_path_factory.mktemp("wrong"))
    relay(wrong, "Azure")
    host = start(wrong, environment={**environment, "Azure": address.replace("c2VjcmV0", "d3Jvbmc=")})
    until(lambda: "AN8008" in host.printed() and "invalid signature" in host.printed(), "the refusal")
    # So it is for the SDK without TLS, and with a token that has expired.
    plain = remote.info["serviceBus"].replace("RootManageSharedAccessKey", "Root")
    with ServiceBusClient.from_connection_string(plain, retry_total=0) as bus:
        with pytest.raises(Exception):
            with bus.get_queue_sender("relay") as sender:
                sender.send_messages(ServiceBusMessage("x"))
    right = plain.replace("SAS_KEY_VALUE", "c2VjcmV0")
    with ServiceBusClient.from_connection_string(right, retry_total=0) as bus:
        with bus.get_queue_sender("relay") as sender:
            sender.send_messages(ServiceBusMessage('{"n": 9}'))
    until(lambda: 9 in [o["n"] for o in seen(notes)], "the order of the SDK")
