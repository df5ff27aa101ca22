"""Functions started by Service Bus messages, and messages they send."""

import json
import os
import subprocess
import sys
import time

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
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

    def __init__(self, app, start, trigger=None, host=None, outputs=None, script=SCRIPT, arguments=()):
        self.notes = app.folder / "notes"
        app.write("host.json", {"version": "2.0", "extensions": {"serviceBus": host or {}}})
        app.write("Orders/score.py", script)
        app.write("Orders/function.json", {"bindings": [
            {"name": "order", "type": "serviceBusTrigger", "direction": "in", "queueName": "in", **(trigger or {})},
            *(outputs or [])]})
        self.start = lambda: start(app, "--servicebus-port", "0", *arguments, environment={"NOTES": str(self.notes)})
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
    assert len([o for o in orders.wait(5) if o["n"] == 4]) == 3
    until(lambda: orders.left() == [], "an empty queue")


def test_messages_carry_properties_sessions_and_times(app, start):
    out = {"name": "later", "type": "serviceBus", "direction": "out", "queueName": "out-{MessageId}"}
    app.write("Config.json", {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [{"Name": "out-m7"}]}]}})
    orders = Orders(app, start, outputs=[out])
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    message = {
        "body": {"x": 1}, "messageId": "id", "subject": "s", "contentType": "application/json", "sessionId": "g",
        "correlationId": "c", "scheduledEnqueueTimeUtc": soon, "applicationProperties": {"k": "v", "n": 3}}
    orders.send({"out": {"later": message}}, message_id="m7")
    found, = orders.receive("out-m7", 1)
    assert json.loads(str(found)) == {"x": 1} and found.message_id == "id" and found.subject == "s"
    assert found.session_id == "g" and found.correlation_id == "c" and found.content_type == "application/json"
    assert found.application_properties == {b"k": b"v", b"n": 3} or found.application_properties == {"k": "v", "n": 3}
    assert found.enqueued_time_utc.timestamp() >= int(time.time()) - 30


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
