"""Functions started by Service Bus messages, and messages they send."""

import datetime
import json
import os
import subprocess
import sys
import time
import uuid

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
from brokers import free_port
from conftest import ROOT, until

SCRIPT = """
import json, os, time
def init(): pass
def run(data):
    order = json.loads(data)
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([time.time(), order]) + "\\n")
    time.sleep(order.get("sleep", 0))
    if order.get("fail"): raise ValueError("no good")
    return order.get("out")
"""


class Orders:
    """An app with one function on the queue `in`, whose script notes what it gets."""

    def __init__(self, app, start, trigger=None, host=None, outputs=None, script=SCRIPT, arguments=(), environment=None, **root):
        self.notes = app.folder / "notes"
        app.write("host.json", {"version": "2.0", "extensions": {"serviceBus": host or {}}, **root})
        app.write("Orders/score.py", script)
        app.write("Orders/function.json", {"bindings": [
            {"name": "order", "type": "serviceBusTrigger", "direction": "in", "queueName": "in", **(trigger or {})},
            *(outputs or [])]})
        self.start = lambda: start(app, "--servicebus-port", "0", *arguments, environment={"NOTES": str(self.notes), **(environment or {})})
        self.host = self.start()
        self.bus = ServiceBusClient.from_connection_string(self.host.info["serviceBus"])

    def send(self, *orders, queue="in", **properties):
        with self.bus.get_queue_sender(queue) as sender:
            sender.send_messages([ServiceBusMessage(json.dumps(order), **properties) for order in orders])

    def seen(self):
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def wait(self, count, what="the orders"):
        until(lambda: len(self.seen()) >= count, what)
        return [order for _, order in self.seen()]

    def receive(self, queue, count, **options):
        found = []
        with self.bus.get_queue_receiver(queue, **options) as receiver:
            end = time.monotonic() + 30
            while len(found) < count and time.monotonic() < end:
                for message in receiver.receive_messages(count - len(found), max_wait_time=5):
                    found.append(message)
                    receiver.complete_message(message)
        return found

    def left(self, queue="in", **options):
        with self.bus.get_queue_receiver(queue, **options) as receiver:
            return [str(m) for m in receiver.peek_messages(100, sequence_number=1)]


def queues(app, **properties):
    """Config.json with these queues."""
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": name, "Properties": options} for name, options in properties.items()]}]}})


def log_has(orders, *words):
    return until(
        lambda: [r for r in orders.host.records() if all(word in json.dumps(r) for word in words)], f"{words} in the log")


def test_success_completes_and_failure_dead_letters_in_the_end(app, start):
    out = {"name": "$return", "type": "serviceBus", "direction": "out", "queueName": "out"}
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "in", "Properties": {"MaxDeliveryCount": 3}}]}]}})
    orders = Orders(app, start, outputs=[out])
    orders.send({"n": 1, "out": [{"a": 1}, "text", 7]}, {"n": 2, "out": {"b": 2}}, {"n": 4, "fail": 1})
    messages = sorted(str(m) for m in orders.receive("out", 4))
    assert messages == ["7", "text", '{"a":1}', '{"b":2}']
    dead, = orders.receive("in", 1, sub_queue="deadletter")
    assert json.loads(str(dead)) == {"n": 4, "fail": 1}
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded" and dead.delivery_count == 3
    until(lambda: "attempt 3" in orders.host.printed() and "of 'in' went to its dead letters" in orders.host.printed(), "the log")
    assert len([o for o in orders.wait(5) if o["n"] == 4]) == 3
    until(lambda: orders.left() == [], "an empty queue")


