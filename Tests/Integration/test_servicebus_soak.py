"""The message log under everything at once, killed at random moments, compared with a model of what was acknowledged.

A minute in CI; ANDIRON_SOAK_SECONDS asks for more, ANDIRON_SOAK_SEED repeats a run's choices.
"""

import collections
import datetime
import json
import os
import random
import signal
import threading
import time

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue
from conftest import until

SECONDS = float(os.environ.get("ANDIRON_SOAK_SECONDS", "45"))
SEED = int(os.environ.get("ANDIRON_SOAK_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
SEGMENT = 64 << 20
QUEUES = ("small", "large", "mixed", "later")

CONFIG = {"UserConfig": {"Namespaces": [{"Name": "sbemulatorns", "Queues": [
    {"Name": name, "Properties": {
        "LockDuration": "PT5M", "MaxDeliveryCount": 2000, "DefaultMessageTimeToLive": "P1D",
        "RequiresDuplicateDetection": name == "mixed", "DuplicateDetectionHistoryTimeWindow": "PT20S"}}
    for name in QUEUES]}]}}

ACTIVE, DEAD, DEFERRED, SCHEDULED, GONE = "active", "dead", "deferred", "scheduled", "gone"


class Killed(Exception):
    """The host went away under an operation, which may or may not have happened."""


class Model:
    """What may be true of each message of a queue: the set of states it can be in."""

    def __init__(self):
        self.states = {}
        self.number = {}  # of deferred and scheduled messages, to ask for them
        self.order = []  # active messages in the order their sends were answered
        self.seen = {}  # the sequence number each was received under

    def may(self, name, *states):
        self.states[name] = set(states)

    def be(self, name, state):
        self.states[name] = {state}

    def check(self, name, state):
        allowed = self.states.get(name)
        assert allowed and state in allowed, f"{name} is {state}; the model allows {allowed}"


class Worker(threading.Thread):
    """One user of one queue, who does everything with it and remembers what was answered."""

    def __init__(self, soak, name, seed):
        super().__init__(daemon=True)
        self.soak, self.queue, self.random, self.model = soak, name, random.Random(seed), Model()
        self.count = 0
        self.operations = 0
        self.failure = None

    def run(self):
        try:
            while not self.soak.over.is_set():
                generation = self.soak.wait_for_host()
                if generation is None:
                    return
                try:
                    self.live(generation)
                except Killed:
                    self.soak.wait_until_dead(generation)
        except BaseException as error:
            self.failure = error
            self.soak.over.set()

    def attempt(self, generation, operation, *arguments, **options):
        try:
            return operation(*arguments, **options)
        except Exception as error:
            if self.soak.is_dying(generation):
                raise Killed from error
            raise

    def live(self, generation):
        bus = ServiceBusClient.from_connection_string(self.soak.address, retry_total=0)
        try:
            sender = bus.get_queue_sender(self.queue)
            receiver = bus.get_queue_receiver(self.queue)
            # Opened now: a call that opens its link gives that only the call's own time.
            self.attempt(generation, sender.__enter__)
            self.attempt(generation, receiver.__enter__)
            while not self.soak.over.is_set() and self.soak.generation == generation:
                choice = self.random.random()
                act = self.send if choice < 0.45 else self.receive if choice < 0.85 else self.schedule \
                    if choice < 0.93 else self.take_deferred
                act(generation, sender, receiver)
                self.operations += 1
        finally:
            # Saying goodbye to a host that was killed fails, and may.
            try:
                bus.close()
            except Exception:
                pass

    def message(self):
        self.count += 1
        name = f"{self.queue}.{self.count}"
        size = {"small": 200, "large": 120_000, "later": 20_000}.get(self.queue) or self.random.choice((50, 5_000, 200_000))
        return name, ServiceBusMessage(b"x" * size, message_id=name)

    def send(self, generation, sender, receiver):
        # A batch is one commit: all of it, or nothing.
        batch, names = sender.create_message_batch(), []
        for _ in range(self.random.randint(1, 20)):
            name, message = self.message()
            try:
                batch.add_message(message)
            except ValueError:
                break
            names.append(name)
            self.model.may(name, ACTIVE, GONE)
        self.attempt(generation, sender.send_messages, batch)
        for name in names:
            self.model.be(name, ACTIVE)
        self.model.order += names
        if self.queue == "mixed" and self.random.random() < 0.2:
            # A second one of the same id is answered like the first, and dropped.
            self.attempt(generation, sender.send_messages, ServiceBusMessage(b"again", message_id=names[0]))

    def receive(self, generation, sender, receiver):
        messages = self.attempt(generation, receiver.receive_messages, 30, max_wait_time=0.2)
        for message in messages:
            name = message.message_id
            self.model.check(name, ACTIVE)
            assert b"".join(message.body) != b"again"
            first = self.model.seen.setdefault(name, message.sequence_number)
            assert first == message.sequence_number, f"{name} had number {first} and has {message.sequence_number}"
            choice = self.random.random()
            if choice < 0.7:
                settle, after = receiver.complete_message, GONE
            elif choice < 0.8:
                settle, after = receiver.abandon_message, ACTIVE
            elif choice < 0.9:
                settle, after = receiver.dead_letter_message, DEAD
            else:
                settle, after = receiver.defer_message, DEFERRED
                self.model.number[name] = message.sequence_number
            self.model.may(name, ACTIVE, after)
            self.attempt(generation, settle, message)
            self.model.be(name, after)

    def schedule(self, generation, sender, receiver):
        name, message = self.message()
        self.model.may(name, SCHEDULED, ACTIVE, GONE)
        delay = self.random.choice((0.5, 3, 3600))
        when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=delay)
        number, = self.attempt(generation, sender.schedule_messages, message, when)
        if delay < 3600:
            self.model.may(name, SCHEDULED, ACTIVE)
            return
        self.model.be(name, SCHEDULED)
        if self.random.random() < 0.5:
            self.model.may(name, SCHEDULED, GONE)
            self.attempt(generation, sender.cancel_scheduled_messages, number)
            self.model.be(name, GONE)

    def take_deferred(self, generation, sender, receiver):
        deferred = [name for name, states in self.model.states.items() if states == {DEFERRED}][:10]
        if not deferred:
            return
        numbers = [self.model.number[name] for name in deferred]
        messages = self.attempt(generation, receiver.receive_deferred_messages, numbers)
        assert sorted(m.message_id for m in messages) == sorted(deferred)
        for message in messages:
            self.model.may(message.message_id, DEFERRED, GONE)
            self.attempt(generation, receiver.complete_message, message)
            self.model.be(message.message_id, GONE)


class Soak:
    def __init__(self, app, start):
        self.app, self.start = app, start
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.generation = 0
        self.dying = set()
        self.kills = 0
        self.host = None

    def begin(self):
        host = self.start(self.app, "--servicebus-port", "0")
        with self.changed:
            self.host, self.address = host, host.info["serviceBus"]
            self.generation += 1
            self.changed.notify_all()

    def kill(self):
        self.dying.add(self.generation)
        self.host.process.send_signal(signal.SIGKILL)
        self.host.process.wait()
        self.kills += 1

    def is_dying(self, generation):
        return generation in self.dying

    def wait_for_host(self):
        with self.changed:
            self.changed.wait_for(lambda: self.over.is_set() or self.generation not in self.dying, timeout=60)
            return None if self.over.is_set() else self.generation

    def wait_until_dead(self, generation):
        with self.changed:
            self.changed.wait_for(lambda: self.over.is_set() or self.generation > generation, timeout=60)

    def bytes_on_disk(self):
        folder = self.app.folder / ".andiron" / "servicebus"
        return sum(file.stat().st_size for file in folder.glob("*.log"))


def everything(bus, queue):
    """All messages of a queue by state, peeked."""
    found = []
    for sub_queue in (None, ServiceBusSubQueue.DEAD_LETTER):
        with bus.get_queue_receiver(queue, sub_queue=sub_queue) as receiver:
            start = 1
            while messages := receiver.peek_messages(100, sequence_number=start):
                for message in messages:
                    state = DEAD if sub_queue else {0: ACTIVE, 1: DEFERRED, 2: SCHEDULED}[message.state.value]
                    found.append((message.message_id, state, message.sequence_number))
                start = messages[-1].sequence_number + 1
    return found


def compare(worker, found):
    """What the queue holds against what it must and may hold."""
    there = {}
    for name, state, _ in found:
        assert name not in there, f"{name} is there twice: {there[name]} and {state}"
        there[name] = state
        worker.model.check(name, state)
    for name, states in worker.model.states.items():
        assert name in there or GONE in states, (
            f"{name} is lost; it was {states}; there are {collections.Counter(there.values())}")
    # Numbers rise in the order sends were answered, over restarts too.
    numbers = {name: number for name, state, number in found if state in (ACTIVE, DEAD, DEFERRED)}
    numbers.update(worker.model.seen)
    known = [numbers[name] for name in worker.model.order if name in numbers]
    assert known == sorted(set(known)), "sequence numbers do not rise"


def test_soak(app, start):
    print("seed", SEED)
    chance = random.Random(SEED)
    app.write("Config.json", json.dumps(CONFIG))
    soak = Soak(app, start)
    soak.begin()
    workers = [Worker(soak, name, chance.random()) for name in QUEUES]
    for worker in workers:
        worker.start()
    end = time.monotonic() + SECONDS
    largest = 0
    while time.monotonic() < end and not soak.over.is_set():
        soak.over.wait(min(chance.uniform(3, 9), max(0, end - time.monotonic())))
        if not soak.over.is_set():
            soak.kill()
            largest = max(largest, soak.bytes_on_disk())
            soak.begin()
    soak.over.set()
    with soak.changed:
        soak.changed.notify_all()
    for worker in workers:
        worker.join(30)
    for worker in workers:
        if worker.failure:
            raise AssertionError(f"seed {SEED}, queue {worker.queue}") from worker.failure
    soak.kill()
    soak.begin()
    printed = soak.host.printed()
    assert "recovered up to the last commit" not in printed or soak.kills
    segments = [int(file.stem) for file in (app.folder / ".andiron" / "servicebus").glob("*.log")]
    with ServiceBusClient.from_connection_string(soak.address) as bus:
        for worker in workers:
            compare(worker, everything(bus, worker.queue))
        # Emptied, the log shrinks to what a few segments hold.
        for worker in workers:
            for sub_queue in ("", "/$DeadLetterQueue"):
                answer = soak.host.post("/admin/servicebus/purge", {"queue": worker.queue + sub_queue})
                assert answer.status == 200, answer.text
            assert everything(bus, worker.queue) == []
        with bus.get_queue_sender("small") as sender, bus.get_queue_receiver(
                "small", receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE) as receiver:
            sender.send_messages(ServiceBusMessage("last", message_id="last"))
            last, = receiver.receive_messages(1, max_wait_time=10)
            assert last.sequence_number > max(workers[0].model.seen.values(), default=0)
    until(lambda: soak.bytes_on_disk() <= 3 * SEGMENT, "the log to shrink")
    total = sum(worker.operations for worker in workers)
    print(f"{total} operations, {sum(w.count for w in workers)} messages, {soak.kills} kills, "
          f"segment {max(segments)}, {largest >> 20} MiB at most")
    assert soak.kills >= 3 and total > 100 and max(segments) >= 2
