#!/usr/bin/env python3
"""Writes the binary seeds of the fuzz targets `amqp` and `frames`: one for each value, section, performative and frame.

    python3 Tests/Fuzz/seeds.py

The encoder is its own, so that a mistake in the program's cannot hide in its seeds.
"""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


# AMQP 1.0 types, OASIS part 1, section 1.6. None is null.

def symbol(text):
    return b"\xa3" + bytes([len(text)]) + text.encode()


def text(value):
    data = value.encode()
    return b"\xa1" + bytes([len(data)]) + data if len(data) < 256 else b"\xb1" + struct.pack(">I", len(data)) + data


def binary(data):
    return b"\xa0" + bytes([len(data)]) + data if len(data) < 256 else b"\xb0" + struct.pack(">I", len(data)) + data


def ubyte(value):
    return b"\x50" + bytes([value])


def uint(value):
    return b"\x43" if value == 0 else b"\x52" + bytes([value]) if value < 256 else b"\x70" + struct.pack(">I", value)


def long(value):
    return b"\x55" + struct.pack(">b", value) if -128 <= value < 128 else b"\x81" + struct.pack(">q", value)


def timestamp(milliseconds):
    return b"\x83" + struct.pack(">q", milliseconds)


def truth(value):
    return b"\x41" if value else b"\x42"


def item(value):
    return b"\x40" if value is None else truth(value) if isinstance(value, bool) else value


def compound(small, large, values):
    body = b"".join(item(value) for value in values)
    if len(body) < 255 and len(values) < 256:
        return bytes([small, len(body) + 1, len(values)]) + body
    return bytes([large]) + struct.pack(">II", len(body) + 4, len(values)) + body


def listed(*values):
    return b"\x45" if not values else compound(0xC0, 0xD0, values)


def mapped(*pairs):
    return compound(0xC1, 0xD1, [part for pair in pairs for part in pair])


def array(code, values):
    body = bytes([code]) + b"".join(values)
    return b"\xf0" + struct.pack(">II", len(body) + 4, len(values)) + body


def described(code, value):
    return b"\x00\x53" + bytes([code]) + value


def performative(code, *fields):
    return described(code, listed(*fields))


# Frames, part 2, section 2.3.

def frame(body, channel=0, kind=0):
    return struct.pack(">IBBH", len(body) + 8, 2, kind, channel) + body


def sasl(body):
    return frame(body, kind=1)


SASL = b"AMQP\x03\x01\x00\x00"
AMQP = b"AMQP\x00\x01\x00\x00"
ANONYMOUS = sasl(performative(0x41, symbol("ANONYMOUS"), binary(b""), text("localhost")))
PLAIN = sasl(performative(0x41, symbol("PLAIN"), binary(b"\0user\0password"), text("localhost")))
MSSBCBS = sasl(performative(0x41, symbol("MSSBCBS"), binary(b""), text("localhost")))
OPEN = frame(performative(
    0x10, text("seed"), text("localhost"), uint(1048576), b"\x60\xff\xff", uint(60000), None, None, None, None,
    mapped((symbol("product"), text("seeds.py")))))


def begin(remote=None):
    channel = None if remote is None else b"\x60" + struct.pack(">H", remote)
    return frame(performative(0x11, channel, uint(0), uint(65536), uint(65536), uint(4999), None, None, None))


def error(condition="com.microsoft:dead-letter"):
    return performative(0x1D, symbol(condition), text("why"), mapped((symbol("DeadLetterReason"), text("bad"))))


def source(address, session=None):
    chosen = mapped((symbol("com.microsoft:session-filter"), text(session))) if session else None
    return performative(
        0x28, text(address), uint(2), symbol("session-end"), uint(0), False, None, None, chosen, None,
        array(0xA3, [symbol(f"amqp:{name}:list")[1:] for name in ("accepted", "rejected", "released", "modified")]), None)


def target(address):
    return performative(0x29, text(address), uint(0), symbol("session-end"), uint(0), False, None, None)