def test_messages_carry_properties_sessions_and_times(app, start):
    out = {"name": "later", "type": "serviceBus", "direction": "out", "queueName": "out-{MessageId}"}
    queues(app, **{"out-m7": {"RequiresSession": True}})
    orders = Orders(app, start, outputs=[out])
    due = int(time.time()) + 3
    message = {
        "body": {"x": 1}, "messageId": "id", "subject": "s", "contentType": "application/json", "sessionId": "g",
        "correlationId": 42, "to": "t", "replyTo": "r", "replyToSessionId": "rg", "partitionKey": "g",
        "timeToLiveSeconds": 90.5, "scheduledEnqueueTimeUtc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due)),
        "applicationProperties": {"k": "v", "n": 3, "half": 0.5, "yes": True, "none": None}}
    orders.send({"out": {"later": message}}, message_id="m7")
    orders.wait(1)
    found, = orders.receive("out-m7", 1, session_id="g")
    assert json.loads(str(found)) == {"x": 1} and found.message_id == "id" and found.subject == "s"
    assert found.session_id == "g" and found.correlation_id == "42" and found.content_type == "application/json"
    assert found.to == "t" and found.reply_to == "r" and found.reply_to_session_id == "rg" and found.partition_key == "g"
    assert found.time_to_live == datetime.timedelta(seconds=90.5)
    assert {getattr(k, "decode", lambda: k)(): v for k, v in found.application_properties.items()} in (
        {"k": b"v", "n": 3, "half": 0.5, "yes": True, "none": None},
        {"k": "v", "n": 3, "half": 0.5, "yes": True, "none": None})
    assert found.scheduled_enqueue_time_utc.timestamp() == due
    assert due <= found.enqueued_time_utc.timestamp() < due + 10 and time.time() >= due


def test_arrays_fan_out_and_nothing_is_no_message(app, start):
    out = {"name": "many", "type": "serviceBus", "direction": "out", "queueName": "out"}
    queues(app, out={})
    orders = Orders(app, start, outputs=[out])
    values = [
        ["a", {"b": 1}, None, [2, 3]], "[4, \"five\"]", "[no array", {"body": 1, "else": 2}, {"body": "six"}, None, []]
    for value in values:
        orders.send({"out": {"many": value}})
    expected = ["a", '{"b":1}', "[2,3]", "4", "five", "[no array", '{"body":1,"else":2}', "six"]
    assert sorted(str(m) for m in orders.receive("out", len(expected))) == sorted(expected)
    orders.wait(len(values))
    until(lambda: orders.left() == [], "an empty queue")
    assert orders.left("out") == []


def test_what_an_output_message_cannot_be_fails_in_words(app, start):
    out = {"name": "many", "type": "serviceBus", "direction": "out", "queueName": "out"}
    queues(app, out={}, **{"in": {"MaxDeliveryCount": 1}})
    orders = Orders(app, start, outputs=[out])
    for wrong, word in [
            ({"scheduledEnqueueTimeUtc": "tomorrow"}, "scheduledEnqueueTimeUtc"), ({"messageId": {}}, "messageId"),
            ({"timeToLiveSeconds": -1}, "timeToLiveSeconds"), ({"applicationProperties": {"list": [1]}}, "list"),
            ({"applicationProperties": 1}, "applicationProperties")]:
        # The one before it must not go either.
        orders.send({"out": {"many": [{"body": "right"}, {"body": "wrong", **wrong}]}})
        log_has(orders, "AN8009", word)
    until(lambda: len(orders.left("in", sub_queue="deadletter")) == 5, "the dead letters")
    assert orders.left("out") == []


def test_an_output_that_is_too_large_is_the_messages_fault(app, start):
    out = {"name": "$return", "type": "serviceBus", "direction": "out", "queueName": "out"}
    queues(app, out={}, **{"in": {"MaxDeliveryCount": 2}})
    script = SCRIPT.replace('return order.get("out")', 'return "x" * 300_000')
    orders = Orders(app, start, outputs=[out], script=script)
    orders.send({"n": 1})
    log_has(orders, "AN8009", "message-size-exceeded")
    until(lambda: len(orders.left("in", sub_queue="deadletter")) == 1, "the dead letter")
    assert len(orders.seen()) == 2


def test_while_an_output_cannot_be_written_messages_wait_and_count_no_attempt(app, start):
    out = {"name": "$return", "type": "serviceBus", "direction": "out", "queueName": "out", "connection": "Away"}
    queues(app, **{"in": {"MaxDeliveryCount": 1}})
    orders = Orders(
        app, start, outputs=[out], host={"clientRetryOptions": {"maxRetries": 0}},
        environment={"Away": f"amqp://127.0.0.1:{free_port()}"})
    orders.send({"n": 1, "out": "x"})
    orders.wait(3, "three tries, a pause between them")
    times = [when for when, _ in orders.seen()]
    assert times[1] - times[0] >= 1 and times[2] - times[1] >= 2
    assert orders.left("in", sub_queue="deadletter") == []
    log_has(orders, "AN8009", "ECONNREFUSED")


