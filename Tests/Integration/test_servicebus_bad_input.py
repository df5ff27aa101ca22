"""What clients and disks do to a broker: nonsense, silence, greed, sudden death, no space."""

import json
import os
import resource
import socket
import struct
import subprocess
import time

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import ServiceBusError
from conftest import until

CONFIG = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
    {"Name": "q", "Properties": {"LockDuration": "PT5S", "MaxDeliveryCount": 50}}, {"Name": "other"}]}]}}

SASL = b"AMQP\x03\x01\x00\x00"
AMQP = b"AMQP\x00\x01\x00\x00"


def broker(app, start, *arguments, **options):
    app.write("Config.json", CONFIG)
    return start(app, "--servicebus-port", "0", *arguments, **options)


def bus(host, **options):
    return ServiceBusClient.from_connection_string(host.info["serviceBus"], **options)


def works(host):
    """Another client is served."""
    with bus(host) as client:
        with client.get_queue_sender("q") as sender:
            sender.send_messages(ServiceBusMessage("still here", message_id="probe"))
        with client.get_queue_receiver("q") as receiver:
            until(lambda: any(
                receiver.complete_message(m) or True
                for m in receiver.receive_messages(50, max_wait_time=3)), "a message")


def frame(body, channel=0, kind=0):
    return struct.pack(">IBBH", len(body) + 8, 2, kind, channel) + body


def small_list(descriptor, *fields):
    body = b"".join(fields)
    return b"\x00\x53" + bytes([descriptor]) + b"\xd0" + struct.pack(">II", len(body) + 4, len(fields)) + body


def text(value):
    return b"\xa1" + bytes([len(value)]) + value


def symbol(value):
    return b"\xa3" + bytes([len(value)]) + value


OPENING = SASL + frame(small_list(0x41, symbol(b"ANONYMOUS"), b"\xa0\x00"), kind=1) + AMQP + frame(
    small_list(0x10, text(b"bad")))
BEGIN = frame(small_list(0x11, b"\x40", b"\x43", b"\x70\x00\x00\xff\xff", b"\x70\x00\x00\xff\xff"))


def attach(handle, is_receiver, address=b"q"):
    terminus = lambda code, name: b"\x00\x53" + bytes([code]) + b"\xd0" + struct.pack(">II", 4 + len(text(name)), 1) + text(name)
    return frame(small_list(
        0x12, text(b"l%d" % handle), b"\x52" + bytes([handle]), b"\x41" if is_receiver else b"\x42", b"\x50\x00", b"\x50\x01",
        terminus(0x28, address), terminus(0x29, address), b"\x40", b"\x40", b"\x43"))


def flow(handle, credit):
    window = b"\x70\x7f\xff\xff\xff"
    return frame(small_list(
        0x13, b"\x43", window, b"\x43", window, b"\x52" + bytes([handle]), b"\x43", b"\x70" + struct.pack(">I", credit)))


