"""Topics, subscriptions and rules: from the emulator's file, by the administration client, and over $management."""

import datetime
import json

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus._pyamqp.types import TYPE, VALUE, AMQPTypes
from azure.servicebus.exceptions import MessageNotFoundError, ServiceBusError
from azure.servicebus.management import (
    CorrelationRuleFilter, FalseRuleFilter, ServiceBusAdministrationClient, SqlRuleAction, SqlRuleFilter, TrueRuleFilter)
from conftest import andiron

# Every entry of the emulator's own sample, with its comments, and the commas people leave behind.
SAMPLE = """\ufeff{
  // The emulator takes one namespace.
  "UserConfig": {
    "Namespaces": [
      {
        "Name": "sbemulatorns",
        "Queues": [
          {
            "Name": "queue.1",
            "Properties": {
              "DeadLetteringOnMessageExpiration": false,
              "DefaultMessageTimeToLive": "PT1H",
              "DuplicateDetectionHistoryTimeWindow": "PT20S",
              "ForwardDeadLetteredMessagesTo": "",
              "ForwardTo": "",
              "LockDuration": "PT1M",
              "MaxDeliveryCount": 3,
              "RequiresDuplicateDetection": false,
              "RequiresSession": false,
            }
          },
        ],
        "Topics": [
          {
            "Name": "topic.1",
            "Properties": {
              "DefaultMessageTimeToLive": "PT1H",
              "DuplicateDetectionHistoryTimeWindow": "PT20S",
              "RequiresDuplicateDetection": false
            },
            "Subscriptions": [
              {
                "Name": "subscription.1",
                "Properties": {
                  "DeadLetteringOnMessageExpiration": false, "DefaultMessageTimeToLive": "PT1H",
                  "LockDuration": "PT1M", "MaxDeliveryCount": 3, "ForwardDeadLetteredMessagesTo": "", "ForwardTo": "",
                  "RequiresSession": false
                },
                "Rules": [{
                  "Name": "app-prop-filter-1",
                  "Properties": {
                    "FilterType": "Correlation",
                    "CorrelationFilter": {
                      "ContentType": "application/text",
                      "CorrelationId": "id1",
                      "Label": "subject1",
                      "MessageId": "msgid1",
                      "ReplyTo": "someQueue",
                      "ReplyToSessionId": "sessionId",
                      "SessionId": "session1",
                      "To": "xyz"
                      // Other properties may follow here.
                    }
                  }
                }]
              },
              {
                "Name": "subscription.2",
                "Properties": { "LockDuration": "PT1M", "MaxDeliveryCount": 3 },
                "Rules": [{
                  "Name": "user-prop-filter-1",
                  "Properties": {
                    "FilterType": "Correlation",
                    "CorrelationFilter": { "Properties": { "prop1": "value1", "count": 2 } }
                  }
                }]
              },
              { "Name": "subscription.3", "Properties": { "ForwardTo": "queue.1" } },
              {
                "Name": "subscription.4",
                "Properties": { "LockDuration": "PT1M", "MaxDeliveryCount": 3 },
                "Rules": [{
                  "Name": "sql-filter-1",
                  "Properties": {
                    "FilterType": "Sql",
                    "SqlFilter": { "SqlExpression": "sys.MessageId = '123456' AND userProp1 = 'value1'" },
                    "Action": { "SqlExpression": "SET sys.To = 'Entity'; REMOVE userProp1; SET n = n * 2 + 1" }
                  }
                }]
              },
            ]
          }
        ]
      }
    ],
    "Logging": { "Type": "File" }
  }
}
"""


@pytest.fixture
def host(app, start):
    app.write("Config.json", SAMPLE)
    return start(app, "--servicebus-port", "0")


def client(host, **options):
    return ServiceBusClient.from_connection_string(host.info["serviceBus"], **options)


def administration(host):
    admin = ServiceBusAdministrationClient.from_connection_string(host.info["serviceBus"])
    # This SDK insists on HTTPS; .NET's has learnt to speak HTTP to an emulator.
    admin._impl._client._base_url = f"http://localhost:{host.info['serviceBusAdminPort']}"
    return admin