def test_no_more_than_the_limit_run_at_once_and_locks_are_renewed(app, start):
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "in", "Properties": {"LockDuration": "PT5S"}}]}]}})
    orders = Orders(app, start, host={"maxConcurrentCalls": 1, "prefetchCount": 0})
    orders.send({"n": 0, "sleep": 8}, {"n": 1})
    assert [o["n"] for o in orders.wait(2)] == [0, 1]
    times = [when for when, _ in orders.seen()]
    assert times[1] - times[0] >= 7.9
    until(lambda: orders.left() == [], "an empty queue")
    assert len(orders.seen()) == 2


def test_without_auto_complete_a_message_comes_again(app, start):
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "in", "Properties": {"LockDuration": "PT5S", "MaxDeliveryCount": 10}}]}]}})
    orders = Orders(app, start, trigger={"autoCompleteMessages": False})
    orders.send({"n": 1})
    assert orders.wait(2, "the second delivery") == [{"n": 1}, {"n": 1}]


def test_many_messages_come_as_one_array(app, start):
    script = SCRIPT.replace("order = json.loads(data)", "order = {'all': [json.loads(m) for m in json.loads(data)]}")
    orders = Orders(
        app, start, trigger={"cardinality": "many"}, script=script,
        host={"minMessageBatchSize": 10, "maxMessageBatchSize": 20, "maxBatchWaitTime": "00:00:02"})
    orders.send(*[{"n": n} for n in range(25)])
    until(lambda: sum(len(o["all"]) for _, o in orders.seen()) == 25, "all 25")
    sizes = [len(o["all"]) for _, o in orders.seen()]
    assert max(sizes) <= 20 and sizes[0] >= 10
    assert [m["n"] for _, o in orders.seen() for m in o["all"]] == list(range(25))
    until(lambda: orders.left() == [], "an empty queue")


def test_sessions_are_taken_in_order(app, start):
    orders = Orders(
        app, start, trigger={"isSessionsEnabled": True},
        host={"maxConcurrentSessions": 2, "sessionIdleTimeout": "00:00:00.2"})
    for name in ("red", "blue", "green"):
        orders.send(*[{"n": n, "s": name} for n in range(4)], session_id=name)
    seen = orders.wait(12)
    for name in ("red", "blue", "green"):
        assert [o["n"] for o in seen if o["s"] == name] == [0, 1, 2, 3]


def test_a_session_past_its_renewal_is_lost_and_its_message_comes_again(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "RequiresSession": True, "MaxDeliveryCount": 10}})
    orders = Orders(
        app, start, trigger={"isSessionsEnabled": True}, script=TELLING, host={"maxAutoLockRenewalDuration": "00:00:01"})
    orders.send({"sleep1": 9}, session_id="s")
    first, second = orders.wait(2)
    assert (first["deliverycount"], second["deliverycount"]) == ("1", "2")
    log_has(orders, "session-lock-lost")
    log_has(orders, "lock was lost before its outcome was recorded")
    peek = lambda: orders.host.post("/admin/servicebus/peek", {"queue": "in"}).json
    until(lambda: peek() == [], "an empty queue")
    assert len(orders.seen()) == 2


def test_a_stop_gives_back_what_is_not_finished_and_counts_no_attempt(app, start):
    orders = Orders(app, start, arguments=("--shutdown-timeout", "1"))
    orders.send({"n": 1, "sleep": 30})
    orders.wait(1)
    orders.host.stop()
    app.write("Orders/function.json", {"bindings": [
        {"name": "order", "type": "serviceBusTrigger", "direction": "in", "queueName": "other"}]})
    orders.host = orders.start()
    orders.bus = ServiceBusClient.from_connection_string(orders.host.info["serviceBus"])
    message, = orders.receive("in", 1)
    assert json.loads(str(message))["n"] == 1 and message.delivery_count == 0


TELLING = """
import json, os, time
def init(): pass
def run(data, request_headers):
    told = {k.lower()[10:]: v for k, v in dict(request_headers).items() if k.lower().startswith("x-trigger-")}
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([time.time(), told]) + "\\n")
    order = json.loads(data) if data.startswith("{") else {}
    time.sleep(order.get("sleep" + told.get("deliverycount", ""), 0))
    return "told"
"""

