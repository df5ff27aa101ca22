"""Service Bus's REST calls on the host's port, and the command line's view of queues."""

import json

from azure.servicebus import ServiceBusClient
from conftest import andiron, until

CONFIG = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
    {"Name": "q"}, {"Name": "other"}, {"Name": "dying", "Properties": {"MaxDeliveryCount": 1}}]}]}}


def broker(app, start, *arguments):
    app.write("Config.json", CONFIG)
    return start(app, "--servicebus-port", "0", *arguments)


def test_rest_send_lock_renew_unlock_complete_and_take(app, start):
    host = broker(app, start)
    properties = {"MessageId": "m", "Label": "l", "TimeToLive": 100}
    sent = host.call("POST", "/q/messages", b"hello", {
        "BrokerProperties": json.dumps(properties), "Content-Type": "text/plain", "Priority": '"High"', "Count": "3"})
    assert sent.status == 201
    locked = host.call("POST", "/q/messages/head?timeout=5")
    assert locked.status == 201 and locked.text == "hello" and locked.headers["content-type"] == "text/plain"
    assert locked.headers["priority"] == '"High"' and locked.headers["count"] == "3"
    told = json.loads(locked.headers["brokerproperties"])
    assert told["MessageId"] == "m" and told["Label"] == "l" and told["DeliveryCount"] == 1
    assert told["SequenceNumber"] == 1 and told["State"] == "Active" and told["TimeToLive"] == 100
    place = locked.headers["location"]
    assert place.endswith(f"/q/messages/1/{told['LockToken']}")
    path = place[len(host.info["url"]):]
    assert host.call("POST", "/q/messages/head?timeout=0").status == 204
    assert host.call("POST", path).status == 200
    assert host.call("PUT", path).status == 200
    assert host.call("DELETE", path).status == 410
    again = host.call("POST", "/q/messages/head?timeout=5")
    path = again.headers["location"][len(host.info["url"]):]
    assert host.call("DELETE", path).status == 200
    host.call("POST", "/q/messages", b"two")
    taken = host.call("DELETE", "/q/messages/head?timeout=5")
    assert taken.status == 200 and taken.text == "two"
    assert host.call("DELETE", "/q/messages/head?timeout=0").status == 204
    assert host.call("POST", "/nowhere/messages", b"x").status == 404
    assert host.call("POST", "/q/messages", b"x" * 270_000).status == 413
    assert host.call("POST", "/q/messages", b"x", {"BrokerProperties": "{"}).status == 400


def test_a_waiting_receiver_gets_the_message_when_it_comes(app, start):
    from concurrent.futures import ThreadPoolExecutor

    host = broker(app, start)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(host.call, "DELETE", "/q/messages/head?timeout=30")
        host.call("POST", "/q/messages", b"late")
        assert waiting.result().text == "late"


def test_the_command_line_looks_into_queues_and_changes_them(app, start):
    host = broker(app, start)

    def queue(*arguments, ok=True):
        done = andiron("queue", *arguments, "--url", host.info["url"])
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    for number in range(3):
        queue("send", "q", "-d", f"body {number}", "--message-id", f"m{number}")
    rows = [line.split() for line in queue("ls").splitlines()[1:]]
    assert ["3", "0", "0", "0", "q"] in rows
    shown = [json.loads(line) for line in queue("peek", "q").splitlines()]
    assert [m["body"] for m in shown] == ["body 0", "body 1", "body 2"] and shown[1]["messageId"] == "m1"
    assert queue("receive", "q") == "body 0\n"
    assert queue("move", "q", "other", "--count", "1") == "1 message\n"
    assert queue("receive", "other") == "body 1\n"
    assert queue("purge", "q") == "1 message\n"
    assert "no message" in queue("receive", "q", ok=False)
    assert "no queue" in queue("peek", "nowhere", ok=False)
    assert "no queue 'nowhere'" in (told := queue("send", "nowhere", "-d", "x", ok=False)) and "queue ls" in told

    queue("send", "dying", "-d", "x")
    with ServiceBusClient.from_connection_string(host.info["serviceBus"]) as bus:
        with bus.get_queue_receiver("dying") as receiver:
            message, = receiver.receive_messages(1, max_wait_time=10)
            receiver.abandon_message(message)
    until(lambda: "message 1 of 'dying' went to its dead letters: MaxDeliveryCountExceeded" in host.printed(), "the log")
    letter = json.loads(queue("dead-letters", "dying"))
    assert letter["deadLetterReason"] == "MaxDeliveryCountExceeded" and letter["body"] == "x"
    assert queue("resubmit", "dying") == "1 message\n"
    back = json.loads(queue("peek", "dying"))
    assert "deadLetterReason" not in back and back["deliveryCount"] == 0


