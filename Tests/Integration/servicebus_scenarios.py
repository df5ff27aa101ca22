"""What a user of azure-servicebus does with queues, as a program: run under several versions of the SDK.

    python servicebus_scenarios.py CONNECTION_STRING [SCENARIO…]

The broker must have the queues of CONFIG. Each scenario uses its own queue and leaves it empty.
"""

import asyncio
import datetime
import sys
import time

import azure.servicebus
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue)
from azure.servicebus import exceptions

VERSION = tuple(int(part) for part in azure.servicebus.__version__.split("."))


def queue(name, **properties):
    return {"Name": name, "Properties": {"LockDuration": "PT5S", **properties}}


CONFIG = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
    queue("plain"), queue("batch"), queue("settle"), queue("defer"), queue("delete"), queue("renew"),
    queue("lost", MaxDeliveryCount=10), queue("count", MaxDeliveryCount=3), queue("schedule"), queue("peek"),
    queue("ttl", DeadLetteringOnMessageExpiration=True), queue("drop"), queue("big"), queue("prefetch"),
    queue("dup", RequiresDuplicateDetection=True, DuplicateDetectionHistoryTimeWindow="PT20S"),
    queue("session", RequiresSession=True), queue("state", RequiresSession=True), queue("next", RequiresSession=True),
    queue("forward", ForwardTo="target"), queue("target"), queue("letters", ForwardDeadLetteredMessagesTo="graves"),
    queue("graves"), queue("async"), queue("bodies"),
]}]}}


def drain(receiver, count, wait=5):
    found = []
    end = time.monotonic() + wait + 15
    while len(found) < count and time.monotonic() < end:
        found += receiver.receive_messages(count - len(found), max_wait_time=wait)
    return found


def plain(client):
    with client.get_queue_sender("plain") as sender:
        sender.send_messages(ServiceBusMessage(
            b"hello", message_id="m1", content_type="text/plain", correlation_id="c", subject="s", to="t",
            reply_to="r", application_properties={"text": "x", "number": 7, "yes": True}))
    with client.get_queue_receiver("plain") as receiver:
        message, = drain(receiver, 1)
        assert str(message) == "hello" and message.message_id == "m1" and message.subject == "s"
        assert message.content_type == "text/plain" and message.correlation_id == "c" and message.to == "t"
        assert message.application_properties == {b"text": b"x", b"number": 7, b"yes": True} or \
            message.application_properties == {"text": "x", "number": 7, "yes": True}
        assert message.sequence_number == 1 and message.delivery_count == 0
        age = datetime.datetime.now(datetime.timezone.utc) - message.enqueued_time_utc
        assert abs(age.total_seconds()) < 60
        receiver.complete_message(message)
        assert receiver.receive_messages(1, max_wait_time=1) == []


def batch(client):
    with client.get_queue_sender("batch") as sender:
        some = sender.create_message_batch()
        for number in range(100):
            some.add_message(ServiceBusMessage(f"m{number}"))
        sender.send_messages(some)
        sender.send_messages([ServiceBusMessage(f"n{number}") for number in range(50)])
    with client.get_queue_receiver("batch") as receiver:
        messages = drain(receiver, 150)
        assert [str(m) for m in messages] == [f"m{n}" for n in range(100)] + [f"n{n}" for n in range(50)]
        assert [m.sequence_number for m in messages] == list(range(1, 151))
        for message in messages:
            receiver.complete_message(message)


def settle(client):
    with client.get_queue_sender("settle") as sender:
        sender.send_messages([ServiceBusMessage(str(number)) for number in range(3)])
    with client.get_queue_receiver("settle") as receiver:
        first, second, third = drain(receiver, 3)
        receiver.complete_message(first)
        receiver.abandon_message(second)
        receiver.dead_letter_message(third, reason="why", error_description="because")
        again, = drain(receiver, 1)
        assert str(again) == "1" and again.delivery_count == 1
        receiver.complete_message(again)
    with client.get_queue_receiver("settle", sub_queue=ServiceBusSubQueue.DEAD_LETTER) as receiver:
        dead, = drain(receiver, 1)
        assert str(dead) == "2"
        assert dead.dead_letter_reason == "why" and dead.dead_letter_error_description == "because"
        receiver.complete_message(dead)