def drain(receiver, count):
    found = []
    while len(found) < count:
        messages = receiver.receive_messages(count - len(found), max_wait_time=10)
        assert messages, f"{len(found)} of {count} came"
        for message in messages:
            receiver.complete_message(message)
        found += messages
    return found


def bodies(bus, topic, subscription, count):
    """The bodies a subscription holds, taken out; and nothing is behind them."""
    with bus.get_subscription_receiver(topic, subscription) as receiver:
        found = [str(message) for message in drain(receiver, count)]
        assert receiver.peek_messages(1) == []
        return found


def properties(message):
    text = lambda value: value.decode() if isinstance(value, bytes) else value
    return {text(name): text(value) for name, value in (message.application_properties or {}).items()}


def send(bus, topic, *messages):
    with bus.get_topic_sender(topic) as sender:
        sender.send_messages(list(messages))


def test_the_emulators_sample_file_is_served_whole(host):
    assert "Config.json" not in host.printed()
    with client(host) as bus:
        send(bus, "topic.1",
             ServiceBusMessage(
                 "1", content_type="application/text", correlation_id="id1", subject="subject1", message_id="msgid1",
                 reply_to="someQueue", reply_to_session_id="sessionId", session_id="session1", to="xyz"),
             ServiceBusMessage("2", application_properties={"prop1": "value1", "count": 2}),
             ServiceBusMessage("not 2", application_properties={"prop1": "value1", "count": 3}),
             ServiceBusMessage("4", message_id="123456", application_properties={"userProp1": "value1", "n": 20}))
        assert bodies(bus, "topic.1", "subscription.1", 1) == ["1"]
        assert bodies(bus, "topic.1", "subscription.2", 1) == ["2"]
        with bus.get_queue_receiver("queue.1") as receiver:
            assert [str(message) for message in drain(receiver, 4)] == ["1", "2", "not 2", "4"]
        with bus.get_subscription_receiver("topic.1", "subscription.4") as receiver:
            changed, = drain(receiver, 1)
            assert changed.to == "Entity" and changed.message_id == "123456" and str(changed) == "4"
            assert properties(changed) == {"n": 41}


def test_the_administration_client_makes_topics_and_subscriptions(host, app, start):
    admin = administration(host)
    minute = datetime.timedelta(minutes=1)
    topic = admin.create_topic("news", default_message_time_to_live=minute, max_size_in_megabytes=1024)
    assert topic.name == "news" and topic.default_message_time_to_live == minute
    with pytest.raises(ResourceExistsError):
        admin.create_topic("news")
    made = admin.create_subscription("news", "all", lock_duration=minute, max_delivery_count=7)
    assert made.name == "all" and made.max_delivery_count == 7 and made.lock_duration == minute
    with pytest.raises(ResourceExistsError):
        admin.create_subscription("news", "all")
    with pytest.raises(HttpResponseError):
        admin.create_subscription("nowhere", "all")
    admin.create_subscription("news", "onward", forward_to="queue.1")
    assert admin.get_subscription("news", "onward").forward_to.endswith("/queue.1")
    for missing in (lambda: admin.get_topic("nowhere"), lambda: admin.get_subscription("news", "none"),
                    lambda: admin.delete_subscription("news", "none"), lambda: admin.delete_topic("nowhere")):
        with pytest.raises(ResourceNotFoundError):
            missing()
    with client(host) as bus:
        send(bus, "news", ServiceBusMessage("a"), ServiceBusMessage("b"), ServiceBusMessage("c"))
        with bus.get_topic_sender("news") as sender:
            sender.schedule_messages(
                ServiceBusMessage("later"), datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1))
        with bus.get_subscription_receiver("news", "all") as receiver:
            first = receiver.receive_messages(1, max_wait_time=10)[0]
            receiver.dead_letter_message(first)
        counts = admin.get_subscription_runtime_properties("news", "all")
        assert (counts.active_message_count, counts.dead_letter_message_count, counts.total_message_count) == (2, 1, 3)
        runtime = admin.get_topic_runtime_properties("news")
        assert runtime.subscription_count == 2 and runtime.scheduled_message_count == 1 and runtime.size_in_bytes > 0
        assert admin.get_queue_runtime_properties("queue.1").active_message_count == 3
    made.max_delivery_count = 9
    admin.update_subscription("news", made)
    topic.default_message_time_to_live = 2 * minute
    admin.update_topic(topic)
    assert [t.name for t in admin.list_topics()] == ["news", "topic.1"]
    assert [s.name for s in admin.list_subscriptions("news")] == ["all", "onward"]
    assert [s.name for s in admin.list_subscriptions_runtime_properties("topic.1")] == [
        f"subscription.{n}" for n in range(1, 5)]
    assert [q.name for q in admin.list_queues()] == ["queue.1"]
    host.process.kill()
    host.process.wait()
    host = start(app, "--servicebus-port", "0")
    admin = administration(host)
    assert admin.get_subscription("news", "all").max_delivery_count == 9
    assert admin.get_topic("news").default_message_time_to_live == 2 * minute
    with client(host) as bus:
        assert bodies(bus, "news", "all", 2) == ["b", "c"]
    admin.delete_subscription("news", "onward")
    assert [s.name for s in admin.list_subscriptions("news")] == ["all"]
    admin.delete_topic("news")
    with pytest.raises(ResourceNotFoundError):
        admin.get_subscription("news", "all")
    with client(host, retry_total=0) as bus, pytest.raises(ServiceBusError):
        send(bus, "news", ServiceBusMessage("x"))
    admin.create_topic("news")
    assert list(admin.list_subscriptions("news")) == []


