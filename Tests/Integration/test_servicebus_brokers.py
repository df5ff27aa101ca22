"""The trigger and the output on brokers outside the host: RabbitMQ, and a Service Bus with TLS and tokens."""

import base64
import concurrent.futures
import hashlib
import hmac
import json
import signal
import subprocess
import time
import urllib.parse

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    ServiceBusAuthenticationError, ServiceBusAuthorizationError, ServiceBusError)
from brokers import RABBIT, RabbitMQ, free_port
from conftest import App, until

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


def test_sessions_and_topics_of_rabbitmq_are_refused(app, start, rabbit):
    relay(app, "Rabbit")
    bindings = {"Session": {"queueName": "kept", "isSessionsEnabled": True}, "Topic": {"topicName": "t", "subscriptionName": "s"}}
    for name, binding in bindings.items():
        app.write(f"{name}/score.py", SCRIPT)
        app.write(f"{name}/function.json", {"bindings": [
            {"name": "m", "type": "serviceBusTrigger", "direction": "in", "connection": "Rabbit", **binding}]})
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    until(lambda: "AN8006" in host.printed() and "has no sessions" in host.printed(), "the refused session")
    until(lambda: "has no topics" in host.printed(), "the refused topic")
    assert host.post("/api/Send", {"n": 90}).status < 300
    until(lambda: 90 in [o["n"] for o in seen(notes)], "the plain queue beside them")


def slow(app, connection):
    """A function that takes a while for each message of `relay`."""
    app.write("Take/score.py", SCRIPT.replace("    return order", "    time.sleep(0.1)\n    return order").replace(
        "import json, os", "import json, os, time"))
    app.write("Take/function.json", {"bindings": [
        {"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "relay", "connection": connection}]})


def test_messages_queued_on_rabbitmq_outlive_its_restart(app, start, rabbit):
    relay(app, "Rabbit")
    slow(app, "Rabbit")
    app.write("host.json", {"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 2}}})
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    for number in range(100, 160):
        assert host.post("/api/Send", {"n": number}).status < 300
    until(lambda: len(seen(notes)) >= 5, "the first orders")
    rabbit.stop()
    ran = len(seen(notes))
    assert ran < 50, "too fast to say anything"
    rabbit.start()
    until(lambda: {o["n"] for o in seen(notes)} == set(range(100, 160)), "every order")
    # Only what ran when the broker went may have run twice.
    assert len(seen(notes)) <= 60 + 4


RETRIES = {"mode": "Fixed", "delay": "00:00:00.2", "tryTimeout": "00:00:05"}


def retrying(app, count):
    app.write("host.json", {"version": "2.0", "extensions": {"serviceBus": {
        "clientRetryOptions": {**RETRIES, "maxRetries": count}}}})


def test_an_output_fails_clearly_while_rabbitmq_is_away_and_nothing_accepted_is_lost(app, start, rabbit):
    relay(app, "Rabbit")
    retrying(app, 2)
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    accepted = []
    post = lambda number: host.post("/api/Send", {"n": number})
    assert post(200).status < 300
    rabbit.stop()
    began = time.monotonic()
    answer = post(201)
    assert answer.status == 500 and "AN8009" in answer.text and "relay" in answer.text, answer.text
    assert 0.4 <= time.monotonic() - began < 5, "two retries, 0.2 s apart"
    rabbit.start()
    accepted = [number for number in range(202, 222) if post(number).status < 300]
    assert accepted, "the broker is back"
    until(lambda: {200, *accepted} <= {o["n"] for o in seen(notes)}, "what was accepted")


def test_an_output_waits_for_rabbitmq_as_long_as_its_retries_last(app, start, rabbit):
    relay(app, "Rabbit")
    retrying(app, 100)
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    rabbit.stop()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answers = [pool.submit(host.post, "/api/Send", {"n": number}) for number in (300, 301, 302)]
        time.sleep(1)
        assert not any(answer.done() for answer in answers)
        rabbit.start()
        assert [answer.result().status for answer in answers] == [200] * 3
    until(lambda: {o["n"] for o in seen(notes)} >= {300, 301, 302}, "the orders")


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


def test_on_rabbitmq_outputs_fan_out_and_carry_properties(app, start, rabbit):
    out = {"name": "m", "type": "serviceBus", "direction": "out", "queueName": "plain", "connection": "Rabbit"}
    app.write("Send/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "req", "type": "httpTrigger", "direction": "in", "authLevel": "anonymous"}, out]})
    app.write("Take/score.py", """
import json, os
def init(): pass
def run(data, request_headers):
    told = {k.lower()[10:]: v for k, v in dict(request_headers).items() if k.lower().startswith("x-trigger-")}
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps({"body": data, **told}) + "\\n")
    if data == "fails" and told["deliverycount"] != "3": raise ValueError("no good")
""")
    app.write("Take/function.json", {"bindings": [
        {"name": "t", "type": "serviceBusTrigger", "direction": "in", "queueName": "plain", "connection": "Rabbit"}]})
    notes = app.folder / "notes"
    host = start(app, environment={"Rabbit": rabbit.url, "NOTES": str(notes)})
    message = {
        "body": {"x": 1}, "messageId": "id", "subject": "s", "contentType": "application/json", "sessionId": "g",
        "correlationId": "c", "replyTo": "r", "applicationProperties": {"k": "v", "n": 3}}
    assert host.post("/api/Send", {"m": [message, "two", [3]]}).status < 300
    first, second, third = until(lambda: len(seen(notes)) == 3 and sorted(
        seen(notes), key=lambda o: ['{"x":1}', "two", "[3]"].index(o["body"])), "three messages")
    expected = {"messageid": "id", "subject": "s", "contenttype": "application/json", "sessionid": "g",
                "correlationid": "c", "replyto": "r", "deliverycount": "1"}
    assert {name: first.get(name) for name in expected} == expected
    assert json.loads(first["applicationproperties"]) == {"k": "v", "n": 3}
    # RabbitMQ counts no deliveries; the host does.
    assert host.post("/api/Send", {"m": "fails"}).status < 300
    until(lambda: [o["deliverycount"] for o in seen(notes) if o["body"] == "fails"] == ["1", "2", "3"], "three attempts")
    answer = host.post("/api/Send", {"m": {"body": 1, "scheduledEnqueueTimeUtc": "2099-01-01T00:00:00Z"}})
    assert answer.status == 500 and "does not schedule" in answer.text


@pytest.fixture
def certificate(tmp_path):
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True)
    return key, chain


def test_a_service_bus_with_tls_and_tokens(tmp_path_factory, start, certificate):
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


def queue_on(app, **properties):
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "relay", "Properties": properties}]}]}})