def attach(name, handle, receives, address, session=None):
    return frame(performative(
        0x12, text(name), uint(handle), receives, ubyte(0), ubyte(1 if receives else 0), source(address, session),
        target(address), None, None, None if receives else uint(0), b"\x80" + struct.pack(">Q", 262144), None, None, None))


def flow(handle=None, credit=None, drain=False, echo=False):
    return frame(performative(
        0x13, uint(0), uint(65536), uint(0), uint(65536), None if handle is None else uint(handle),
        None if handle is None else uint(0), None if credit is None else uint(credit), None, drain, echo, None))


def transfer(handle, payload, number=0, format=0, settled=False, more=False, aborted=False):
    return frame(performative(
        0x14, uint(handle), uint(number), binary(struct.pack(">I", number)), uint(format), settled, more, None, None,
        False, aborted, False) + payload)


def disposition(receives, state, first=0, last=0, settled=True):
    return frame(performative(0x15, receives, uint(first), uint(last), settled, state, False))


def detach(handle, reason=None):
    return frame(performative(0x16, uint(handle), True, reason))


END, CLOSE = frame(performative(0x17, None)), frame(performative(0x18, None))

# Sections of messages, part 3, section 3.2.

UUID = b"\x98" + bytes(range(16))
HEADER = performative(0x70, True, ubyte(4), uint(60000), False, uint(2))
DELIVERY = described(0x71, mapped((symbol("x-opt-lock-token"), UUID)))
ANNOTATIONS = described(0x72, mapped(
    (symbol("x-opt-partition-key"), text("p")), (symbol("x-opt-sequence-number"), long(1 << 40)),
    (symbol("x-opt-scheduled-enqueue-time"), timestamp(1767225600000))))
PROPERTIES = performative(
    0x73, text("id"), binary(b"user"), text("to"), text("subject"), text("reply"), UUID, symbol("text/plain"),
    symbol("utf-8"), timestamp(1767225600000), timestamp(0), text("session"), uint(7), text("other"))
OWN = described(0x74, mapped(
    (text("text"), text("v")), (text("long"), long(-5)), (text("half"), b"\x82" + struct.pack(">d", 0.5)),
    (text("yes"), True), (text("none"), None)))
DATA = described(0x75, binary(b"hello"))
SEQUENCE = described(0x76, listed(long(1), text("two"), None))
VALUE = described(0x77, mapped((text("a"), listed(True, False)), (text("b"), binary(b"\0\1"))))
FOOTER = described(0x78, mapped((symbol("f"), text("x"))))
MESSAGE = HEADER + PROPERTIES + OWN + DATA
BATCH = ANNOTATIONS + described(0x75, binary(PROPERTIES + DATA)) + described(0x75, binary(DATA))
BATCH_FORMAT = 0x80013700


def request(operation, body, kind="entity-mgmt", number="1", reply="$cbs"):
    return performative(0x73, text(number), None, text("$cbs"), None, text(reply)) + described(0x74, mapped(
        (text("operation"), text(operation)), (text("type"), text(kind)), (text("name"), text("sb://localhost/q")),
        (text("expiration"), timestamp(1767225600000)))) + described(0x77, body)


def values():
    return {
        "null": b"\x40", "true": b"\x41", "false": b"\x42", "boolean": b"\x56\x01", "ubyte": ubyte(9),
        "ushort": b"\x60\x01\x02", "uint0": b"\x43", "smalluint": b"\x52\x07", "uint": b"\x70\1\2\3\4", "ulong0": b"\x44",
        "smallulong": b"\x53\x07", "ulong": b"\x80\1\2\3\4\5\6\7\x08", "byte": b"\x51\xff", "short": b"\x61\xff\xfe",
        "smallint": b"\x54\xfe", "int": b"\x71\xff\xff\xff\xfe", "smalllong": b"\x55\xfe", "long": long(1 << 40),
        "float": b"\x72" + struct.pack(">f", 1.5), "double": b"\x82" + struct.pack(">d", -2.25), "char": b"\x73\0\1\xf6\0",
        "decimal32": b"\x74\0\0\0\1", "decimal64": b"\x84" + bytes(8), "decimal128": b"\x94" + bytes(16),
        "timestamp": timestamp(-1), "uuid": UUID, "binary": binary(b"\0\xff"), "binary32": binary(bytes(300)),
        "string": text("Grüße"), "string32": text("x" * 300), "symbol": symbol("amqp:accepted:list"),
        "symbol32": b"\xb3\0\0\0\1a", "list0": b"\x45", "list": listed(long(1), listed(None, True)),
        "list32": listed(*[long(n * 1000) for n in range(60)]), "map": mapped((text("a"), long(7)), (symbol("b"), None)),
        "map32": mapped(*[(text(f"key {n}"), uint(n)) for n in range(60)]),
        "array8": b"\xe0\x04\x02\x50\x01\x02", "array32": array(0x70, [struct.pack(">I", n) for n in (1, 2)]),
        "arrays": array(0xA1, [text(word)[1:] for word in ("one", "two")]), "described": described(0x1D, listed(None)),
        "named": b"\x00" + symbol("amqp:error:list") + listed(symbol("x"), text("y"), mapped()),
    }


