"""Runs one Azure ML entry script for Andiron: init() once, run() for every frame that comes in.

The host speaks to it over the socket on descriptor 3; the frames are described beside the other end,
in Sources/Workers/WorkerFrame.swift. Descriptor 4 is shared memory whose first word names the request
that is running, so that the host knows what a crash interrupted. Standard output and error belong to
the user's code. Semantics follow the Azure ML inference server 1.5 (docs/reference/entry-scripts.md).
"""

import ctypes
import importlib.machinery
import importlib.util
import inspect
import io
import json
import logging
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
import types

# Frame kinds; host to worker below 16, worker to host from 16 on.
INVOKE, INVOKE_HTTP, STOP = 1, 2, 3
READY, INIT_FAILED, RESULT, LOG, PHASE = 16, 17, 18, 19, 20

FRAME = struct.Struct("<IBI")  # length of all that follows the length, kind, request id
RESULT_HEAD = struct.Struct("<HBQHII")  # status, flags, run ns, lengths: content type, headers, failure
JSON_TYPE = b"application/json"
RESULT_FRAME = struct.Struct("<IBIHBQHII")  # both of the above, for the usual answer
RESULT_FRAME_EXTRA = 5 + RESULT_HEAD.size + len(JSON_TYPE)  # what the frame's length counts beside the body
RUN_FAILED = 1
READ_SIZE = 1 << 18
FLUSH_BYTES = 1 << 18
FLUSH_NANOSECONDS = 1_000_000  # a reply never waits longer than this for later ones
LOG_BYTES_PER_REQUEST = 1 << 20  # printed text kept for one request; the rest is counted
TREE_LINES = 200  # lines of the model folder's listing in an init failure

SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."

clock = time.perf_counter_ns
encode_json = json.JSONEncoder().encode  # what json.dumps() does, without looking at its options each time
is_forked_child = False  # set in a process that user code forked


class Channel:
    """The socket to the host: frames in, frames out, many of each per system call."""

    def __init__(self, descriptor):
        self.socket = socket.socket(fileno=descriptor)
        self.socket.setblocking(True)
        self.out = []
        self.size = 0
        self.flushed = clock()
        self.request = 0
        self.has_text = False  # some stream holds an unfinished line

    def send(self, kind, request, *parts):
        length = 5 + sum(map(len, parts))
        self.out.append(FRAME.pack(length, kind, request))
        self.out.extend(parts)
        self.size += length + 4
        if self.size > FLUSH_BYTES:
            self.flush()

    def flush(self):
        if self.out:
            data = self.out[0] if len(self.out) == 1 else b"".join(self.out)
            self.out = []
            self.size = 0
            self.socket.sendall(data)
        self.flushed = clock()


class LogStream(io.TextIOBase):
    """A text stream whose lines reach the log of the request that is running."""

    def __init__(self, channel, level):
        self.channel = channel
        self.level = level
        self.line = ""
        self.request = 0
        self.sent = 0
        self.skipped = 0

    def writable(self):
        return True

    def write(self, text):
        if is_forked_child:
            return len(text)  # a forked child has no log
        self.channel.has_text = True
        self.line += text
        if "\n" in self.line:
            *lines, self.line = self.line.split("\n")
            for line in lines:
                self.emit(line)
        return len(text)

    def emit(self, line):
        request = self.channel.request
        if request != self.request:
            self.finish()
            self.request = request
        data = line.encode("utf-8", "replace")
        if self.sent + len(data) > LOG_BYTES_PER_REQUEST:
            self.skipped += 1
            return
        self.sent += len(data) + 1
        self.channel.send(LOG, request, bytes((self.level,)), data)

    def finish(self):
        """Ends the running request's text: an unfinished line, and how many lines were left out."""
        if self.line:
            line, self.line = self.line, ""
            self.emit(line)
        if self.skipped:
            note = f"({self.skipped} lines skipped: more than {LOG_BYTES_PER_REQUEST} bytes in one request)"
            self.channel.send(LOG, self.request, bytes((3,)), note.encode())
        self.sent = self.skipped = 0


