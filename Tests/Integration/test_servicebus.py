"""The broker in the host, spoken to by the real azure-servicebus."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import CACHE, until

import servicebus_scenarios
from azure.servicebus import ServiceBusClient, ServiceBusMessage

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def broker(app, start):
    """Starts a host whose broker listens on a free port."""

    def begin(*arguments, config=None, **options):
        if config is not None:
            app.write("Config.json", config)
        host = start(app, "--servicebus-port", "0", *arguments, **options)
        host.bus = host.info["serviceBus"]
        return host

    return begin


def client(host, **options):
    return ServiceBusClient.from_connection_string(host.bus, **options)


def sdk(version):
    """A folder with one version of the SDK, installed once."""
    folder = pathlib.Path(CACHE) / f"azure-servicebus-{version}"
    if not (folder / "done").exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder),
             f"azure-servicebus=={version}"], check=True, capture_output=True)
        (folder / "done").touch()
    return str(folder)


@pytest.mark.parametrize("version", ["7.14.0", "7.14.3", "7.15.0"])
def test_what_users_of_the_sdk_do(broker, version):
    host = broker(config="// as Microsoft's sample, with comments\n" + json.dumps(servicebus_scenarios.CONFIG))
    done = subprocess.run(
        [sys.executable, str(HERE / "servicebus_scenarios.py"), host.bus], timeout=120, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": sdk(version)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"azure-servicebus {version}: 22 of 22" in done.stdout


def test_killed_at_any_moment_it_loses_nothing_and_brings_nothing_back(app, broker):
    config = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "q", "Properties": {"LockDuration": "PT5S", "MaxDeliveryCount": 100}}]}]}}
    acknowledged, completed, seen = set(), set(), set()
    for round in range(4):
        host = broker(config=config)
        with client(host, retry_total=0) as bus:
            try:
                with bus.get_queue_sender("q") as sender, bus.get_queue_receiver("q") as receiver:
                    for number in range(40):
                        name = f"{round}.{number}"
                        sender.send_messages(ServiceBusMessage(name))
                        acknowledged.add(name)
                        if number == 20:
                            for message in receiver.receive_messages(15, max_wait_time=3):
                                assert str(message) not in completed
                                receiver.complete_message(message)
                                completed.add(str(message))
                        if number == 30 + round:
                            host.process.send_signal(signal.SIGKILL)
            except Exception:
                pass
        host.process.wait()
    host = broker(config=config)
    with client(host) as bus, bus.get_queue_receiver("q") as receiver:
        expected = acknowledged - completed
        while len(seen) < len(expected):
            messages = receiver.receive_messages(100, max_wait_time=8)
            assert messages, expected - seen
            for message in messages:
                seen.add(str(message))
                receiver.complete_message(message)
        assert len(completed) == 60
        # A send that was under way when the host died may be there without its answer having come.
        assert seen >= expected and not seen & completed
        assert all(name.split(".")[0].isdigit() for name in seen - expected)


def test_what_became_of_messages_is_known_after_a_restart(app, broker):
    host = broker(config=servicebus_scenarios.CONFIG)
    with client(host) as bus, bus.get_queue_sender("plain") as sender, bus.get_queue_receiver("plain") as receiver:
        sender.send_messages([ServiceBusMessage(str(number), application_properties={"a": 1}) for number in range(5)])
        dead, done, deferred, abandoned, _ = servicebus_scenarios.drain(receiver, 5)
        receiver.dead_letter_message(dead, reason="why", error_description="because")
        receiver.complete_message(done)
        receiver.defer_message(deferred)
        receiver.abandon_message(abandoned)
    host.process.kill()
    host.process.wait()
    host = broker(config=servicebus_scenarios.CONFIG)
    with client(host) as bus:
        with bus.get_queue_receiver("plain") as receiver:
            found = receiver.peek_messages(10)
            assert [str(m) for m in found] == ["2", "3", "4"] and [m.state.value for m in found] == [1, 0, 0]
            assert found[1].delivery_count == 1 and found[1].enqueued_time_utc == abandoned.enqueued_time_utc
        with bus.get_queue_receiver("plain", sub_queue="deadletter") as receiver:
            letter, = servicebus_scenarios.drain(receiver, 1)
            assert str(letter) == "0" and letter.dead_letter_reason == "why" and letter.sequence_number == 1
            assert letter.enqueued_time_utc == dead.enqueued_time_utc
            receiver.complete_message(letter)


def test_ten_thousand_idle_sessions_wake_nobody(app, broker):
    host = broker(config={"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
        {"Name": "q", "Properties": {"RequiresSession": True, "DefaultMessageTimeToLive": "P10D"}}]}]}})
    with client(host) as bus, bus.get_queue_sender("q") as sender:
        for batch in range(50):
            sender.send_messages([ServiceBusMessage("x", session_id=f"{batch}.{n}") for n in range(200)])

    def switches():
        tasks = pathlib.Path(f"/proc/{host.process.pid}/task").iterdir()
        return {task.name: (task / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0] for task in tasks}

    def sleeps():
        before = switches()
        time.sleep(2)
        return switches() == before

    until(sleeps, "two seconds in which no thread of the host wakes")


def test_two_hosts_do_not_share_a_store(app, broker, start):
    broker()
    second = start(app, "--servicebus-port", "0")
    assert second.info.get("serviceBusPort") is None
    until(lambda: "AN8001" in second.printed(), "the second host's complaint")


def test_a_store_cut_short_is_recovered_and_said_so(app, broker):
    host = broker(config=servicebus_scenarios.CONFIG)
    with client(host) as bus, bus.get_queue_sender("plain") as sender:
        for number in range(5):
            sender.send_messages(ServiceBusMessage(str(number)))
    host.stop()
    log = app.folder / ".andiron" / "servicebus" / "0000000001.log"
    # Behind the last commit lies room in zeros; the cut is into the commit itself.
    os.truncate(log, len(log.read_bytes().rstrip(b"\0")) - 3)
    host = broker()
    until(lambda: "recovered up to the last commit" in host.printed() + json.dumps(host.records()), "the recovery")
    with client(host) as bus, bus.get_queue_receiver("plain") as receiver:
        assert [str(m) for m in receiver.peek_messages(10)] == ["0", "1", "2", "3"]


def test_topics_give_each_subscription_what_its_rules_take(app, broker):
    def rule(name, **properties):
        return {"Name": name, "Properties": properties}

    config = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Topics": [{
        "Name": "news", "Properties": {}, "Subscriptions": [
            {"Name": "all"},
            {"Name": "red", "Rules": [rule(
                "r", FilterType="Correlation", CorrelationFilter={"Label": "x", "Properties": {"color": "red"}})]},
            {"Name": "large", "Rules": [rule(
                "l", FilterType="Sql", SqlFilter={"SqlExpression": "size > 10 AND sys.Label LIKE 'x%'"},
                Action={"SqlExpression": "SET tagged = 'yes'"})]},
        ]}]}]}}
    host = broker(config=config)
    for _ in range(2):
        with client(host) as bus:
            with bus.get_topic_sender("news") as sender:
                sender.send_messages([
                    ServiceBusMessage("1", subject="x", application_properties={"color": "red", "size": 5}),
                    ServiceBusMessage("2", subject="xy", application_properties={"color": "red", "size": 50}),
                    ServiceBusMessage("3", subject="y")])
            for name, expected in (("all", ["1", "2", "3"]), ("red", ["1"]), ("large", ["2"])):
                with bus.get_subscription_receiver("news", name) as receiver:
                    messages = []
                    while len(messages) < len(expected):
                        messages += receiver.receive_messages(3, max_wait_time=10)
                    assert [str(m) for m in messages] == expected
                    if name == "large":
                        properties = messages[0].application_properties
                        assert properties.get(b"tagged", properties.get("tagged")) in (b"yes", "yes")
                    for message in messages:
                        receiver.complete_message(message)
        host.stop()
        host = broker()