@pytest.fixture
def far(tmp_path_factory, start):
    """A host with a broker that demands a key: an outside broker for other hosts."""
    app = App(tmp_path_factory.mktemp("far"))
    queue_on(app, LockDuration="PT5M")
    host = start(app, "--servicebus-port", "0", environment={"ANDIRON_SERVICEBUS_KEYS": "Root=c2VjcmV0"})
    host.key = (f"Endpoint=sb://localhost:{host.info['serviceBusPort']};SharedAccessKeyName=Root;"
                "SharedAccessKey=c2VjcmV0;UseDevelopmentEmulator=true")
    return host


def token(port, seconds):
    """A shared access signature that holds for some seconds."""
    resource = urllib.parse.quote_plus(f"sb://localhost:{port}/relay")
    end = int(time.time()) + seconds
    code = hmac.new(b"c2VjcmV0", f"{resource}\n{end}".encode(), hashlib.sha256).digest()
    signature = urllib.parse.quote_plus(base64.b64encode(code))
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={end}&skn=Root"


def peek(host):
    return host.post("/admin/servicebus/peek", {"queue": "relay"}).json


def test_tokens_are_renewed_and_the_link_lives_on(app, start, far):
    relay(app, "Azure")
    notes = app.folder / "notes"
    host = start(app, environment={
        "Azure": far.key, "NOTES": str(notes), "ANDIRON_SERVICEBUS_TOKEN_LIFETIME": "00:00:03"})
    assert host.post("/api/Send", {"n": 0}).status < 300
    until(lambda: [o["n"] for o in seen(notes)] == [0], "the first order")
    # Nothing but time can show it: two tokens end meanwhile.
    time.sleep(7)
    assert host.post("/api/Send", {"n": 1}).status < 300
    until(lambda: [o["n"] for o in seen(notes)] == [0, 1], "the order after that")
    assert "AN8008" not in host.printed()
    until(lambda: peek(far) == [], "an empty queue")


def test_a_link_whose_token_has_ended_comes_back_with_a_new_one_and_loses_nothing(app, start, far):
    relay(app, "Azure")
    app.write("Take/score.py", SCRIPT.replace("    return order", "    time.sleep(order.get('sleep', 0))\n    return order")
              .replace("import json, os", "import json, os, time"))
    notes = app.folder / "notes"
    host = start(app, environment={
        "Azure": far.key, "NOTES": str(notes), "ANDIRON_SERVICEBUS_TOKEN_LIFETIME": "00:00:03"})
    assert host.post("/api/Send", {"n": 0, "sleep": 2}).status < 300
    until(lambda: [o["n"] for o in seen(notes)] == [0], "the first order")
    # Asleep, the host cannot renew; the function it has begun ends all the same.
    host.process.send_signal(signal.SIGSTOP)
    try:
        with ServiceBusClient.from_connection_string(far.key) as bus, bus.get_queue_sender("relay") as sender:
            sender.send_messages([ServiceBusMessage(json.dumps({"n": number})) for number in (1, 2, 3)])
        time.sleep(5)
    finally:
        host.process.send_signal(signal.SIGCONT)
    until(lambda: "ExpiredToken" in host.printed(), "the refusal in the log")
    until(lambda: [o["n"] for o in seen(notes)] == [0, 1, 2, 3], "the orders sent meanwhile")
    # The lock holds for five minutes: the first order was completed, over a link that did not bring it.
    until(lambda: peek(far) == [], "an empty queue")
    assert len(seen(notes)) == 4