def messages():
    return {
        "header": HEADER + DATA, "delivery": DELIVERY + DATA, "annotations": ANNOTATIONS + DATA,
        "properties": PROPERTIES + DATA, "own": OWN + DATA, "data": DATA + DATA, "sequence": SEQUENCE + SEQUENCE,
        "value": VALUE, "footer": DATA + FOOTER, "all": HEADER + DELIVERY + ANNOTATIONS + PROPERTIES + OWN + DATA + FOOTER,
        "batch": BATCH, "named": b"\x00" + symbol("amqp:data:binary") + binary(b"x"),
    }


def conversations():
    """What a client sends to a server, each up to the frame it is named for."""
    opened = SASL + ANONYMOUS + AMQP + OPEN
    began = opened + begin()
    sending = began + attach("s", 0, False, "q")
    taking = began + attach("r", 0, True, "q")
    granted = taking + flow(0, 5)
    node = began + attach("cr", 0, True, "$cbs") + attach("cs", 1, False, "$cbs") + flow(0, 100)
    half = MESSAGE[:20], MESSAGE[20:]
    return {
        "sasl-anonymous": SASL + ANONYMOUS, "sasl-plain": SASL + PLAIN + AMQP + OPEN, "sasl-mssbcbs": SASL + MSSBCBS + AMQP,
        "sasl-response": SASL + sasl(performative(0x43, binary(b"x"))), "plain-header": AMQP + OPEN, "open": opened,
        "empty-frame": opened + frame(b""), "begin": began, "begin-two": began + frame(begin()[8:], channel=1),
        "attach-sender": sending, "attach-receiver": taking, "attach-session": began + attach("r", 0, True, "q", "s1"),
        "attach-coordinator": began + frame(performative(
            0x12, text("t"), uint(0), False, ubyte(0), ubyte(0), source("x"), described(0x30, listed()), None, None, uint(0))),
        "flow": granted, "flow-session": began + flow(), "flow-drain": taking + flow(0, 5, drain=True),
        "flow-echo": granted + flow(0, 5, echo=True), "transfer": sending + transfer(0, MESSAGE),
        "transfer-settled": sending + transfer(0, MESSAGE, settled=True),
        "transfer-batch": sending + transfer(0, BATCH, format=BATCH_FORMAT),
        "transfer-split": sending + transfer(0, half[0], more=True) + transfer(0, half[1]),
        "transfer-aborted": sending + transfer(0, half[0], more=True) + transfer(0, b"", aborted=True) + transfer(0, MESSAGE, 1),
        "accepted": granted + disposition(True, performative(0x24)), "rejected": granted + disposition(
            True, performative(0x25, error()), settled=False),
        "released": granted + disposition(True, performative(0x26), 0, 4), "modified": granted + disposition(
            True, performative(0x27, True, True, mapped((symbol("k"), text("v")))), settled=False),
        "received": granted + disposition(True, performative(0x23, uint(0), b"\x44"), settled=False),
        "detach": sending + detach(0), "detach-error": granted + detach(0, error()), "end": sending + END,
        "close": sending + CLOSE, "close-error": opened + frame(performative(0x18, error("amqp:connection:forced"))),
        "claims": node + transfer(1, request("put-token", text("SharedAccessSignature sr=q&sig=x&se=1&skn=k"), "jwt")),
        "management": began + attach("mr", 0, True, "q/$management") + attach("ms", 1, False, "q/$management") + transfer(
            1, request("com.microsoft:renew-lock", mapped((text("lock-tokens"), array(0x98, [UUID[1:]]))))),
    }