class LogHandler(logging.Handler):
    """Sends records of the logging module with their level."""

    def __init__(self, stream_by_level):
        super().__init__()
        self.streams = stream_by_level
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record):
        level = 4 if record.levelno >= 40 else 3 if record.levelno >= 30 else 2 if record.levelno >= 20 else 1
        for line in self.format(record).splitlines():
            self.streams[level].emit(line)


class ScriptError(Exception):
    """The entry script cannot be used; the message says why."""


def user_traceback(error):
    """The traceback from the user's first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip()


def describe(error):
    """The exception in one line, as Python's last traceback line has it."""
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]


class Script:
    """The user's module and how its run() wants to be called."""

    def __init__(self, path, root):
        self.path = path
        self.root = root
        for folder in (os.path.dirname(path), root):
            if folder not in sys.path:
                sys.path.insert(0, folder)
        install_model_lookup()
        if not os.path.exists(path):
            raise ScriptError(f"the entry script '{path}' does not exist")
        spec = importlib.util.spec_from_file_location("entry_module", path)
        self.module = importlib.util.module_from_spec(spec)
        sys.modules["entry_module"] = self.module
        spec.loader.exec_module(self.module)
        for name in ("init", "run"):
            if not callable(getattr(self.module, name, None)):
                raise ScriptError(f"User script at {path} does not have a {name}() function defined.")
        driver = getattr(self.module, "driver_module", None)
        owner = driver if isinstance(driver, types.ModuleType) and hasattr(driver, "run") else self.module
        self.run = owner.run
        self.inspect_run()

    def inspect_run(self):
        parameters = list(inspect.signature(self.run).parameters.values())
        if any(p.kind not in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
            raise ScriptError("run() cannot accept positional-only arguments, *args, or **kwargs.")
        self.wants_headers = any(p.name == "request_headers" for p in parameters)
        self.parameters = [p for p in parameters if p.name != "request_headers"]
        if not self.parameters:
            other = ' other than "request_headers".' if self.wants_headers else " for input data."
            raise ScriptError("run() needs to accept an argument" + other)
        services = sys.modules.get("azureml.contrib.services.aml_request")
        raw = bool(getattr(services, "_rawHttpRequested", False))
        self.schema = sys.modules.get("inference_schema.schema_util")
        decorated = self.schema is not None and self.schema.is_schema_decorated(self.run)
        if raw and decorated:
            raise ScriptError("run() cannot be decorated with both @rawhttp and @input_schema")
        self.mode = "rawhttp" if raw else "schema" if decorated else "text"

    def swaggers(self):
        """The OpenAPI documents by version, or the user's own files in their place."""
        if self.mode == "schema":
            versions = self.schema.get_supported_versions(self.run)
            schemas = self.schema.get_input_schema(self.run), self.schema.get_output_schema(self.run)
        else:
            versions = ["2.0", "3.0", "3.1"]
            schemas = ({"type": "object", "example": {}},) * 2
        supported = {str(v).removesuffix(".0") for v in versions}
        documents = {v: swagger(v, *schemas) for v in ("2", "3", "3.1") if v in supported}
        for version, names in (("2", ("swagger.json", "swagger2.json")), ("3", ("swagger3.json",)), ("3.1", ("swagger3.1.json",))):
            for name in names:
                path = os.path.join(self.root, name)
                if os.path.exists(path):
                    with open(path, encoding="utf-8") as file:
                        documents[version] = json.load(file)
                    break
        return documents


def swagger(version, input_schema, output_schema):
    """An OpenAPI document for a scoring service, in version 2, 3 or 3.1."""
    prefix = os.environ.get("SERVICE_PATH_PREFIX", "").strip("/")
    prefix = "/" + prefix if prefix else ""
    definitions = {
        "ServiceInput": input_schema,
        "ServiceOutput": output_schema,
        "ErrorResponse": {"type": "object", "properties": {"message": {"type": "string"}}},
    }
    where = "#/definitions/" if version == "2" else "#/components/schemas/"

    def reference(name):
        return {"$ref": where + name}

    def response(text, schema, kind):
        if version == "2":
            return {"description": text, "schema": schema}
        return {"description": text, "content": {kind: {"schema": schema}}}

    failure = response("If there is an error, the message says what failed.", reference("ErrorResponse"), "application/json")
    health = {
        "operationId": "ServiceHealthCheck",
        "description": "Simple health check endpoint to ensure the service is up at any given point.",
        "responses": {"200": response("If service is up and running.", {"type": "string"}, "text/plain"), "default": failure},
    }
    score = {
        "operationId": "RunMLService",
        "description": "Run web service's model and get the prediction output",
        "security": [{"Bearer": []}],
        "responses": {
            "200": response("The service processed the input correctly.", reference("ServiceOutput"), "application/json"),
            "default": failure,
        },
    }
    if version == "2":
        score["parameters"] = [
            {"name": "serviceInputPayload", "in": "body", "required": True, "schema": reference("ServiceInput")}
        ]
    else:
        score["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": reference("ServiceInput")}},
        }
    document = {"swagger": "2.0"} if version == "2" else {"openapi": "3.0.3" if version == "3" else "3.1.0"}
    document["info"] = {
        "title": os.environ.get("SERVICE_NAME", "ML service"),
        "description": "API specification for the Azure Machine Learning service " + os.environ.get("SERVICE_NAME", "ML service"),
        "version": os.environ.get("SERVICE_VERSION", "1.0"),
    }
    bearer = {"type": "apiKey", "name": "Authorization", "in": "header", "description": "For example: Bearer abc123"}
    if version == "2":
        document.update(schemes=["https"], consumes=["application/json"], produces=["application/json"])
        document.update(securityDefinitions={"Bearer": bearer}, definitions=definitions)
    else:
        document["components"] = {"securitySchemes": {"Bearer": bearer}, "schemas": definitions}
    document["paths"] = {prefix + "/": {"get": health}, prefix + "/score": {"post": score}}
    return document