def defer(client):
    with client.get_queue_sender("defer") as sender:
        sender.send_messages(ServiceBusMessage("later"))
    with client.get_queue_receiver("defer") as receiver:
        message, = drain(receiver, 1)
        receiver.defer_message(message)
        assert receiver.receive_messages(1, max_wait_time=1) == []
        peeked, = receiver.peek_messages(5, sequence_number=1)
        assert str(peeked) == "later"
        taken, = receiver.receive_deferred_messages(message.sequence_number)
        assert str(taken) == "later"
        receiver.complete_message(taken)
        assert receiver.peek_messages(5, sequence_number=1) == []


def delete(client):
    with client.get_queue_sender("delete") as sender:
        sender.send_messages([ServiceBusMessage(str(n)) for n in range(5)])
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver("delete", receive_mode=mode) as receiver:
        assert [str(m) for m in drain(receiver, 5)] == list("01234")
    with client.get_queue_receiver("delete") as receiver:
        assert receiver.peek_messages(5) == []


def renew(client):
    with client.get_queue_sender("renew") as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with client.get_queue_receiver("renew") as receiver:
        message, = drain(receiver, 1)
        before = message.locked_until_utc
        time.sleep(3)
        assert receiver.renew_message_lock(message) > before
        time.sleep(3)
        receiver.complete_message(message)
        assert receiver.peek_messages(1) == []


def lost(client):
    with client.get_queue_sender("lost") as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with client.get_queue_receiver("lost") as receiver:
        message, = drain(receiver, 1)
        time.sleep(5.5)
        if VERSION >= (7, 15):
            try:
                receiver.complete_message(message)
                raise AssertionError("a lost lock was taken for held")
            except exceptions.MessageLockLostError:
                pass
        again, = drain(receiver, 1)
        assert again.delivery_count == 1
        receiver.complete_message(again)


def count(client):
    with client.get_queue_sender("count") as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with client.get_queue_receiver("count") as receiver:
        for attempt in range(3):
            message, = drain(receiver, 1)
            assert message.delivery_count == attempt
            receiver.abandon_message(message)
        assert receiver.receive_messages(1, max_wait_time=1) == []
    with client.get_queue_receiver("count", sub_queue="deadletter") as receiver:
        dead, = drain(receiver, 1)
        assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"
        assert dead.dead_letter_error_description == "Message could not be consumed after 3 delivery attempts."
        receiver.complete_message(dead)


def schedule(client):
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
    with client.get_queue_sender("schedule") as sender:
        numbers = sender.schedule_messages([ServiceBusMessage("a"), ServiceBusMessage("b")], soon)
        assert len(numbers) == 2 and numbers[1] == numbers[0] + 1
        sender.cancel_scheduled_messages(numbers[1])
        message = ServiceBusMessage("c", scheduled_enqueue_time_utc=soon)
        sender.send_messages(message)
    with client.get_queue_receiver("schedule") as receiver:
        assert len(receiver.peek_messages(5)) == 2
        messages = drain(receiver, 2, wait=8)
        assert sorted(str(m) for m in messages) == ["a", "c"]
        assert all(m.sequence_number > numbers[1] for m in messages)
        for message in messages:
            receiver.complete_message(message)


def peek(client):
    with client.get_queue_sender("peek") as sender:
        sender.send_messages([ServiceBusMessage(str(n)) for n in range(10)])
    with client.get_queue_receiver("peek") as receiver:
        assert [str(m) for m in receiver.peek_messages(4)] == list("0123")
        assert [str(m) for m in receiver.peek_messages(4, sequence_number=5)] == list("4567")
        assert [str(m) for m in receiver.peek_messages(9, sequence_number=3)] == list("23456789")
        for message in drain(receiver, 10):
            assert message.delivery_count == 0
            receiver.complete_message(message)