NAMES = (
    "DeliveryCount DeadLetterSource LockToken ExpiresAtUtc ExpiresAt EnqueuedTimeUtc EnqueuedTime MessageId ContentType "
    "ReplyTo SequenceNumber To Subject Label CorrelationId ApplicationProperties UserProperties SessionId "
    "ReplyToSessionId PartitionKey TransactionPartitionKey").split()


def full_message(body="hello"):
    message = ServiceBusMessage(
        body, message_id="m1", content_type="text/plain", reply_to="answers", to="orders", subject="Grüße",
        correlation_id="c1", session_id="s1", reply_to_session_id="r1", partition_key="s1",
        time_to_live=datetime.timedelta(hours=1), application_properties={"color": "red", "n": 7})
    message.raw_amqp_message.annotations["x-opt-via-partition-key"] = "via"
    return message


def test_every_name_of_binding_data_is_known_to_expressions_and_to_the_script(app, start):
    # A message that was dead-lettered elsewhere and forwarded here has all of them.
    queues(app, first={"ForwardDeadLetteredMessagesTo": "in"}, **{"in": {}})
    simple = [name for name in NAMES if name not in ("ApplicationProperties", "UserProperties")]
    times = ("ExpiresAtUtc", "ExpiresAt", "EnqueuedTimeUtc", "EnqueuedTime")
    path = "out/" + "+".join(f"{{{name}:yyyyMMdd}}" if name in times else f"{{{name}}}" for name in simple)
    path += "+{ApplicationProperties.color}+{UserProperties.n}"
    out = {"name": "$return", "type": "blob", "direction": "out", "path": path}
    orders = Orders(app, start, script=TELLING, outputs=[out])
    with orders.bus.get_queue_sender("first") as sender:
        sender.send_messages(full_message())
    with orders.bus.get_queue_receiver("first") as receiver:
        message, = receiver.receive_messages(1, max_wait_time=20)
        receiver.dead_letter_message(message, reason="why")
    told, = orders.wait(1)
    assert sorted(told) == sorted(name.lower() for name in NAMES)
    plain = {
        "DeliveryCount": "1", "DeadLetterSource": "first", "MessageId": "m1", "ContentType": "text/plain",
        "ReplyTo": "answers", "SequenceNumber": "1", "To": "orders", "Subject": "Grüße", "Label": "Grüße",
        "CorrelationId": "c1", "SessionId": "s1", "ReplyToSessionId": "r1", "PartitionKey": "s1",
        "TransactionPartitionKey": "via"}
    assert {name: told[name.lower()] for name in plain} == plain
    assert uuid.UUID(told["locktoken"])
    sent = datetime.datetime.fromisoformat(told["enqueuedtimeutc"])
    assert abs(time.time() - sent.timestamp()) < 60 and told["enqueuedtime"] == told["enqueuedtimeutc"]
    ends = datetime.datetime.fromisoformat(told["expiresat"])
    assert ends - sent == datetime.timedelta(hours=1) and told["expiresatutc"] == told["expiresat"]
    properties = json.loads(told["applicationproperties"])
    assert properties["color"] == "red" and properties["n"] == 7 and properties["DeadLetterReason"] == "why"
    assert json.loads(told["userproperties"]) == properties
    blob = "+".join(
        told[name.lower()][:10].replace("-", "") if name in times else told[name.lower()] for name in simple) + "+red+7"
    written = until(lambda: [p for p in (app.folder / "storage" / "out").rglob("*") if p.is_file()], "the blob")
    assert [str(p.relative_to(app.folder / "storage" / "out")) for p in written] == [blob]


def test_a_message_without_properties_has_empty_binding_data_and_its_json_beats_them(app, start):
    empty = ["DeadLetterSource", "ContentType", "ReplyTo", "To", "Label", "CorrelationId", "SessionId",
             "ReplyToSessionId", "PartitionKey", "TransactionPartitionKey"]
    path = "out/" + "".join(f"{{{name}}}" for name in empty) + "{Subject}-{ExpiresAt:yyyy}"
    out = {"name": "$return", "type": "blob", "direction": "out", "path": path}
    orders = Orders(app, start, script=TELLING, outputs=[out])
    orders.send({"Subject": "own", "list": [1]})
    told, = orders.wait(1)
    assert told["subject"] == "own" and "list" not in told and "to" not in told
    until(lambda: (app.folder / "storage" / "out" / "own-9999").exists(), "the blob")