def exchange(host, data, wait=2.0):
    """Sends bytes and returns what comes until the broker closes or falls silent."""
    with socket.create_connection(("127.0.0.1", host.info["serviceBusPort"]), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return received


NONSENSE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    "another version": b"AMQP\x00\x00\x09\x01",
    "an empty frame where SASL is due": SASL + b"\x00\x00\x00\x08\x02\x01\x00\x00",
    "a frame of four bytes": OPENING + b"\x00\x00\x00\x04\x02\x00\x00\x00",
    "a frame of four gigabytes": OPENING + b"\xff\xff\xff\xff\x02\x00\x00\x00",
    "a data offset past the frame": OPENING + b"\x00\x00\x00\x10\x0f\x00\x00\x00" + b"\x00" * 8,
    "no performative": OPENING + frame(b"\x00\x53\x99\x45"),
    "a list that lies about its size": OPENING + frame(b"\x00\x53\x11\xd0\xff\xff\xff\xff\x00\x00\x00\x01"),
    "a list with more elements than bytes": OPENING + frame(b"\x00\x53\x11\xd0\x00\x00\x00\x04\xff\xff\xff\xff"),
    "values nested a thousand deep": OPENING + frame(b"\x00\x53\x10" + b"\xc0\xf0\x01" * 1000),
    "a performative before open": SASL + frame(small_list(0x41, symbol(b"ANONYMOUS"), b"\xa0\x00"), kind=1) + AMQP + BEGIN,
    "a second open": OPENING + frame(small_list(0x10, text(b"bad"))),
    "a channel without a session": OPENING + frame(small_list(0x17, b"\x40"), channel=7),
    "a channel above the maximum": OPENING + struct.pack(">IBBH", 8 + len(BEGIN) - 8, 2, 0, 60000) + BEGIN[8:],
    "a transfer on no link": OPENING + BEGIN + frame(small_list(0x14, b"\x43", b"\x43", b"\xa0\x01\x00", b"\x43", b"\x42", b"\x42")),
    "a transfer on a receiving link": OPENING + BEGIN + attach(0, True) + frame(
        small_list(0x14, b"\x43", b"\x43", b"\xa0\x01\x00", b"\x43", b"\x42", b"\x42")),
    "a message that is none": OPENING + BEGIN + attach(0, False) + frame(
        small_list(0x14, b"\x43", b"\x43", b"\xa0\x01\x00", b"\x43", b"\x42", b"\x42") + b"\xff\xff\xff"),
    "a wrong mechanism": SASL + frame(small_list(0x41, symbol(b"GSSAPI"), b"\xa0\x00"), kind=1),
}


def test_nonsense_is_refused_and_harms_nobody(app, start):
    host = broker(app, start)
    for name, data in NONSENSE.items():
        assert exchange(host, data, wait=0.5).startswith(b"AMQP"), name
    for data in NONSENSE.values():
        for cut in range(1, len(data), 13):
            with socket.create_connection(("127.0.0.1", host.info["serviceBusPort"])) as connection:
                connection.sendall(data[:cut])
    works(host)


def test_a_message_that_is_none_is_rejected_in_words(app, start):
    host = broker(app, start)
    answer = exchange(host, NONSENSE["a message that is none"], wait=1)
    assert b"amqp:decode-error" in answer
    works(host)


