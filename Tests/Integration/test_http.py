"""The HTTP trigger: routes, keys, limits, and requests that are not right."""

import json
import os
import socket
import time

import pytest

from conftest import andiron, until


def test_routes_methods_and_statuses(app, start):
    app.function("Echo", methods=["get", "post"])
    app.function("Item", route="items/{id:int}", methods=["get"])
    app.function("Rest", route="files/{*path}")
    host = start(app)
    assert host.post("/api/Echo", "hi").text == "hi"
    assert host.post("/API/echo/", "hi").text == "hi"
    assert host.call("PUT", "/api/Echo").status == 404
    assert host.call("GET", "/api/items/5").status == 200
    assert host.call("GET", "/api/items/x").status == 404
    assert host.call("DELETE", "/api/files/a/b/c").status == 200
    assert host.call("GET", "/api/nothing").status == 404
    assert host.call("GET", "/api/nothing").body == b""
    head = host.call("HEAD", "/api/files/x")
    assert head.status == 200 and head.body == b""
    home = host.call("GET", "/")
    assert home.status == 200 and "Your Azure Function App is up and running." in home.text


def test_a_prefix_headers_and_a_disabled_function(app, start):
    app.write("host.json", {"version": "2.0", "extensions": {"http": {"routePrefix": "v1", "customHeaders": {"X-Frame-Options": "DENY"}}}})
    app.function("Echo").function("Off")
    host = start(app, "--enable-auth", environment={"AzureWebJobs.Off.Disabled": "true", "AzureWebJobsDisableHomepage": "TRUE"})
    answer = host.post("/v1/Echo", "x")
    assert answer.status == 200 and answer.headers["x-frame-options"] == "DENY"
    assert host.call("GET", "/nothing").headers["x-frame-options"] == "DENY"
    assert host.post("/api/Echo", "x").status == 404
    assert host.post("/v1/Off", "x").status == 404
    assert host.call("GET", "/").status == 204
    assert "Function Off is disabled." in until(lambda: "disabled" in host.printed() and host.printed(), "the banner")


def test_keys(app, start):
    app.function("Open", authLevel="anonymous").function("Keyed", authLevel="function").function("Master", authLevel="admin")
    host = start(app, "--enable-auth")
    secrets = app.folder / ".andiron" / "secrets"
    assert host.post("/api/Open", "x").status == 200
    assert host.post("/api/Keyed", "x").status == 401
    assert host.post("/api/Keyed", "x", x_functions_key="wrong").status == 401
    assert host.call("GET", "/admin/host/status").status == 401
    assert host.call("GET", "/admin/host/ping").status == 200
    master = json.loads((secrets / "host.json").read_text())["masterKey"]["value"]
    assert os.stat(secrets / "host.json").st_mode & 0o777 == 0o600
    keys = host.call("GET", "/admin/functions/Keyed/keys", headers={"x-functions-key": master}).json["keys"]
    assert host.post("/api/Keyed", "x", x_functions_key=keys[0]["value"]).status == 200
    assert host.call("POST", f"/api/Keyed?code={keys[0]['value']}", "x").status == 200
    assert host.post(f"/api/Keyed?code={master}", "x", x_functions_key="wrong").status == 401, "the header wins"
    assert host.post("/api/Master", "x", x_functions_key=keys[0]["value"]).status == 401
    assert host.post("/api/Master", "x", x_functions_key=master).status == 200

    def admin(method, path, body=None):
        return host.call(method, path, json.dumps(body) if body else None, {"x-functions-key": master})

    assert admin("PUT", "/admin/host/keys/mine", {"name": "mine", "value": "secret"}).status == 201
    assert admin("PUT", "/admin/host/keys/mine", {"name": "mine", "value": "secret2"}).status == 200
    assert admin("PUT", "/admin/host/keys/mine", {"name": "mine"}).text == "Invalid key value"
    assert host.post("/api/Keyed", "x", x_functions_key="secret2").status == 200
    assert admin("DELETE", "/admin/host/keys/mine").status == 204
    assert admin("DELETE", "/admin/host/keys/mine").status == 404
    assert host.post("/api/Keyed", "x", x_functions_key="secret2").status == 401
    assert admin("POST", "/admin/host/systemkeys/ext").status == 201
    system = admin("GET", "/admin/host/systemkeys/ext").json["value"]
    assert host.post("/api/Keyed", "x", x_functions_key=system).status == 401, "a system key opens no function"
    assert admin("DELETE", "/admin/host/systemkeys/_master").text == "Cannot delete System Key."
    new = admin("POST", "/admin/host/systemkeys/_master").json["value"]
    assert host.post("/api/Master", "x", x_functions_key=master).status == 401
    assert host.post("/api/Master", "x", x_functions_key=new).status == 200