class ModelFinder:
    """Stands in for azureml.core.model when azureml-core is not installed: Model.get_model_path only."""

    names = {"azureml", "azureml.core", "azureml.core.model"}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.names:
            return importlib.machinery.ModuleSpec(name, cls, is_package=name != "azureml.core.model")
        return None

    @staticmethod
    def create_module(spec):
        return None

    @staticmethod
    def exec_module(module):
        if module.__name__ == "azureml.core.model":
            module.Model = type("Model", (), {"get_model_path": staticmethod(model_path)})
        elif module.__name__ == "azureml.core":
            module.Model = importlib.import_module("azureml.core.model").Model


def install_model_lookup():
    sys.meta_path.append(ModelFinder)


def model_path(model_name, version=None, _workspace=None):
    """The path of a registered model, as azureml.core.model.Model.get_model_path finds it."""
    folder = os.environ.get("AZUREML_MODEL_DIR", "")
    candidates = [os.path.join(folder, model_name)]
    registered = os.path.join(os.environ.get("AML_APP_ROOT", "."), "azureml-models", model_name)
    if os.path.isdir(registered):
        versions = sorted((v for v in os.listdir(registered) if v.isdigit()), key=int)
        if version is not None or versions:
            candidates.insert(0, os.path.join(registered, str(version if version is not None else versions[-1])))
    if os.path.basename(os.path.dirname(folder)) == model_name:
        candidates.insert(0, folder)
    for candidate in candidates + [model_name]:
        if os.path.isdir(candidate) and len(os.listdir(candidate)) == 1:
            return os.path.join(candidate, os.listdir(candidate)[0])
        if os.path.exists(candidate):
            return candidate
    raise FileNotFoundError(f"Model {model_name} not found in cache at {registered} or in {folder}")


def model_tree():
    """A listing of the model folder, for init() failures."""
    root = os.environ.get("AZUREML_MODEL_DIR", "")
    lines = [f"Model Directory Contents: {root}"]
    for folder, folders, files in os.walk(root):
        folders.sort()
        depth = folder[len(root) :].count(os.sep)
        lines.append("    " * depth + os.path.basename(folder) + "/")
        lines.extend("    " * (depth + 1) + name for name in sorted(files))
        if len(lines) > TREE_LINES:
            return "\n".join(lines[:TREE_LINES] + ["    …"])
    return "\n".join(lines)