def test_the_administration_client_changes_rules(host, app, start):
    admin = administration(host)
    admin.create_topic("t")
    admin.create_subscription("t", "s")
    default, = admin.list_rules("t", "s")
    assert default.name == "$Default" and isinstance(default.filter, TrueRuleFilter)
    when = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)
    values = {"text": "x&<y", "whole": 7, "large": 1 << 30, "half": 0.5, "yes": True, "when": when}
    made = admin.create_rule("t", "s", "correlated", filter=CorrelationRuleFilter(label="red", properties=values))
    assert made.filter.label == "red" and dict(made.filter.properties) == values
    admin.create_rule(
        "t", "s", "sized", filter=SqlRuleFilter("size > @least", parameters={"@least": 10}),
        action=SqlRuleAction("SET tag = @tag", parameters={"@tag": "large"}))
    wide = admin.create_rule("t", "s", "wide", filter=CorrelationRuleFilter(properties={"n": 1 << 40}))
    assert wide.filter.properties["n"] == 1 << 40
    admin.delete_rule("t", "s", "wide")
    admin.create_rule("t", "s", "nothing", filter=FalseRuleFilter())
    with pytest.raises(ResourceExistsError):
        admin.create_rule("t", "s", "sized", filter=TrueRuleFilter())
    with pytest.raises(HttpResponseError) as wrong:
        admin.create_rule("t", "s", "wrong", filter=SqlRuleFilter("size >"))
    assert "a value was expected at the end, in 'size >'" in str(wrong.value)
    for missing in (lambda: admin.get_rule("t", "s", "none"), lambda: admin.delete_rule("t", "s", "none"),
                    lambda: admin.get_rule("t", "none", "$Default")):
        with pytest.raises(ResourceNotFoundError):
            missing()
    admin.delete_rule("t", "s", "$Default")
    assert [rule.name for rule in admin.list_rules("t", "s")] == ["correlated", "sized", "nothing"]
    sized = admin.get_rule("t", "s", "sized")
    assert sized.filter.sql_expression == "size > @least" and dict(sized.filter.parameters) == {"@least": 10}
    assert sized.action.sql_expression == "SET tag = @tag" and dict(sized.action.parameters) == {"@tag": "large"}
    assert isinstance(admin.get_rule("t", "s", "nothing").filter, FalseRuleFilter)
    host.stop()
    host = start(app, "--servicebus-port", "0")
    admin = administration(host)
    with client(host) as bus:
        send(bus, "t", ServiceBusMessage("red", subject="red", application_properties=values),
             ServiceBusMessage("no", subject="red", application_properties={**values, "half": 0.25}),
             ServiceBusMessage("both", subject="red", application_properties={**values, "size": 11}),
             ServiceBusMessage("10", application_properties={"size": 10}))
        with bus.get_subscription_receiver("t", "s") as receiver:
            found = drain(receiver, 3)
            # One copy for the rules without an action, one for each rule with one.
            assert {properties(m).get("tag") for m in found if str(m) == "both"} == {None, "large"}
            assert sorted(str(m) for m in found) == ["both", "both", "red"]
            assert receiver.peek_messages(1, sequence_number=1) == []
        sized.action = None
        sized.filter = SqlRuleFilter("size > 5")
        admin.update_rule("t", "s", sized)
        admin.delete_rule("t", "s", "correlated")
        assert admin.get_rule("t", "s", "sized").action is None
        send(bus, "t", ServiceBusMessage("six", application_properties={"size": 6}))
        assert bodies(bus, "t", "s", 1) == ["six"]