def ttl(client):
    short = datetime.timedelta(seconds=1)
    with client.get_queue_sender("ttl") as sender:
        sender.send_messages(ServiceBusMessage("x", time_to_live=short))
    with client.get_queue_sender("drop") as sender:
        sender.send_messages(ServiceBusMessage("x", time_to_live=short))
    with client.get_queue_receiver("ttl", sub_queue="deadletter") as receiver:
        dead, = drain(receiver, 1, wait=8)
        assert dead.dead_letter_reason == "TTLExpiredException"
        receiver.complete_message(dead)
    with client.get_queue_receiver("drop") as receiver:
        assert receiver.receive_messages(1, max_wait_time=1) == []
    with client.get_queue_receiver("drop", sub_queue="deadletter") as receiver:
        assert receiver.peek_messages(1) == []


def dup(client):
    with client.get_queue_sender("dup") as sender:
        for identifier in ("a", "a", "b", "a"):
            sender.send_messages(ServiceBusMessage("x", message_id=identifier))
    with client.get_queue_receiver("dup") as receiver:
        messages = drain(receiver, 2)
        assert [m.message_id for m in messages] == ["a", "b"]
        for message in messages:
            receiver.complete_message(message)
        assert receiver.receive_messages(1, max_wait_time=1) == []


def session(client):
    with client.get_queue_sender("session") as sender:
        for number in range(3):
            for name in ("red", "blue"):
                sender.send_messages(ServiceBusMessage(f"{name}{number}", session_id=name))
        try:
            sender.send_messages(ServiceBusMessage("none"))
            raise AssertionError("a message without session id was taken")
        except exceptions.ServiceBusError:
            pass
    with client.get_queue_receiver("session", session_id="red") as receiver:
        assert receiver.session.session_id == "red"
        messages = drain(receiver, 3)
        assert [str(m) for m in messages] == ["red0", "red1", "red2"]
        receiver.session.renew_lock()
        for message in messages:
            receiver.complete_message(message)
    with client.get_queue_receiver("session", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
        assert receiver.session.session_id == "blue"
        for message in drain(receiver, 3):
            receiver.complete_message(message)
    try:
        with client.get_queue_receiver("session") as receiver:
            receiver.receive_messages(1, max_wait_time=1)
        raise AssertionError("a plain receiver was let in to a queue with sessions")
    except exceptions.ServiceBusError as error:
        assert "requires sessions" in str(error), error


def state(client):
    with client.get_queue_sender("state") as sender:
        sender.send_messages(ServiceBusMessage("x", session_id="s"))
    with client.get_queue_receiver("state", session_id="s") as receiver:
        assert receiver.session.get_state() is None
        receiver.session.set_state(b"half way")
        assert receiver.session.get_state() == b"half way"
        for message in drain(receiver, 1):
            receiver.complete_message(message)
    with client.get_queue_receiver("state", session_id="s") as receiver:
        assert receiver.session.get_state() == b"half way"
        receiver.session.set_state(None)


def waiting(client):
    client = ServiceBusClient.from_connection_string(sys.argv[1], retry_total=0)
    begin = time.monotonic()
    try:
        with client.get_queue_receiver("next", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2) as receiver:
            receiver.receive_messages(1, max_wait_time=1)
        raise AssertionError("a session was given where there is none")
    except exceptions.OperationTimeoutError:
        assert time.monotonic() - begin < 30


def big(client):
    with client.get_queue_sender("big") as sender:
        sender.send_messages(ServiceBusMessage(b"x" * 200_000))
        try:
            sender.send_messages(ServiceBusMessage(b"x" * 270_000))
            raise AssertionError("a message above the limit was taken")
        except exceptions.MessageSizeExceededError:
            pass
    with client.get_queue_receiver("big") as receiver:
        message, = drain(receiver, 1)
        assert b"".join(message.body) == b"x" * 200_000
        receiver.complete_message(message)


def prefetch(client):
    with client.get_queue_sender("prefetch") as sender:
        sender.send_messages([ServiceBusMessage(str(n)) for n in range(60)])
    with client.get_queue_receiver("prefetch", prefetch_count=20, max_wait_time=3) as receiver:
        found = []
        for message in receiver:
            found.append(str(message))
            receiver.complete_message(message)
            if len(found) == 60:
                break
        assert sorted(found, key=int) == [str(n) for n in range(60)]


def forward(client):
    with client.get_queue_sender("forward") as sender:
        sender.send_messages(ServiceBusMessage("x"))
    with client.get_queue_receiver("target") as receiver:
        message, = drain(receiver, 1)
        receiver.complete_message(message)
    with client.get_queue_sender("letters") as sender:
        sender.send_messages(ServiceBusMessage("y"))
    with client.get_queue_receiver("letters") as receiver:
        message, = drain(receiver, 1)
        receiver.dead_letter_message(message, reason="r")
    with client.get_queue_receiver("graves") as receiver:
        message, = drain(receiver, 1)
        assert message.dead_letter_source == "letters" and str(message) == "y"
        receiver.complete_message(message)


def bodies(client):
    from azure.servicebus.amqp import AmqpAnnotatedMessage
    with client.get_queue_sender("bodies") as sender:
        sender.send_messages(AmqpAnnotatedMessage(value_body={"a": [1, 2.5, "x", None]}))
        sender.send_messages(AmqpAnnotatedMessage(sequence_body=[[1, 2], ["x"]]))
        sender.send_messages(AmqpAnnotatedMessage(data_body=[b"a", b"b"], annotations={"mine": "kept"}))
    with client.get_queue_receiver("bodies") as receiver:
        value, sequence, data = drain(receiver, 3)
        assert list(data.body) == [b"a", b"b"]
        assert b"mine" in data.raw_amqp_message.annotations or "mine" in data.raw_amqp_message.annotations
        assert value.body_type.name == "VALUE" and sequence.body_type.name == "SEQUENCE"
        for message in (value, sequence, data):
            receiver.complete_message(message)


def missing(client):
    try:
        with client.get_queue_sender("no.such.queue") as sender:
            sender.send_messages(ServiceBusMessage("x"))
        raise AssertionError("a queue that is not there took a message")
    except exceptions.MessagingEntityNotFoundError:
        pass


def asynchronous(client):
    from azure.servicebus.aio import ServiceBusClient as AsyncClient

    async def run():
        async with AsyncClient.from_connection_string(sys.argv[1]) as client:
            async with client.get_queue_sender("async") as sender:
                await sender.send_messages([ServiceBusMessage(str(n)) for n in range(5)])
            async with client.get_queue_receiver("async") as receiver:
                found = []
                while len(found) < 5:
                    for message in await receiver.receive_messages(5, max_wait_time=5):
                        found.append(str(message))
                        await receiver.complete_message(message)
                assert found == list("01234")

    asyncio.run(run())


def sessions(client):
    if not hasattr(client, "list_queue_sessions"):
        return
    with client.get_queue_sender("next") as sender:
        for name in ("one", "two"):
            sender.send_messages(ServiceBusMessage("x", session_id=name))
    assert sorted(client.list_queue_sessions("next")) == ["one", "two"]
    for name in ("one", "two"):
        with client.get_queue_receiver("next", session_id=name) as receiver:
            for message in drain(receiver, 1):
                receiver.complete_message(message)


SCENARIOS = [
    plain, batch, settle, defer, delete, renew, lost, count, schedule, peek, ttl, dup, session, state, waiting, big,
    prefetch, forward, bodies, missing, asynchronous, sessions]


if __name__ == "__main__":
    from concurrent.futures import ThreadPoolExecutor

    wanted = sys.argv[2:]

    def run(scenario):
        with ServiceBusClient.from_connection_string(sys.argv[1]) as client:
            scenario(client)

    # Together, because each one mostly waits; sessions needs the queue of waiting.
    chosen = [s for s in SCENARIOS if not wanted or s.__name__ in wanted]
    later = [s for s in chosen if s is sessions]
    failed = []
    with ThreadPoolExecutor(8) as pool:
        runs = [(s, pool.submit(run, s)) for s in chosen if s is not sessions]
        for scenario, future in runs:
            if future.exception() is not None:
                import traceback
                failed.append(scenario.__name__)
                traceback.print_exception(future.exception())
    for scenario in later:
        run(scenario)
    print(f"azure-servicebus {azure.servicebus.__version__}: {len(chosen) - len(failed)} of {len(chosen)}", failed)
    sys.exit(1 if failed else 0)