class BadRequest(Exception):
    """The request cannot be given to run(); status and the Azure ML server's words."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def query_arguments(query):
    """The JSON text that run() gets for GET /score?a=1: values are JSON where they parse as it."""
    from urllib.parse import parse_qs

    def value(text):
        try:
            return json.loads(text)
        except ValueError:
            return text

    pairs = parse_qs(query, keep_blank_values=True)
    return json.dumps({k: value(v[0]) if len(v) == 1 else [value(x) for x in v] for k, v in pairs.items()})


def schema_arguments(script, text):
    """The keyword arguments in a JSON body for a decorated run()."""
    if not text:
        raise BadRequest(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BadRequest(400, f"POST body could not be decoded as JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest(400, "POST body should be a JSON dictionary.")
    arguments = {}
    for parameter in script.parameters:
        if parameter.name in body:
            arguments[parameter.name] = body[parameter.name]
        elif parameter.default is parameter.empty:
            raise BadRequest(400, f"A value is not provided for the '{parameter.name}' parameter.")
    return arguments


def flask_request(head, body):
    """A Flask request for @rawhttp scripts, without a web server around it."""
    from flask import Request

    environ = {
        "REQUEST_METHOD": head["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": head["path"].encode("utf-8").decode("latin-1"),
        "QUERY_STRING": head["query"] or "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in head["headers"]:
        key = name.upper().replace("-", "_")
        if key == "CONTENT_TYPE":
            environ["CONTENT_TYPE"] = value
        elif key not in ("CONTENT_LENGTH", "TRANSFER_ENCODING"):
            key = "HTTP_" + key
            environ[key] = environ[key] + "," + value if key in environ else value
    return Request(environ)


class Server:
    """Takes frames, calls run(), sends results."""

    def __init__(self, channel, script, streams, running):
        self.channel = channel
        self.script = script
        self.streams = streams
        self.running = running

    def call(self, kind, payload):
        """Status, flags, nanoseconds, content type, headers, failure and body of one request."""
        script = self.script
        headers = None
        if kind == INVOKE:
            argument = payload
            method = "POST"
        else:
            (length,) = struct.unpack_from("<I", payload)
            head = json.loads(payload[4 : 4 + length])
            argument = payload[4 + length :]
            method = head["method"]
            if script.mode == "rawhttp":
                argument = flask_request(head, argument)
            elif method == "GET":
                argument = query_arguments(head["query"] or "").encode()
            if script.wants_headers:
                headers = dict(head["headers"])
        keywords = {"request_headers": headers or {}} if script.wants_headers else {}
        if script.mode != "rawhttp":
            try:
                argument = argument.decode()
            except UnicodeDecodeError as error:
                raise BadRequest(400, f"Input cannot be decoded as UTF-8: {error}") from None
        if script.mode == "schema":
            keywords.update(schema_arguments(script, argument))
            start = clock()
            value = script.run(**keywords)
        else:
            start = clock()
            value = script.run(argument, **keywords)
        return self.result(value, clock() - start)

    def result(self, value, elapsed):
        flask = sys.modules.get("flask")
        if flask is not None and isinstance(value, flask.Response):
            failed = value.status_code >= 500 or value.headers.get("x-ms-run-function-failed") == "True"
            lines = [
                f"{name}: {text}\r\n"
                for name, text in value.headers.items()
                if name.lower() not in ("content-length", "content-type", "x-ms-run-function-failed", "connection", "date")
                and "\r" not in text and "\n" not in text
            ]
            kind = value.headers.get("Content-Type", "")
            return value.status_code, failed, elapsed, kind, "".join(lines), None, value.get_data()
        try:
            body = b"{}" if value is None else encode_json(value).encode()
        except (TypeError, ValueError) as error:
            return self.not_json(error)
        return 200, False, elapsed, "application/json", "", None, body

    def handle(self, kind, request, payload):
        self.channel.request = self.running[0] = request
        start = clock()
        try:
            outcome = self.call(kind, payload)
        except BaseException as error:  # SystemExit and KeyboardInterrupt must not end the worker
            outcome = self.failed(error, payload, start)
        self.finish(request, outcome)

    def failed(self, error, payload, start):
        """The outcome of an exception, the user's or ours."""
        if isinstance(error, BadRequest):
            return error.status, False, 0, "application/json", "", None, message(str(error))
        if isinstance(error, UnicodeDecodeError) and error.object == payload:
            text = f"Input cannot be decoded as UTF-8: {error}"
            return 400, False, 0, "application/json", "", None, message(text)
        if isinstance(error, (TypeError, ValueError)) and error.__traceback__.tb_next is not None:
            # Raised below json's encoder, not below run(): the result is not JSON.
            frame = error.__traceback__.tb_next.tb_frame
            if frame.f_code is json.JSONEncoder.encode.__code__:
                return self.not_json(error)
        if isinstance(error, SystemExit):
            text = f"the entry script called sys.exit({error.code!r}) in run()"
        else:
            text = describe(error)
        failure = {"code": "AN4004", "message": text, "traceback": user_traceback(error)}
        return 500, True, clock() - start, "application/json", "", failure, message(SCRIPT_ERROR)

    @staticmethod
    def not_json(error):
        failure = {
            "code": "AN4005",
            "message": f"run() returned a value that is not JSON: {error}",
            "remedy": "return lists, dicts, numbers and strings; for an array use .tolist()",
        }
        return 500, False, 0, "application/json", "", failure, message(INTERNAL_ERROR)

    def finish(self, request, outcome):
        channel = self.channel
        if is_forked_child:
            os._exit(0)  # run() forked and this is the child: the parent answers
        self.finish_text()
        status, failed, elapsed, content_type, headers, failure, body = outcome
        content_type = content_type.encode("latin-1", "replace")
        headers = headers.encode("latin-1", "replace")
        failure = json.dumps(failure).encode() if failure else b""
        head = RESULT_HEAD.pack(
            status, RUN_FAILED if failed else 0, elapsed, len(content_type), len(headers), len(failure)
        )
        channel.send(RESULT, request, head, content_type, headers, failure, body)
        channel.request = 0
        if clock() - channel.flushed > FLUSH_NANOSECONDS:
            channel.flush()

    def finish_text(self):
        if self.channel.has_text:
            self.channel.has_text = False
            for stream in self.streams:
                if stream.line or stream.skipped:
                    stream.finish()

    def handle_text(self, kind, request, payload):
        """The usual case, text in and JSON out, in as few steps as there are; all else goes to handle()."""
        channel = self.channel
        if kind != INVOKE:
            return self.handle(kind, request, payload)
        channel.request = self.running[0] = request
        start = clock()
        try:
            value = self.run(payload.decode())
            elapsed = clock() - start
            body = encode_json(value).encode() if value is not None else b"{}"
        except BaseException as error:
            if is_forked_child:
                os._exit(0)
            return self.finish(request, self.failed(error, payload, start))
        if is_forked_child:
            os._exit(0)
        if channel.has_text:
            self.finish_text()
        channel.out.append(
            RESULT_FRAME.pack(RESULT_FRAME_EXTRA + len(body), RESULT, request, 200, 0, elapsed, 16, 0, 0) + JSON_TYPE + body
        )
        channel.size += len(body) + 64
        channel.request = 0
        if clock() - channel.flushed > FLUSH_NANOSECONDS or channel.size > FLUSH_BYTES:
            channel.flush()

    def serve(self):
        is_plain = self.script.mode == "text" and not self.script.wants_headers and "flask" not in sys.modules
        self.run = self.script.run
        handle = self.handle_text if is_plain else self.handle
        buffer = bytearray(READ_SIZE)
        view = memoryview(buffer)
        start = end = 0
        while True:
            count = self.channel.socket.recv_into(view[end:])
            if count == 0:
                return  # the host is gone
            end += count
            self.channel.flushed = clock()
            while end - start >= 9:
                length, kind, request = FRAME.unpack_from(buffer, start)
                if end - start < 4 + length:
                    break
                payload = bytes(view[start + 9 : start + 4 + length])
                start += 4 + length
                if kind == STOP:
                    self.channel.flush()
                    return
                handle(kind, request, payload)
            if start == end:
                start = end = 0
            else:
                needed = 4 + FRAME.unpack_from(buffer, start)[0] if end - start >= 9 else 9
                if start or needed > len(buffer):
                    fresh = bytearray(max(READ_SIZE, needed + READ_SIZE))
                    fresh[: end - start] = view[start:end]
                    buffer, view, start, end = fresh, memoryview(fresh), 0, end - start
            self.channel.flush()
            self.running[0] = 0  # only now: until the replies are out, a crash has interrupted something