def test_a_batch_has_every_name_of_binding_data_as_an_array(app, start):
    path = "out/batch" + "".join(f"{{{name}Array}}" for name in NAMES)
    out = {"name": "$return", "type": "blob", "direction": "out", "path": path}
    orders = Orders(
        app, start, trigger={"cardinality": "many"}, script=TELLING, outputs=[out], host={"minMessageBatchSize": 2})
    with orders.bus.get_queue_sender("in") as sender:
        sender.send_messages([full_message(), ServiceBusMessage("bare", message_id="m2")])
    told, = orders.wait(1)
    told = {name: json.loads(value) for name, value in told.items()}
    assert sorted(told) == sorted(name.lower() + "array" for name in NAMES)
    assert all(len(values) == 2 for values in told.values())
    pairs = {
        "DeliveryCount": [1, 1], "DeadLetterSource": [None, None], "MessageId": ["m1", "m2"],
        "ContentType": ["text/plain", None], "ReplyTo": ["answers", None], "SequenceNumber": [1, 2],
        "To": ["orders", None], "Subject": ["Grüße", None], "Label": ["Grüße", None], "CorrelationId": ["c1", None],
        "ApplicationProperties": [{"color": "red", "n": 7}, {}], "UserProperties": [{"color": "red", "n": 7}, {}],
        "SessionId": ["s1", None], "ReplyToSessionId": ["r1", None], "PartitionKey": ["s1", None],
        "TransactionPartitionKey": ["via", None]}
    assert {name: told[name.lower() + "array"] for name in pairs} == pairs
    assert all(uuid.UUID(token) for token in told["locktokenarray"])
    for name in ("expiresat", "expiresatutc", "enqueuedtime", "enqueuedtimeutc"):
        assert all(datetime.datetime.fromisoformat(value) for value in told[name + "array"])
    # As in the Functions host, an array is empty text in an expression.
    until(lambda: (app.folder / "storage" / "out" / "batch").exists(), "the blob")


def test_a_function_that_outlives_its_lock_gets_the_message_again(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "MaxDeliveryCount": 10}})
    orders = Orders(app, start, script=TELLING, host={"maxAutoLockRenewalDuration": "00:00:01"})
    orders.send({"sleep1": 7})
    first, second = orders.wait(2)
    assert (first["deliverycount"], second["deliverycount"]) == ("1", "2")
    assert first["locktoken"] != second["locktoken"]
    log_has(orders, "maxAutoLockRenewalDuration is over", "Orders")
    # The first one ends after that, and must not complete what it does not hold.
    log_has(orders, "lock was lost before its outcome was recorded")
    until(lambda: orders.left() == [], "an empty queue")
    assert len(orders.seen()) == 2


def test_the_function_timeout_counts_as_an_attempt_and_renewal_ends_with_it(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "MaxDeliveryCount": 2}})
    orders = Orders(app, start, functionTimeout="00:00:06")
    orders.send({"n": 1, "sleep": 60})
    dead, = orders.receive("in", 1, sub_queue="deadletter")
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded" and len(orders.seen()) == 2
    log_has(orders, "AN4003")
    # Six seconds with a lock of five: it was renewed, and the second attempt came after the first had ended.
    times = [when for when, _ in orders.seen()]
    assert times[1] - times[0] >= 6


def test_prefetched_messages_keep_their_locks_and_run_once(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "MaxDeliveryCount": 2}})
    orders = Orders(app, start, script=TELLING, host={"maxConcurrentCalls": 1, "prefetchCount": 20})
    orders.send(*[{"n": n, "sleep1": 2.5} for n in range(6)])
    orders.wait(1)
    # All are fetched at once, though one runs: nobody else can have any.
    with orders.bus.get_queue_receiver("in") as receiver:
        assert len(receiver.peek_messages(10)) == 6 and receiver.receive_messages(1, max_wait_time=1) == []
    told = orders.wait(6)
    assert [int(t["sequencenumber"]) for t in told] == [1, 2, 3, 4, 5, 6]
    assert {t["deliverycount"] for t in told} == {"1"}
    until(lambda: orders.left() == [], "an empty queue")
    assert len(orders.seen()) == 6
    assert not [r for r in orders.host.records() if "lock" in r.get("message", "")]


