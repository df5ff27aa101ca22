"""Who may pull from a registry, and over what: two passwords, certificates, and what never travels in the clear."""

import base64
import http.server
import json
import os
import socket
import subprocess
import threading

import pytest

import registry as r
from conftest import ANDIRON, until
from registry import PASSWORD, USER, tar
from test_images_app import Workplace, begin
from test_images_pull import Puller


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


@pytest.fixture
def served(tmp_path):
    """`andiron acr serve`: a docker-registry whose two passwords are those of the local resource."""
    place = Workplace(tmp_path, None)
    port = r.free_port()
    place.run("group", "create", "-n", "rg", "-l", "here")
    place.run("acr", "create", "-n", USER, "-g", "rg", "--login-server", f"localhost:{port}")
    ready = tmp_path / "registry.json"
    process = subprocess.Popen(
        [ANDIRON, "acr", "serve", "-n", USER, "--ready-file", str(ready)], env={**os.environ, **place.environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until(lambda: ready.exists() or process.poll() is not None, "the registry")
    assert process.poll() is None, process.communicate()[0]
    place.host = json.loads(ready.read_text())["loginServer"]
    place.passwords = lambda: [p["value"] for p in place.json("acr", "credential", "show", "-n", USER)["passwords"]]
    place.process = process
    yield place
    process.terminate()
    assert process.wait(20) == 0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


def package(place, label):
    script = place.folder / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 'scored'\n")
    place.run("package", "--entry-script", script, "--registry", USER, "--username", USER, "--password", place.passwords()[0],
              "--auth-level", "anonymous", "--image-label", label)


def set_password(place, name, password):
    place.run("functionapp", "config", "appsettings", "set", "-n", name, "-g", "rg",
              "--settings", f"DOCKER_REGISTRY_SERVER_PASSWORD={password}")


def test_either_password_works_and_one_that_was_renewed_does_not(served, start):
    package(served, "v1")
    hosts = []
    for name, password in zip(("first-app", "second-app"), served.passwords()):
        served.run("functionapp", "create", "-g", "rg", "-n", name, "--deployment-container-image-name", f"{served.host}/package:v1")
        served.run("functionapp", "config", "container", "set", "-n", name, "-g", "rg", "--docker-custom-image-name",
                   f"{served.host}/package:v1", "--docker-registry-server-url", f"http://{served.host}",
                   "--docker-registry-server-user", USER, "--docker-registry-server-password", password)
        folder = served.folder / "state/apps" / name
        hosts.append(begin(start, served, folder, wait=True))
        assert hosts[-1].post("/api/score", {}).json == "scored"
    # Another image, so that nothing is in the store; then the second password is made anew.
    old = served.passwords()
    renewed = served.json("acr", "credential", "renew", "-n", USER, "--password-name", "password2")
    assert renewed["passwords"][0]["value"] == old[0] and renewed["passwords"][1]["value"] != old[1]
    package(served, "v2")
    for name in ("first-app", "second-app"):
        served.run("functionapp", "config", "container", "set", "-n", name, "-g", "rg", "--image", f"{served.host}/package:v2")
    runs = lambda host, image: [e for e in host.records("cold_start") if e["message"].startswith("the image is ready") and e["image"].endswith(image)]
    until(lambda: runs(hosts[0], "package:v2"), "the first app's pull")
    refused = lambda: [e for e in hosts[1].records("cold_start") if e.get("code") == "AN9003"]
    message = until(refused, "the refusal")[0]["message"]
    assert f"refuses the credentials of '{USER}'" in message or "the token service" in message
    assert f"andiron acr credential show --name {USER}" in message and "set DOCKER_REGISTRY_SERVER_PASSWORD" in message
    # What ran goes on, and what the message says helps.
    assert hosts[1].post("/api/score", {}).json == "scored"
    assert not runs(hosts[1], "package:v2")
    set_password(served, "second-app", served.passwords()[1])
    until(lambda: runs(hosts[1], "package:v2"), "the pull with the new password")
    # The other way round.
    served.run("acr", "credential", "renew", "-n", USER, "--password-name", "password")
    package(served, "v3")
    for name in ("first-app", "second-app"):
        served.run("functionapp", "config", "container", "set", "-n", name, "-g", "rg", "--image", f"{served.host}/package:v3")
    until(lambda: [e for e in hosts[0].records("cold_start") if e.get("code") == "AN9003"], "the first app's refusal")
    until(lambda: runs(hosts[1], "package:v3"), "the second app's pull")
    assert len(refused()) == 1


def test_other_tools_sign_in_with_either_password(served):
    package(served, "tools")
    passwords = served.passwords()
    inspect = lambda password: subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--creds", f"{USER}:{password}", f"docker://{served.host}/package:tools"],
        capture_output=True, text=True, timeout=60)
    for password in passwords:
        assert inspect(password).returncode == 0
    assert inspect("wrong").returncode != 0
    assert served.run("acr", "login", "-n", USER).stdout == "Login Succeeded\n"
    served.run("acr", "credential", "renew", "-n", USER, "--password-name", "password")
    assert inspect(passwords[0]).returncode != 0 and inspect(passwords[1]).returncode == 0
    served.run("acr", "update", "-n", USER, "--admin-enabled", "false")
    assert inspect(passwords[1]).returncode != 0


def test_a_push_to_a_served_registry_updates_the_app(tmp_path, start):
    place = Workplace(tmp_path, None)
    port, listening = r.free_port(), r.free_port()
    place.host = f"localhost:{port}"
    place.passwords = lambda: [p["value"] for p in place.json("acr", "credential", "show", "-n", USER)["passwords"]]
    place.run("group", "create", "-n", "rg", "-l", "here")
    place.run("acr", "create", "-n", USER, "-g", "rg", "--login-server", place.host)
    place.run("functionapp", "create", "-g", "rg", "-n", "hooked", "--deployment-container-image-name", f"{place.host}/package:v1")
    place.run("functionapp", "config", "container", "set", "-n", "hooked", "-g", "rg", "--image", f"{place.host}/package:v1",
              "--registry-server", f"http://{place.host}", "--registry-username", USER, "--registry-password", place.passwords()[1])
    hook = place.json("functionapp", "deployment", "container", "config", "-n", "hooked", "-g", "rg", "--enable-cd", "true")
    assert hook["DOCKER_ENABLE_CI"] is True
    assert "--webhook is" in place.run("acr", "serve", "-n", USER, "--webhook", 'ftp://x', ok=False).stderr
    ready = tmp_path / "registry.json"
    process = subprocess.Popen(
        [ANDIRON, "acr", "serve", "-n", USER, "--ready-file", str(ready), "--webhook", hook["CI_CD_URL"].replace(":7071", f":{listening}")],
        env={**os.environ, **place.environment}, stdout=subprocess.DEVNULL)
    until(ready.exists, "the registry")
    package(place, "v1")
    host = begin(start, place, place.folder / "state/apps/hooked", "--port", str(listening), wait=True)
    assert host.post("/api/score", {}).json == "scored"
    (place.folder / "score.py").write_text("def init(): pass\ndef run(data): return 'scored anew'\n")
    place.run("package", "--entry-script", place.folder / "score.py", "--registry", USER, "--username", USER, "--password",
              place.passwords()[0], "--auth-level", "anonymous", "--image-label", "v1")
    until(lambda: host.post("/api/score", {}).json == "scored anew", "the update")
    process.terminate()
    assert process.wait(20) == 0


def is_open(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_a_served_registry_ends_with_the_process_that_serves_it(tmp_path):
    place = Workplace(tmp_path, None)
    port, ready = r.free_port(), tmp_path / "registry.json"
    place.run("group", "create", "-n", "rg", "-l", "here")
    place.run("acr", "create", "-n", USER, "-g", "rg", "--login-server", f"localhost:{port}")
    process = subprocess.Popen(
        [ANDIRON, "acr", "serve", "-n", USER, "--ready-file", str(ready)], env={**os.environ, **place.environment}, stdout=subprocess.DEVNULL)
    until(ready.exists, "the registry")
    assert is_open(port)
    process.kill()
    process.wait()
    until(lambda: not is_open(port), "the registry's end")


def test_serving_says_what_is_missing(tmp_path):
    place = Workplace(tmp_path, None)
    place.run("group", "create", "-n", "rg", "-l", "here")
    place.run("acr", "create", "-n", "elsewhere", "-g", "rg", "--login-server", "registry.test")
    done = place.run("acr", "serve", "-n", "elsewhere", ok=False)
    assert done.returncode == 65 and "no port of this machine" in done.stderr
    assert place.run("acr", "serve", "-n", "nowhere", ok=False).returncode == 1
    taken = socket.create_server(("127.0.0.1", 0))
    place.run("acr", "update", "-n", "elsewhere", "--login-server", f"127.0.0.1:{taken.getsockname()[1]}")
    done = place.run("acr", "serve", "-n", "elsewhere", ok=False)
    assert done.returncode == 1 and "docker-registry has ended" in done.stderr and "address already in use" in done.stderr
    place.environment["PATH"] = str(tmp_path)
    done = place.run("acr", "serve", "-n", "elsewhere", ok=False)
    assert done.returncode == 69 and "apt-get install docker-registry" in done.stderr


# With basic authentication, the registry has one password for a name.

def test_a_password_that_the_registry_does_not_know_any_more(tmp_path, start):
    server = r.Registry(tmp_path / "registry")
    place = Workplace(tmp_path, server)
    place.package("--image-label", "v1")
    users = server.folder / "htpasswd"
    subprocess.run(["htpasswd", "-Bbn", "-C", "5", USER, "renewed"], stdout=open(users, "w"), check=True)
    host = begin(start, place, place.app("package:v1"))
    answer = until(lambda: (a := host.post("/api/score", {})).status == 503 and a.json.get("code") == "AN9003" and a, "the refusal")
    for words in (f"{server.host}/package:v1", f"refuses the credentials of '{USER}'"):
        assert words in answer.json["message"]
    assert f"andiron acr credential show --name {USER}" in host.printed()
    place.app("package:v1", DOCKER_REGISTRY_SERVER_PASSWORD="renewed")
    until(lambda: host.post("/api/score", {}).status == 200, "the pull with the new password")
    server.stop()


# TLS.

@pytest.fixture(scope="module")
def secure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    server = r.Registry(folder / "registry", tls=r.Authority(folder / "authority"))
    server.push("package", "1", [tar(("f", b"secret"))])
    yield server
    server.stop()


def test_a_registrys_certificate_must_be_from_an_authority_that_is_trusted(secure, tmp_path):
    puller = Puller(tmp_path / "cache", secure)
    errors = puller.refused("package:1", "AN9002", secure.host, "certificate", "SSL_CERT_FILE=")
    assert not [e for e in secure.log() if e.get("http.request.method") == "HEAD"], errors
    pulled = puller.pull("package:1", env={"SSL_CERT_FILE": str(secure.tls.file)})
    assert (pulled["files"] / "f").read_text() == "secret"


def test_an_app_names_the_authority_in_its_settings(secure, tmp_path, start):
    place = Workplace(tmp_path, secure)
    place.environment["SSL_CERT_FILE"] = str(secure.tls.file)
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 'secure'\n")
    place.run("package", "--entry-script", script, "--registry", secure.host, "--username", USER, "--password", PASSWORD,
              "--auth-level", "anonymous", "--image-label", "app")
    del place.environment["SSL_CERT_FILE"]
    url = {"DOCKER_REGISTRY_SERVER_URL": f"https://{secure.host}"}
    host = begin(start, place, place.app("package:app", **url))
    answer = until(lambda: (a := host.post("/api/score", {})).status == 503 and a.json.get("code") == "AN9002" and a, "the refusal")
    assert secure.host in answer.json["message"] and "certificate" in answer.json["message"]
    place.app("package:app", SSL_CERT_FILE=str(secure.tls.file), **url)
    until(lambda: host.post("/api/score", {}).status == 200, "the pull with the authority")


class Network:
    """Stands for the network between here and other machines, as a proxy that curl asks; notes what it sees."""

    def __init__(self, registry):
        self.seen = []
        network = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_CONNECT(self):
                network.seen.append(("CONNECT", self.path, None))
                self.send_error(502)

            def do_GET(self):
                network.seen.append((self.command, self.path, self.headers.get("Authorization")))
                path = self.path[self.path.index("/v2/"):]
                headers = {k: v for k, v in self.headers.items() if k.lower() in ("authorization", "accept", "range")}
                answer = registry.request(self.command, path, None, headers, auth=False)
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in ("transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.content)

            do_HEAD = do_GET

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.environment = {"http_proxy": address, "https_proxy": address, "no_proxy": ""}
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def test_credentials_travel_in_the_clear_only_when_the_address_says_so(tmp_path):
    server = r.Registry(tmp_path / "registry")
    server.push("package", "1", [tar(("f", b"x"))])
    network = Network(server)
    puller = Puller(tmp_path / "cache", server)
    # Another machine is asked by TLS only, and when that fails nothing is said in the clear.
    puller.refused("package:1", "AN9002", "registry.test:5000", host="registry.test:5000", env=network.environment, timeout=3)
    assert network.seen and {(method, authorization) for method, _, authorization in network.seen} == {("CONNECT", None)}
    network.seen.clear()
    allowed = {**network.environment, "DOCKER_REGISTRY_SERVER_URL": "http://registry.test:5000"}
    assert (puller.pull("package:1", host="registry.test:5000", env=allowed)["files"] / "f").exists()
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert {authorization for _, _, authorization in network.seen} == {basic}
    network.stop()
    server.stop()