def test_trigger_queue_starts_the_function(app, start):
    app.write("Echo/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "m", "type": "serviceBusTrigger", "direction": "in", "queueName": "work"},
        {"name": "$return", "type": "serviceBus", "direction": "out", "queueName": "q"}]})
    host = broker(app, start)
    done = andiron("trigger", "queue", "Echo", "-d", '{"n": 1}', "--url", host.info["url"])
    assert done.returncode == 0 and json.loads(done.stdout)["queue"] == "work", done.stderr
    taken = until(lambda: (a := host.call("DELETE", "/q/messages/head?timeout=5")).status == 200 and a, "the output")
    assert taken.text == '{"n":1}' or taken.text == '{"n": 1}'


def test_keys_are_demanded_for_administration(app, start):
    host = broker(app, start, "--enable-auth")
    assert host.call("GET", "/admin/servicebus/queues").status == 401


def test_the_administration_client_makes_lists_counts_and_deletes_queues(app, start):
    import datetime

    from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
    from azure.servicebus import ServiceBusMessage
    from azure.servicebus.management import ServiceBusAdministrationClient

    host = broker(app, start)
    port = host.info["serviceBusAdminPort"]
    admin = ServiceBusAdministrationClient.from_connection_string(host.info["serviceBus"])
    # This SDK insists on HTTPS; .NET's has learnt to speak HTTP to an emulator.
    admin._impl._client._base_url = f"http://localhost:{port}"
    minute = datetime.timedelta(minutes=1)
    made = admin.create_queue("made", lock_duration=minute, max_delivery_count=7, requires_session=False)
    assert made.name == "made" and made.max_delivery_count == 7 and made.lock_duration == minute
    try:
        admin.create_queue("made")
        raise AssertionError("a queue was made twice")
    except ResourceExistsError:
        pass
    with ServiceBusClient.from_connection_string(host.info["serviceBus"]) as bus:
        with bus.get_queue_sender("made") as sender:
            sender.send_messages([ServiceBusMessage("a"), ServiceBusMessage("b")])
            later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
            sender.schedule_messages(ServiceBusMessage("c"), later)
        with bus.get_queue_receiver("made") as receiver:
            message = receiver.receive_messages(1, max_wait_time=10)[0]
            receiver.dead_letter_message(message, reason="r")
    counts = admin.get_queue_runtime_properties("made")
    assert (counts.active_message_count, counts.dead_letter_message_count, counts.scheduled_message_count) == (1, 1, 1)
    assert counts.total_message_count == 3 and counts.size_in_bytes > 0
    made.max_delivery_count = 9
    admin.update_queue(made)
    assert admin.get_queue("made").max_delivery_count == 9
    assert [queue.name for queue in admin.list_queues()] == ["dying", "made", "other", "q"]
    assert admin.get_namespace_properties().name == "sbemulatorns"
    host.stop()
    host = start(app, "--servicebus-port", "0")
    admin._impl._client._base_url = f"http://localhost:{host.info['serviceBusAdminPort']}"
    assert admin.get_queue("made").max_delivery_count == 9
    admin.delete_queue("made")
    for missing in (admin.get_queue, admin.delete_queue):
        try:
            missing("made")
            raise AssertionError("a deleted queue is there")
        except ResourceNotFoundError:
            pass