def test_without_enable_auth_no_key_is_needed(app, start):
    app.function("Keyed", authLevel="admin")
    host = start(app)
    assert host.post("/api/Keyed", "x").status == 200
    assert host.call("GET", "/admin/functions/Keyed/keys").json["keys"][0]["name"] == "default"


def test_the_admin_api(app, start):
    app.function("Echo")
    app.write("Broken/function.json", '{ "bindings": [] }')
    host = start(app)
    status = host.call("GET", "/admin/host/status").json
    assert status["state"] == "Running" and status["processUptime"] >= 0
    functions = host.call("GET", "/admin/functions").json
    assert [f["name"] for f in functions] == ["Echo"]
    assert functions[0]["invoke_url_template"].endswith("/api/echo")
    assert functions[0]["config"]["bundle"] == "builtin:echo"
    assert host.call("GET", "/admin/functions/Nope").status == 404
    assert host.call("GET", "/admin/functions/Echo/status").json == {}
    errors = host.call("GET", "/admin/functions/Broken/status").json["errors"]
    assert "At least one binding must be declared." in errors[0] and "Broken/function.json:1:15" in errors[0]
    assert host.post("/admin/functions/Echo", {"input": "hello"}).status == 202
    assert host.post("/admin/functions/Echo", "nonsense").status == 400
    assert host.post("/admin/functions/Nope", {"input": ""}).status == 404
    assert host.call("POST", "/admin/host/drain").status == 202
    until(lambda: host.call("GET", "/admin/host/drain/status").json["state"] == "Completed", "the drain")
    assert host.call("GET", "/readyz").status == 503
    assert host.post("/api/Echo", "x").status == 503
    assert host.call("POST", "/admin/host/resume").json == {"state": "Running"}
    assert host.post("/api/Echo", "x").status == 200
    assert host.call("POST", "/admin/host/restart").status == 200
    assert host.call("POST", "/admin/host/synctriggers").json == {"status": "success"}
    assert host.call("PUT", "/admin/host/state", '"offline"').status == 202
    assert host.post("/api/Echo", "x").status == 503
    assert host.call("PUT", "/admin/host/state", '"running"').status == 202
    assert host.post("/admin/host/log", [{"level": "Warning", "message": "from a test"}]).status == 200
    until(lambda: any(r.get("message") == "from a test" for r in host.records()), "the log entry")
    assert host.call("GET", "/admin/host/status", headers={"Host": "evil.example"}).status == 403, "rebound names are refused"
    for path in ("/healthz", "/livez", "/readyz"):
        assert host.call("GET", path).text == "ok\n"
    assert "[+] function Echo" in host.call("GET", "/readyz?verbose").text


def test_metrics(app, start):
    app.function("Echo")
    host = start(app)
    for _ in range(3):
        host.post("/api/Echo", "x")
    text = host.call("GET", "/metrics").text
    assert 'andiron_invocations_total{function="Echo",trigger="http",outcome="succeeded"} 3' in text
    assert 'andiron_invocation_duration_seconds_count{function="Echo"} 3' in text
    assert 'andiron_stage_duration_seconds_bucket{function="Echo",stage="score",le="+Inf"} 3' in text
    types = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types)), "each family is there once"


def test_the_stages_add_up(app, start):
    app.function("Echo").function("Slow", "import time\ndef init(): pass\ndef run(data):\n    time.sleep(0.05)\n    return 1\n")
    log = app.folder / "all.ndjson"
    host = start(app, "--log-file", str(log))
    cold = host.post("/api/Slow", "1")
    assert {"cold_environment", "cold_spawn", "cold_import", "cold_init"} <= set(cold.timing)
    for path in ("/api/Echo", "/api/Slow"):
        timing = host.post(path, "1").timing
        stages = sum(value for name, value in timing.items() if name != "total" and not name.startswith("cold_"))
        assert abs(stages - timing["total"]) <= 0.01 * timing["total"]
    assert timing["score"] >= 50
    until(lambda: log.read_text().count("invocation_completed") == 3, "three records")
    for line in log.read_text().splitlines():
        record = json.loads(line)
        assert record["schema_version"] == 1 and record["timestamp"].endswith("Z")
        if record["kind"] == "invocation_completed":
            assert abs(sum(record["stages_ms"].values()) - record["duration_ms"]) <= 0.01 * record["duration_ms"]


def test_json_output_is_the_event_stream(app, start):
    app.function("Echo")
    host = start(app, "--output", "json")
    host.post("/api/Echo", "x")
    assert host.stop() == 0
    records = [json.loads(line) for line in host.printed().splitlines()]
    kinds = [record["kind"] for record in records]
    assert kinds[-1] == "summary" and records[-1]["invocations"] == 1
    assert {"function_discovered", "host_state_changed", "invocation_completed"} <= set(kinds)