def answers():
    """What a server sends to a client that attaches a receiver `r`, each up to the frame it is named for."""
    offered = SASL + sasl(performative(0x40, array(0xA3, [symbol(n)[1:] for n in ("MSSBCBS", "PLAIN", "ANONYMOUS")])))
    passed = offered + sasl(performative(0x44, ubyte(0), None))
    opened = passed + AMQP + OPEN
    began = opened + begin(0)
    attached = began + attach("r", 0, False, "q")
    return {
        "sasl-mechanisms": offered, "sasl-one": SASL + sasl(performative(0x40, symbol("ANONYMOUS"))),
        "sasl-outcome": passed, "sasl-refused": offered + sasl(performative(0x44, ubyte(1), None)),
        "sasl-challenge": offered + sasl(performative(0x42, binary(b"?"))), "open": opened, "begin": began,
        "attach": attached, "attach-refused": began + frame(performative(
            0x12, text("r"), uint(0), False, ubyte(0), ubyte(0), None, None, None, None, uint(0))) + detach(
                0, error("amqp:not-found")),
        "flow": attached + flow(0, 0), "flow-drained": attached + frame(performative(
            0x13, uint(0), uint(65536), uint(0), uint(65536), uint(0), uint(10), uint(0), None, True, False, None)),
        "transfer": attached + transfer(0, HEADER + DELIVERY + ANNOTATIONS + PROPERTIES + DATA),
        "transfer-split": attached + transfer(0, MESSAGE[:9], more=True) + transfer(0, MESSAGE[9:]),
        "disposition": attached + transfer(0, MESSAGE) + disposition(False, performative(0x24)),
        "detach": attached + detach(0, error("amqp:link:detach-forced")),
        "end": attached + frame(performative(0x17, error("amqp:internal-error"))),
        "close": attached + frame(performative(0x18, error("amqp:connection:forced"))),
    }


def worker_frames():
    """The frames a worker sends, Sources/Workers/WorkerFrame.swift."""
    def worker(kind, payload, number=7):
        return struct.pack("<IBI", len(payload) + 5, kind, number) + payload

    def document(**members):
        return json.dumps(members).encode()

    def result(status, flags, content_type, headers, failure, body):
        return struct.pack(
            "<HBQHII", status, flags, 5_000_000, len(content_type), len(headers), len(failure)
        ) + content_type + headers + failure + body

    ready = worker(16, document(
        mode="body", wantsHeaders=False, arguments=["data"], python="3.11.2", import_ms=1.5, init_ms=2, swagger={"3": "{}"}), 0)
    failed = worker(17, document(message="no module", traceback="Traceback", missing="numpy"), 0)
    answer = worker(18, result(200, 0, b"application/json", b"", b"", b"[1]"))
    raised = worker(18, result(400, 1, b"", b"X-A: b\r\n", document(code="AN4004", message="no good"), b""))
    line = worker(19, b"\x02a line")
    phase = worker(20, b"import", 0)
    return {
        "ready": ready, "init-failed": failed, "result": answer, "result-failed": raised, "log": line, "phase": phase,
        "all": phase + ready + line + answer + raised, "unknown": worker(21, b""), "short": struct.pack("<IBI", 4, 18, 0),
    }


def write(folder, seeds):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in seeds.items():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    kinds = [("value", values()), ("message", messages()), ("server", conversations()), ("client", answers())]
    # The first byte says what the target does with the rest.
    write(CORPUS / "amqp", {
        f"{kind}-{name}": bytes([mode]) + data for mode, (kind, seeds) in enumerate(kinds) for name, data in seeds.items()})
    write(CORPUS / "frames", worker_frames())