def test_the_broker_ends_links_of_an_expired_token_with_the_right_error(app, start, far):
    port = far.info["serviceBusPort"]
    text = f"Endpoint=sb://localhost:{port};SharedAccessSignature={token(port, 3)};UseDevelopmentEmulator=true"
    with ServiceBusClient.from_connection_string(text, retry_total=0) as bus:
        with bus.get_queue_receiver("relay") as receiver:
            with pytest.raises(ServiceBusError) as caught:
                for _ in range(10):
                    receiver.receive_messages(1, max_wait_time=2)
    assert isinstance(caught.value, (ServiceBusAuthorizationError, ServiceBusAuthenticationError)), caught.value
    assert "expired" in str(caught.value).lower()
    # A trigger with a token that nobody can renew says so.
    relay(app, "Azure")
    notes = app.folder / "notes"
    text = f"Endpoint=sb://localhost:{port};SharedAccessSignature={token(port, 3)};UseDevelopmentEmulator=true"
    host = start(app, environment={"Azure": text, "NOTES": str(notes), "ANDIRON_SERVICEBUS_TOKEN_LIFETIME": "00:00:01"})
    assert host.post("/api/Send", {"n": 1}).status < 300
    until(lambda: [o["n"] for o in seen(notes)] == [1], "the order")
    assert "ANDIRON_SERVICEBUS_TOKEN_LIFETIME is '00:00:01' and is not used" in host.printed()
    until(lambda: "AN8008" in host.printed(), "the refusal")
    until(lambda: "amqp:unauthorized-access: ExpiredToken: The token is expired." in host.printed(), "its words")
    answer = host.post("/api/Send", {"n": 2})
    assert answer.status == 500 and "AN8009" in answer.text and "xpired" in answer.text, answer.text


def test_a_stop_gives_everything_back_at_once_and_counts_no_attempt(app, start, far):
    relay(app, "Azure")
    app.write("Take/score.py", SCRIPT.replace("    return order", "    time.sleep(60)").replace("import json, os", "import json, os, time"))
    app.write("host.json", {"version": "2.0", "extensions": {"serviceBus": {"maxConcurrentCalls": 1, "prefetchCount": 10}}})
    notes = app.folder / "notes"
    host = start(app, "--shutdown-timeout", "1", environment={"Azure": far.key, "NOTES": str(notes)})
    for number in range(5):
        assert host.post("/api/Send", {"n": number}).status < 300
    until(lambda: seen(notes), "the first order")
    host.stop()
    # Their locks would have held for five minutes.
    with ServiceBusClient.from_connection_string(far.key) as bus, bus.get_queue_receiver("relay") as receiver:
        messages = []
        until(lambda: messages.extend(receiver.receive_messages(5, max_wait_time=5)) or len(messages) == 5, "all five")
    assert sorted(json.loads(str(m))["n"] for m in messages) == [0, 1, 2, 3, 4]
    assert {m.delivery_count for m in messages} == {0}


def test_a_service_bus_that_is_killed_and_comes_back_loses_nothing(app, start, tmp_path_factory):
    far = App(tmp_path_factory.mktemp("far"))
    queue_on(far, LockDuration="PT5M")
    port = free_port()
    remote = start(far, "--servicebus-port", str(port))
    relay(app, "Azure")
    notes = app.folder / "notes"
    text = f"Endpoint=sb://localhost:{port};SharedAccessKeyName=Root;SharedAccessKey=k;UseDevelopmentEmulator=true"
    host = start(app, environment={"Azure": text, "NOTES": str(notes)})
    for number in range(20):
        assert host.post("/api/Send", {"n": number}).status < 300
        if number == 10:
            remote.stop(signal.SIGKILL)
            until(lambda: "AN8008" in host.printed(), "the lost broker")
            remote = start(far, "--servicebus-port", str(port))
    until(lambda: {o["n"] for o in seen(notes)} == set(range(20)), "every order")
    until(lambda: peek(remote) == [], "an empty queue")