def management(receiver, operation, body):
    """One request to $management over the SDK's own link."""
    return receiver._mgmt_request_response_with_retry(
        b"com.microsoft:" + operation, body,
        lambda status, message, description, **_: (status, message.value))


def test_rules_over_the_management_link(host):
    with client(host, retry_total=0) as bus, bus.get_subscription_receiver("topic.1", "subscription.2") as receiver:
        status, _ = management(receiver, b"add-rule", {
            "rule-name": "large", "rule-description": {
                "sql-filter": {"expression": "size > 10"}, "sql-rule-action": {"expression": "SET tag = 'large'"}}})
        assert status == 200
        status, _ = management(receiver, b"add-rule", {
            "rule-name": "green", "rule-description": {
                "correlation-filter": {"label": "green", "properties": {"level": 3}}}})
        assert status == 200
        assert management(receiver, b"add-rule", {
            "rule-name": "LARGE", "rule-description": {"sql-filter": {"expression": "1=1"}}})[0] == 409
        assert management(receiver, b"add-rule", {
            "rule-name": "wrong", "rule-description": {"sql-filter": {"expression": "size >"}}})[0] == 400
        assert management(receiver, b"remove-rule", {"rule-name": "user-prop-filter-1"})[0] == 200
        assert management(receiver, b"remove-rule", {"rule-name": "user-prop-filter-1"})[0] == 404
        status, listed = management(receiver, b"enumerate-rules", {"top": 100, "skip": 0})
        assert status == 200 and len(listed[b"rules"]) == 2
        assert "size > 10" in str(listed) and "SET tag" in str(listed) and "green" in str(listed)
        assert management(receiver, b"enumerate-rules", {"top": 100, "skip": 2})[0] == 204
        send(bus, "topic.1", ServiceBusMessage("a", application_properties={"size": 11}),
             ServiceBusMessage("b", subject="green", application_properties={"level": 3}),
             ServiceBusMessage("c", subject="green"))
        found = {str(m): properties(m).get("tag") for m in drain(receiver, 2)}
        assert found == {"a": "large", "b": None}
    with client(host, retry_total=0) as bus, bus.get_queue_receiver("queue.1") as receiver:
        status, _ = management(receiver, b"add-rule", {
            "rule-name": "r", "rule-description": {"sql-filter": {"expression": "1=1"}}})
        assert status == 400


def test_messages_scheduled_on_a_topic_come_and_can_be_cancelled(host, app, start):
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4)
    with client(host) as bus, bus.get_topic_sender("topic.1") as sender:
        values = {"prop1": "value1", "count": 2}
        numbers = sender.schedule_messages(
            [ServiceBusMessage(name, application_properties=values) for name in ("a", "b", "c")], soon)
        assert numbers == [1, 2, 3]
        sender.cancel_scheduled_messages(numbers[1])
        with client(host, retry_total=0) as impatient, impatient.get_topic_sender("topic.1") as other, \
                pytest.raises(MessageNotFoundError):
            other.cancel_scheduled_messages(numbers[1])
    host.process.kill()
    host.process.wait()
    host = start(app, "--servicebus-port", "0")
    with client(host) as bus:
        assert bodies(bus, "topic.1", "subscription.2", 2) == ["a", "c"]
        with bus.get_topic_sender("topic.1") as sender, pytest.raises(ServiceBusError):
            sender.cancel_scheduled_messages(numbers[0])