def test_cross_origin_requests(app, start):
    app.function("Echo")
    host = start(app, "--cors", "https://a.example,https://b.example", "--cors-credentials")
    answer = host.post("/api/Echo", "x", Origin="https://b.example")
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "access-control-allow-origin" not in host.post("/api/Echo", "x", Origin="https://c.example").headers
    preflight = host.call("OPTIONS", "/api/Echo", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-a"})
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-methods"] == "PUT"
    assert preflight.headers["access-control-allow-headers"] == "x-a"


SLOW = "import time\ndef init(): pass\ndef run(data):\n    time.sleep(0.3)\n    return data\n"


def test_the_throttle_refuses_what_is_too_much(app, start):
    app.write("host.json", {"version": "2.0", "extensions": {"http": {"maxOutstandingRequests": 2, "maxConcurrentRequests": 1}}})
    app.function("Slow", SLOW)
    host = start(app)
    host.post("/api/Slow", "warm")
    connections = [host.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/api/Slow", "x")
    statuses = []
    for connection in connections:
        response = connection.getresponse()
        statuses.append(response.status)
        if response.status == 429:
            assert response.getheader("X-FUNCTION-SCALEOUT") == "1"
    assert sorted(statuses) == [200, 200, 429]


BAD = {
    "two Content-Length": b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "Content-Length and chunked": b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    "bare line feeds": b"POST /api/Echo HTTP/1.1\nHost: h\nContent-Length: 0\n\n",
    "a folded header": b"GET /api/Echo HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n",
    "nonsense": b"\x16\x03\x01\x02\x00\x01",
    "a bad chunk": b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"GET /api/Echo HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_requests_are_refused_and_the_host_goes_on(app, start, name):
    app.function("Echo")
    host = start(app)
    answer = host.raw(BAD[name])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1, "nothing behind a refused request is answered"
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "AN3001"
    assert host.post("/api/Echo", "still here").text == "still here"


def test_sizes(app, start):
    app.function("Echo")
    host = start(app, environment={"FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "1000"})
    assert host.post("/api/Echo", b"x" * 1000).status == 200
    assert host.post("/api/Echo", b"x" * 1001).status == 413
    chunked = b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 200 OK" in host.raw(chunked + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n")
    assert b" 413 " in host.raw(chunked + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
    assert host.raw(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 414 ")
    assert host.raw(b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 40000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_hundred_megabytes_pass_and_one_byte_more_does_not(app, start):
    app.function("Echo")
    host = start(app)
    body = os.urandom(1 << 20) * 100
    answer = host.post("/api/Echo", body)
    assert answer.status == 200 and answer.body == body
    assert host.post("/api/Echo", body + b"x").status == 413


def test_pipelined_and_split_requests(app, start):
    app.function("Echo")
    host = start(app)
    one = b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s"
    requests = b"".join(one % (len(b"%d" % i), b"%d" % i) for i in range(50))
    last = b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nend\r\n0\r\n\r\n"
    bodies = [part.rsplit(b"\r\n\r\n", 1)[1] for part in host.raw(requests + last).split(b"HTTP/1.1 200 OK")[1:]]
    assert bodies == [b"%d" % i for i in range(50)] + [b"end"]
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in one % (5, b"hello"):
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).endswith(b"hello")
        connection.sendall(b"POST /api/Echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert connection.recv(65536).endswith(b"ok")
        # A client that closes its side still gets its answer.
        connection.sendall(one % (2, b"by"))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(65536).endswith(b"by")


def test_a_client_that_dawdles_is_cut_off(app, start):
    app.function("Echo")
    host = start(app)
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", host.port), timeout=30) as connection:
        connection.sendall(b"POST /api/Echo HTTP/1.1\r\nHo")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert 9 <= time.monotonic() - begun <= 15
    assert host.post("/api/Echo", "x").status == 200


def closed_after(connection, begun):
    """Seconds until the host closed the connection, and what it sent before."""
    answer = b""
    try:
        while more := connection.recv(65536):
            answer += more
    except ConnectionResetError:
        pass
    return time.monotonic() - begun, answer


def test_the_times_of_a_connection_have_limits(app, start):
    app.function("Echo")
    names = ("HEAD", "BODY", "IDLE", "WRITE")
    host = start(app, environment={f"ANDIRON_HTTP_{name}_SECONDS": "2" for name in names})
    post = b"POST /api/Echo HTTP/1.1\r\nHost: a\r\nContent-Length: "
    sides = {name: socket.create_connection(("127.0.0.1", host.port), timeout=60) for name in names}
    begun = time.monotonic()
    sides["HEAD"].sendall(b"POST /api/Echo")
    sides["BODY"].sendall(post + b"10\r\n\r\n12345")
    sides["IDLE"].sendall(post + b"2\r\n\r\nhi")
    # More than the two sockets hold of an answer that nobody takes, on a connection that sends on and on.
    sides["WRITE"].setblocking(False)
    body = b"x" * (1 << 20)
    request = memoryview((post + b"%d\r\n\r\n" % len(body) + body) * 40)
    taken = 0
    while taken < len(request) and time.monotonic() < begun + 60:
        try:
            taken += sides["WRITE"].send(request[taken : taken + 65536])
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            break
    # Before the limit a slow part is no reason to close: half a second is well inside the two.
    assert host.post("/api/Echo", "x").status == 200
    for name in ("HEAD", "BODY"):
        seconds, answer = closed_after(sides[name], begun)
        assert answer.startswith(b"HTTP/1.1 408 ") and seconds >= 2, (name, seconds, answer)
    seconds, answer = closed_after(sides["IDLE"], begun)
    assert answer.endswith(b"hi") and seconds >= 2
    assert taken < len(request), "a client that takes nothing was never cut off"


def test_the_number_of_connections_has_a_limit(app, start):
    app.function("Echo")
    host = start(app, environment={"ANDIRON_HTTP_CONNECTIONS": "3", "ANDIRON_HTTP_IDLE_SECONDS": "none"})
    warning = "ANDIRON_HTTP_IDLE_SECONDS is 'none'"
    until(lambda: any(warning in r["message"] for r in host.records("config_error")), "the warning")
    get = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    held = [socket.create_connection(("127.0.0.1", host.port), timeout=30) for _ in range(3)]
    for connection in held:
        connection.sendall(get)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(("127.0.0.1", host.port), timeout=30) as one_more:
        _, answer = closed_after(one_more, time.monotonic())
        assert answer.startswith(b"HTTP/1.1 503 ") and b"3 connections open" in answer
    held.pop().close()

    def served():
        try:
            return host.call("GET", "/livez").status == 200
        except OSError:
            return False

    until(served, "a place that was given back")


def test_a_port_in_use_says_who_holds_it(app, start):
    app.function("Echo")
    host = start(app)
    done = andiron("start", str(app.folder), "--port", str(host.port))
    assert done.returncode == 69
    assert f"Port {host.port} is unavailable." in done.stderr
    assert f"process {host.process.pid} (andiron)" in done.stderr


def test_a_full_disk_is_said_and_changes_nothing_else(app, start):
    app.function("Echo")
    host = start(app, "--log-file", "/dev/full")
    assert host.post("/api/Echo", "x").status == 200, "a log that cannot be written stops nothing"
    blocked = andiron("start", str(app.folder), "--port", "0", "--state-folder", "/proc/nowhere")
    assert blocked.returncode == 73
    assert "AN1001" in blocked.stderr and "/proc/nowhere" in blocked.stderr


def test_wrong_configuration(app, start):
    app.function("Echo")
    app.write("host.json", '{\n  "version": "2.0",\n  "functionTimeout": 5\n}')
    host = start(app, wait=False)
    until(lambda: "host.json:3:22" in host.printed(), "the error")
    until(lambda: '3 |   "functionTimeout": 5' in host.printed(), "the line it is about")
    # Corrected while it runs, the app is served.
    app.write("host.json", {"version": "2.0"})
    port = until(lambda: [w for w in host.printed().split() if w.startswith("http://localhost:")], "the URL")[0]
    host.port = int(port.rsplit(":", 1)[1].split("/")[0])
    until(lambda: host.post("/api/Echo", "x").status == 200, "the corrected app")
    missing = andiron("start", str(app.folder / "nowhere"))
    assert missing.returncode == 66 and "Host.json file is missing" in missing.stderr


def test_validate(app):
    app.function("Good")
    app.write("Bad/function.json", '{\n  "bindings": [{ "name": "req", "type": "httpTrigger", "authLevl": "x", "route": "a b" }]\n}')
    done = andiron("validate", str(app.folder))
    assert done.returncode == 78
    assert "did you mean 'authLevel'?" in done.stderr
    assert "Bad/function.json:2:" in done.stderr
    github = andiron("validate", str(app.folder), "--format", "github")
    assert "::error file=Bad/function.json,line=2" in github.stdout
    lines = [json.loads(line) for line in andiron("validate", str(app.folder), "--format", "json").stdout.splitlines()]
    assert {line["severity"] for line in lines} == {"error", "warning"}
    assert andiron("--version").stdout.strip()
    assert andiron("start", "--output", "loud").returncode == 64
    assert andiron("invoke", "X", "--url", "http://127.0.0.1:1").returncode == 69
    assert andiron("wait", "--url", "http://127.0.0.1:1", "--timeout", "0.2").returncode == 75