def test_a_batch_that_waits_long_holds_no_expired_locks(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "MaxDeliveryCount": 1}})
    orders = Orders(
        app, start, trigger={"cardinality": "many"}, script=TELLING,
        host={"minMessageBatchSize": 10, "maxBatchWaitTime": "00:00:07"})
    orders.send({"n": 0}, {"n": 1}, {"n": 2})
    began = time.time()
    told, = orders.wait(1)
    assert json.loads(told["deliverycountarray"]) == [1, 1, 1] and 6 <= orders.seen()[0][0] - began < 20
    until(lambda: orders.left() == [], "an empty queue")


def test_a_session_runs_as_many_calls_as_it_may_and_no_more_sessions_than_allowed(app, start):
    orders = Orders(
        app, start, trigger={"isSessionsEnabled": True}, environment={"FUNCTIONS_WORKER_PROCESS_COUNT": "3"},
        host={"maxConcurrentSessions": 1, "maxConcurrentCallsPerSession": 2, "sessionIdleTimeout": "00:00:00.5"})
    orders.send(*[{"n": n, "s": "red", "sleep": 1} for n in range(6)], session_id="red")
    orders.send({"n": 9, "s": "blue"}, session_id="blue")
    orders.wait(7)
    red = [when for when, order in orders.seen() if order["s"] == "red"]
    blue, = [when for when, order in orders.seen() if order["s"] == "blue"]
    # Further workers start when the first is there; then two run at once, and never three.
    assert min(after - before for before, after in zip(red, red[1:])) < 0.5
    assert min(after - before for before, after in zip(red, red[2:])) >= 0.9
    assert blue - red[-1] >= 1.3, "the other session after this one was idle"


def test_a_session_outlives_its_lock_while_a_function_runs(app, start):
    queues(app, **{"in": {"LockDuration": "PT5S", "RequiresSession": True}})
    orders = Orders(app, start, trigger={"isSessionsEnabled": True}, host={"sessionIdleTimeout": "00:00:20"})
    orders.send({"n": 0, "sleep": 8}, {"n": 1}, session_id="s")
    assert [o["n"] for o in orders.wait(2)] == [0, 1]
    peek = lambda: orders.host.post("/admin/servicebus/peek", {"queue": "in"}).json
    until(lambda: peek() == [], "an empty queue")
    assert len(orders.seen()) == 2


def test_a_function_that_cannot_start_burns_no_message(app, start):
    orders = Orders(app, start, script="import no_such_module\n" + SCRIPT)
    orders.send({"n": 1})
    until(lambda: any("AN4001" in json.dumps(r) or "AN5" in json.dumps(r) for r in orders.host.records()), "the failure")
    time.sleep(2)
    with orders.bus.get_queue_receiver("in") as receiver:
        message, = receiver.peek_messages(1)
        assert message.delivery_count == 0
    app.write("Orders/score.py", SCRIPT)
    assert orders.wait(1) == [{"n": 1}]


def test_a_wrong_binding_is_shown_with_its_place(app, start):
    app.write("A/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "m", "type": "serviceBusTrigger", "direction": "in"}]})
    app.write("B/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "q", "connection": "Nowhere"}]})
    host = start(app)
    assert "AN8006" in host.printed() and "A/function.json:1:" in host.printed()
    until(lambda: "AN8005" in host.printed() and "Nowhere" in host.printed(), "the missing setting")


def test_the_sample_scores_digits_from_a_queue(repository, start):
    host = start(repository, "--servicebus-port", "0", "--functions", "DigitsQueue")
    done = subprocess.run(
        [sys.executable, str(ROOT / "samples" / "clients" / "send_digits.py"), "3"], capture_output=True, text=True,
        timeout=90, env={**os.environ, "SERVICEBUS": host.info["serviceBus"]})
    assert done.returncode == 0, done.stderr
    expected = json.loads((ROOT / "samples" / "bundles" / "digits" / "expected-output.json").read_text())
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected] * 3