def test_messages_are_deleted_in_batches(host):
    """As the newer SDKs of other languages do; the Python one has no call for it yet."""
    with client(host, retry_total=0) as bus:
        with bus.get_queue_sender("queue.1") as sender:
            sender.send_messages([ServiceBusMessage(str(number)) for number in range(10)])
        with bus.get_queue_receiver("queue.1") as receiver:
            locked, = receiver.receive_messages(1, max_wait_time=10)
            future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
            past = locked.enqueued_time_utc - datetime.timedelta(minutes=1)
            stamp = lambda time: {TYPE: AMQPTypes.timestamp, VALUE: int(time.timestamp() * 1000)}
            number = lambda count: {TYPE: AMQPTypes.int, VALUE: count}

            def delete(count, before):
                status, body = management(receiver, b"batch-delete-messages", {
                    "message-count": number(count), "enqueued-time-utc": stamp(before)})
                return status, (body or {}).get(b"message-count") if status == 200 else None

            assert delete(4, future) == (200, 4)
            assert [str(m) for m in receiver.peek_messages(20, sequence_number=1)] == ["0", "5", "6", "7", "8", "9"]
            assert delete(4000, past)[0] == 204
            assert delete(4000, future) == (200, 5)
            assert delete(4001, future)[0] == 400 and delete(0, future)[0] == 400
            receiver.complete_message(locked)
            assert receiver.peek_messages(1, sequence_number=1) == []


def test_a_subscription_with_sessions_buries_what_has_none_and_one_that_leads_nowhere_too(host):
    admin = administration(host)
    admin.create_topic("t")
    admin.create_subscription("t", "sessions", requires_session=True)
    admin.create_queue("gone")
    admin.create_subscription("t", "onward", forward_to="gone")
    admin.delete_queue("gone")
    with client(host) as bus:
        send(bus, "t", ServiceBusMessage("with", session_id="s"))
        send(bus, "t", ServiceBusMessage("without"))
        with bus.get_subscription_receiver("t", "sessions", session_id="s") as receiver:
            assert [str(m) for m in drain(receiver, 1)] == ["with"]
        with bus.get_subscription_receiver("t", "sessions", sub_queue="deadletter") as receiver:
            letter, = drain(receiver, 1)
            assert str(letter) == "without" and letter.dead_letter_reason == "Session ID is null."
        with bus.get_subscription_receiver("t", "onward", sub_queue="transferdeadletter") as receiver:
            assert [str(m) for m in drain(receiver, 2)] == ["with", "without"]


def test_the_command_line_looks_into_subscriptions(host):
    def queue(*arguments, ok=True):
        done = andiron("queue", *arguments, "--url", host.info["url"])
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout if ok else done.stderr

    queue("send", "topic.1", "-d", "hello", "--property", "prop1=value1", "--property", "count=2")
    shown = json.loads(queue("peek", "topic.1/Subscriptions/subscription.2"))
    assert shown["body"] == "hello" and shown["applicationProperties"] == {"prop1": "value1", "count": 2}
    assert queue("receive", "topic.1/subscriptions/subscription.2") == "hello\n"
    assert queue("receive", "queue.1") == "hello\n"
    listed = queue("ls")
    assert "topic.1/Subscriptions/subscription.2" in listed and "topic.1\n" in listed
    assert "topic" in queue("receive", "topic.1", ok=False)
    assert "subscriptions" in queue("move", "queue.1", "topic.1", ok=False)
    assert "did you mean 'topic.1/Subscriptions/subscription.1'?" in queue("peek", "topic.1/Subscriptions/subscrption.1", ok=False)