def memory(host):
    for line in open(f"/proc/{host.process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def test_a_client_that_grants_everything_and_never_reads(app, start):
    host = broker(app, start)
    with bus(host) as client, client.get_queue_sender("q") as sender:
        for _ in range(60):
            sender.send_messages([ServiceBusMessage(b"x" * 200_000, message_id=str(n)) for n in range(1)])
        before = memory(host)
        greedy = socket.create_connection(("127.0.0.1", host.info["serviceBusPort"]))
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.sendall(OPENING + BEGIN + attach(0, True) + flow(0, 0xFFFFFFFF))
        time.sleep(1)
        sender.send_messages(ServiceBusMessage("small"))
        # Twelve megabytes wait; no more than the limit of four lies in its output.
        assert memory(host) - before < 60
        greedy.close()
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        found = until(lambda: receiver.receive_messages(100, max_wait_time=7), "what the greedy one left")
        assert found


def test_a_client_that_dies_with_a_thousand_locks(app, start):
    host = broker(app, start)
    with bus(host) as client, client.get_queue_sender("q") as sender:
        sender.send_messages([ServiceBusMessage(str(n)) for n in range(1000)])
    dying = socket.create_connection(("127.0.0.1", host.info["serviceBusPort"]))
    dying.sendall(OPENING + BEGIN + attach(0, True) + flow(0, 1000))
    received = b""
    while received.count(b"x-opt-lock-token") < 1000:
        received += dying.recv(1 << 20)
    dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    dying.close()
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        assert receiver.receive_messages(1, max_wait_time=1) == []
        seen = set()
        end = time.monotonic() + 40
        while len(seen) < 1000 and time.monotonic() < end:
            for message in receiver.receive_messages(200, max_wait_time=7):
                assert message.delivery_count == 1
                seen.add(str(message))
                receiver.complete_message(message)
        assert len(seen) == 1000


def test_a_disk_that_fills_refuses_sends_and_the_broker_goes_on(app, start):
    """A file-size limit stands in for the full disk: the write fails in the middle of a commit."""
    host = broker(app, start)
    with bus(host, retry_total=0) as client, client.get_queue_sender("q") as sender:
        sender.send_messages(ServiceBusMessage("first"))
        log = app.folder / ".andiron" / "servicebus" / "0000000001.log"
        limit = log.stat().st_size + 100_000
        resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        with pytest.raises(ServiceBusError) as failure:
            for number in range(20):
                sender.send_messages(ServiceBusMessage(b"x" * 100_000, message_id=str(number)))
        assert "store" in str(failure.value) or "resource-limit" in str(failure.value)
        until(lambda: "AN8003" in host.printed(), "the complaint")
        resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with bus(host) as client:
        with client.get_queue_sender("q") as sender:
            sender.send_messages(ServiceBusMessage("last"))
        host.process.kill()
        host.process.wait()
    host = start(app, "--servicebus-port", "0")
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        bodies = [str(m) for m in receiver.peek_messages(30)]
    # Everything acknowledged is there, and nothing that was refused.
    assert bodies[0] == "first" and bodies[-1] == "last"
    assert all(body in ("first", "last") or len(body) == 100_000 for body in bodies)


def test_a_wrong_configuration_is_shown_with_its_place(app, start):
    app.write("Config.json", json.dumps(CONFIG).replace('"PT5S"', '"5 seconds"'))
    host = start(app, "--servicebus-port", "0")
    assert "Config.json:1:" in host.printed() and "LockDuration" in host.printed()
    app.write("Config.json", "{")
    host = start(app, "--servicebus-port", "0", "--state-folder", str(app.folder / "other"))
    assert "AN2002" in host.printed() and "Config.json" in host.printed()
    works_without = host.info["serviceBusPort"]
    assert works_without


def test_administration_refuses_nonsense(app, start):
    import http.client

    host = broker(app, start)
    port = host.info["serviceBusAdminPort"]

    def put(path, body):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("PUT", path, body)
        return connection.getresponse().status

    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><entry>&b;</entry>'
    description = "<entry><content><QueueDescription>{}</QueueDescription></content></entry>"
    assert put("/new", bomb) == 400
    assert put("/new", "<entry>" * 100) == 400
    assert put("/new", "") == 400
    assert put("/new", description.format("<LockDuration>soon</LockDuration>")) == 400
    assert put("/new", description.format("<MaxDeliveryCount>0</MaxDeliveryCount>")) == 400
    assert put("/%20%20", description.format("")) == 400
    assert put("/new", description.format("")) == 201
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/health")
    assert json.loads(connection.getresponse().read())["status"] == "healthy"
    works(host)


def transfer(handle, delivery, payload, more=False):
    return frame(small_list(
        0x14, b"\x52" + bytes([handle]), b"\x52" + bytes([delivery]), b"\xa0\x01" + bytes([delivery]), b"\x43", b"\x42",
        b"\x41" if more else b"\x42") + payload)


def test_a_message_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(app, start):
    host = broker(app, start)
    for delivery, size in enumerate((262_144, 262_145)):
        payload = b"\x00\x53\x75\xb0" + struct.pack(">I", size - 8) + b"x" * (size - 8)
        assert len(payload) == size
        answer = exchange(host, OPENING + BEGIN + attach(0, False) + transfer(0, delivery, payload[:200_000], more=True)
                          + transfer(0, delivery, payload[200_000:]), wait=1.5)
        assert (b"amqp:link:message-size-exceeded" in answer) == (size > 262_144)
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        only, = receiver.peek_messages(5)
        assert len(b"".join(only.body)) == 262_144 - 8
    works(host)


def handles(handle):
    return b"\x52" + bytes([handle]) if handle < 256 else b"\x70" + struct.pack(">I", handle)


def many_attach(handle):
    terminus = b"\x00\x53%c\xd0" + struct.pack(">II", 4 + 3, 1) + text(b"q")
    return frame(small_list(
        0x12, text(b"l%d" % handle), handles(handle), b"\x42", b"\x50\x00", b"\x50\x01", terminus % 0x28, terminus % 0x29,
        b"\x40", b"\x40", b"\x43"))


def test_five_thousand_links_and_channels_are_served_and_one_more_is_refused(app, start):
    host = broker(app, start)
    attached = b"".join(many_attach(handle) for handle in range(5000))
    answer = exchange(host, OPENING + BEGIN + attached, wait=5)
    # Each attach is answered and gets credit; nothing ends.
    assert answer.count(b"\x00\x53\x12") == 5000 and b"\x00\x53\x17" not in answer and b"\x00\x53\x18" not in answer
    answer = exchange(host, OPENING + BEGIN + many_attach(4999) + many_attach(5000), wait=1)
    assert answer.count(b"\x00\x53\x12") == 1 and b"amqp:" in answer
    sessions = b"".join(BEGIN[:6] + struct.pack(">H", channel) + BEGIN[8:] for channel in range(5000))
    answer = exchange(host, OPENING + sessions, wait=5)
    assert answer.count(b"\x00\x53\x11") == 5000 and b"\x00\x53\x18" not in answer
    answer = exchange(host, OPENING + BEGIN[:6] + struct.pack(">H", 5000) + BEGIN[8:], wait=1)
    assert b"\x00\x53\x11" not in answer and b"amqp:" in answer
    works(host)


def test_a_transaction_coordinator_is_refused_in_words(app, start):
    host = broker(app, start)
    coordinator = b"\x00\x53\x30\xd0" + struct.pack(">II", 4 + 1, 1) + b"\x40"
    source = b"\x00\x53\x28\xd0" + struct.pack(">II", 4 + 3, 1) + text(b"c")
    answer = exchange(host, OPENING + BEGIN + frame(small_list(
        0x12, text(b"txn"), b"\x43", b"\x42", b"\x50\x00", b"\x50\x00", source, coordinator, b"\x40", b"\x40", b"\x43")), wait=1)
    assert b"amqp:not-implemented" in answer and b"transactions are not supported" in answer
    works(host)


def test_wrong_keys_and_expired_tokens_open_nothing(app, start):
    import base64
    import hashlib
    import hmac
    from urllib.parse import quote_plus

    from azure.core.credentials import AccessToken
    from azure.servicebus.exceptions import ServiceBusAuthenticationError, ServiceBusAuthorizationError

    host = broker(app, start, environment={"ANDIRON_SERVICEBUS_KEYS": "Root=c2VjcmV0"})
    port = host.info["serviceBusPort"]
    address = "Endpoint=sb://localhost:%d;SharedAccessKeyName={};SharedAccessKey={};UseDevelopmentEmulator=true;" % port

    def attempt(client):
        with client, client.get_queue_sender("q") as sender:
            sender.send_messages(ServiceBusMessage("x"))

    def signed(expiry):
        audience = quote_plus("sb://localhost/q")
        digest = hmac.new(b"c2VjcmV0", f"{audience}\n{expiry}".encode(), hashlib.sha256).digest()
        signature = quote_plus(base64.b64encode(digest))
        return f"{address.split('SharedAccessKeyName')[0]}SharedAccessSignature=SharedAccessSignature " \
               f"sr={audience}&sig={signature}&se={expiry}&skn=Root;UseDevelopmentEmulator=true;"

    attempt(ServiceBusClient.from_connection_string(address.format("Root", "c2VjcmV0")))
    attempt(ServiceBusClient.from_connection_string(signed(int(time.time()) + 600)))
    refused = (ServiceBusAuthenticationError, ServiceBusAuthorizationError)
    for wrong in (address.format("Root", "d3Jvbmc="), address.format("Nobody", "c2VjcmV0"), signed(int(time.time()) - 10)):
        with pytest.raises(refused):
            attempt(ServiceBusClient.from_connection_string(wrong, retry_total=0))
    # A token that expires while its links are open closes them, at the next heartbeat.
    client = ServiceBusClient.from_connection_string(signed(int(time.time()) + 5), retry_total=0)
    with client, client.get_queue_sender("q") as sender:
        sender.send_messages(ServiceBusMessage("in time"))

        def is_refused():
            try:
                sender.send_messages(ServiceBusMessage("late"))
            except refused:
                return True
            time.sleep(1)

        until(is_refused, "the end of the link")
    # Without a token nothing is attached.
    answer = exchange(host, OPENING + BEGIN + attach(0, False), wait=1)
    assert b"amqp:unauthorized-access" in answer
    with ServiceBusClient.from_connection_string(address.format("Root", "c2VjcmV0")) as client:
        with client.get_queue_receiver("q") as receiver:
            assert [str(m) for m in receiver.peek_messages(3)] == ["x", "x", "in time"]


def test_a_disk_that_fails_undoes_what_receivers_were_refused(app, start):
    host = broker(app, start)
    # Less than the log has, more than what the host prints.
    no_room = lambda: resource.prlimit(host.process.pid, resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    room = lambda: resource.prlimit(
        host.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    with bus(host, retry_total=0) as client, client.get_queue_sender("q") as sender:
        sender.send_messages([ServiceBusMessage(str(n)) for n in range(3)])
        with client.get_queue_sender("other") as other:
            other.send_messages(ServiceBusMessage(b"x" * 100_000))
        # Each failure ends its receiver.
        receivers = [client.get_queue_receiver("q") for _ in range(3)]
        messages = [receiver.receive_messages(1, max_wait_time=10)[0] for receiver in receivers]
        no_room()
        for receiver, message, settle in zip(
                receivers, messages, ("complete_message", "dead_letter_message", "defer_message")):
            with pytest.raises(ServiceBusError):
                getattr(receiver, settle)(message)
        room()
    # None of it happened; all of it can be done again.
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        again = []
        while len(again) < 3:
            again += receiver.receive_messages(3, max_wait_time=10)
        assert sorted(str(m) for m in again) == ["0", "1", "2"]
        for message in again:
            receiver.defer_message(message)
        host.process.kill()
        host.process.wait()
    host = start(app, "--servicebus-port", "0")
    with bus(host) as client, client.get_queue_receiver("q") as receiver:
        assert [m.state.value for m in receiver.peek_messages(5, sequence_number=1)] == [1, 1, 1]


def test_names_hold_at_their_edge(app, start):
    import http.client

    host = broker(app, start)

    def put(path, kind):
        connection = http.client.HTTPConnection("127.0.0.1", host.info["serviceBusAdminPort"], timeout=10)
        connection.request("PUT", path, f"<entry><content><{kind}/></content></entry>")
        return connection.getresponse().status

    assert put("/" + "q" * 260, "QueueDescription") == 201 and put("/" + "q" * 261, "QueueDescription") == 400
    assert put("/t", "TopicDescription") == 201
    assert put("/t/subscriptions/" + "s" * 50, "SubscriptionDescription") == 201
    assert put("/t/subscriptions/" + "s" * 51, "SubscriptionDescription") == 400
    rules = "/t/subscriptions/" + "s" * 50 + "/rules/"
    assert put(rules + "r" * 50, "RuleDescription") == 201 and put(rules + "r" * 51, "RuleDescription") == 400


def test_limits_hold_at_their_edge(app, start):
    host = broker(app, start)
    for name in ("MessageId", "SessionId"):
        for length, status in ((128, 201), (129, 400)):
            properties = json.dumps({name: "m" * length})
            assert host.call("POST", "/q/messages", b"x", {"BrokerProperties": properties}).status == status
    done = host.call("POST", "/q/messages", b"x" * (262_144 - 200))
    assert done.status == 201
    assert host.call("POST", "/q/messages", b"x" * 262_144).status == 413