def message(text):
    return json.dumps({"message": text}).encode()


def die_with_parent():
    """Asks the kernel to end this process when its parent ends, whatever ends the parent."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def forked():
    """In a child that user code forked: it dies with the worker and keeps nothing of the host's."""
    global is_forked_child
    is_forked_child = True
    die_with_parent()
    try:
        os.close(3)
    except OSError:
        pass


def limit_resources():
    megabytes = int(os.environ.get("ANDIRON_WORKER_MEMORY_MB", "0"))
    if megabytes:
        import resource

        # The host ends a worker by its resident size; this stops a single huge allocation before that.
        ceiling = (megabytes + 1024) << 20
        resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    cores = int(os.environ.get("ANDIRON_WORKER_CORES", "0"))
    available = sorted(os.sched_getaffinity(0))
    if 0 < cores < len(available):
        first = int(os.environ.get("ANDIRON_WORKER_INDEX", "0")) * cores % len(available)
        os.sched_setaffinity(0, {available[(first + i) % len(available)] for i in range(cores)})


def main():
    host = int(os.environ.pop("ANDIRON_HOST_PID"))
    die_with_parent()
    if os.getppid() != host:
        os._exit(1)
    os.register_at_fork(after_in_child=forked)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_resources()
    channel = Channel(3)
    running = memoryview(mmap.mmap(4, mmap.PAGESIZE)).cast("I")
    streams = {level: LogStream(channel, level) for level in (1, 2, 3, 4)}
    sys.stdout, sys.stderr = streams[2], streams[3]
    logging.basicConfig(level=logging.INFO, handlers=[LogHandler(streams)])
    path, root = sys.argv[1], sys.argv[2]
    try:
        start = clock()
        channel.send(PHASE, 0, b"import")
        channel.flush()
        script = Script(path, root)
        imported = clock()
        channel.send(PHASE, 0, b"init")
        channel.flush()
        script.module.init()
        done = clock()
        documents = script.swaggers()
    except BaseException as error:
        if is_forked_child:
            os._exit(0)
        if isinstance(error, SystemExit):
            text = f"the entry script called sys.exit({error.code!r}) while starting"
        else:
            text = str(error) if isinstance(error, ScriptError) else describe(error)
        details = {"message": text, "traceback": "" if isinstance(error, ScriptError) else user_traceback(error)}
        if isinstance(error, ModuleNotFoundError):
            details["missing"] = error.name
        if isinstance(error, OSError):
            details["tree"] = model_tree()
        for stream in streams.values():
            stream.finish()
        channel.send(INIT_FAILED, 0, json.dumps(details).encode())
        channel.flush()
        os._exit(3)
    if is_forked_child:
        os._exit(0)
    for stream in streams.values():
        stream.finish()
    ready = {
        "mode": script.mode,
        "wantsHeaders": script.wants_headers,
        "arguments": [p.name for p in script.parameters],
        "python": sys.version.split()[0],
        "import_ms": (imported - start) / 1e6,
        "init_ms": (done - imported) / 1e6,
        "swagger": {version: json.dumps(document) for version, document in documents.items()},
    }
    channel.send(READY, 0, json.dumps(ready).encode())
    channel.flush()
    Server(channel, script, list(streams.values()), running).serve()
    os._exit(0)


if __name__ == "__main__":
    main()
