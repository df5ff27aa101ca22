"""A real registry on a free port, images made byte by byte, and a proxy that makes everything go wrong."""

import base64
import gzip
import hashlib
import http.client
import http.server
import io
import json
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse

from conftest import until

USER, PASSWORD = "myacr", "Iv0lRZQ9762LUJrFiffo3P4sWgk4q+nW"
REGISTRY = shutil.which("docker-registry")
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Registry:
    """Debian's docker-registry with basic authentication; `extra` is more of its configuration, `tls` is `Authority`."""

    def __init__(self, folder, auth=True, extra="", port=None, tls=None, password=PASSWORD):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tls = tls
        http_extra = f", tls: {{certificate: {tls.certificate}, key: {tls.key}}}" if tls else ""
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"
        users = self.folder / "htpasswd"
        subprocess.run(["htpasswd", "-Bbn", "-C", "5", USER, password], stdout=open(users, "w"), check=True)
        config = f"""version: 0.1
log: {{level: info, formatter: json}}
storage:
  filesystem: {{rootdirectory: {self.folder}/data}}
  cache: {{blobdescriptor: inmemory}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: 127.0.0.1:{self.port}, secret: fixed{http_extra}}}
"""
        if auth is True:
            config += f"auth: {{htpasswd: {{realm: basic-realm, path: {users}}}}}\n"
        elif auth:
            config += auth
        (self.folder / "config.yml").write_text(config + extra)
        self.process = subprocess.Popen(
            [REGISTRY, "serve", str(self.folder / "config.yml")],
            stdout=open(self.folder / "log", "w"), stderr=subprocess.STDOUT,
        )
        until(self.answers, "the registry")

    def answers(self):
        try:
            return self.request("GET", "/v2/", auth=False).status in (200, 401)
        except OSError:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return False

    def request(self, method, path, body=None, headers=None, auth=True):
        if self.tls:
            context = ssl.create_default_context(cafile=self.tls.file)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = dict(headers or {})
        if auth:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    def log(self):
        lines = (self.folder / "log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def push_blob(self, repository, data):
        start = self.request("POST", f"/v2/{repository}/blobs/uploads/", b"")
        location = start.headers["Location"]
        path = location[location.index("/v2/"):] + f"&digest={sha(data)}"
        done = self.request("PUT", path, data, {"Content-Type": "application/octet-stream"})
        assert done.status == 201, done.content
        return sha(data)

    def push_manifest(self, repository, reference, document, media_type=OCI + "manifest.v1+json"):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        done = self.request("PUT", f"/v2/{repository}/manifests/{reference}", body, {"Content-Type": media_type})
        assert done.status == 201, done.content
        return sha(body)

    def push(self, repository, tag, layers, **options):
        """Pushes an image of packed layers (bytes), with the options of `image`."""
        config, manifest = image(layers, **options)
        for blob in [config, *layers]:
            self.push_blob(repository, blob)
        return self.push_manifest(repository, tag, manifest)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Authority:
    """A certificate authority of its own, and a server's certificate for 127.0.0.1 from it."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.certificate, self.key = folder / "ca.crt", folder / "server.crt", folder / "server.key"
        run = lambda *command: subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run("req", "-x509", *new, "-keyout", folder / "ca.key", "-out", self.file, "-days", "3", "-subj", "/CN=test authority",
            "-addext", "basicConstraints=critical,CA:TRUE")
        run("req", *new, "-keyout", self.key, "-out", folder / "server.csr", "-subj", "/CN=registry")
        (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
        run("x509", "-req", "-in", folder / "server.csr", "-CA", self.file, "-CAkey", folder / "ca.key", "-CAcreateserial",
            "-days", "3", "-extfile", folder / "extensions", "-out", self.certificate)


def unpacked(layer):
    """A layer's tar."""
    if layer[:2] == b"\x1f\x8b":
        return gzip.decompress(layer)
    if layer[:4] == b"\x28\xb5\x2f\xfd":
        return subprocess.run(["zstd", "-dc"], input=layer, stdout=subprocess.PIPE, check=True).stdout
    return layer


def image(layers, diff_ids=None, media_types=None, sizes=None, config=None, annotations=None):
    """Configuration and manifest of an image, with room for lies."""
    diff_ids = [sha(unpacked(layer)) for layer in layers] if diff_ids is None else diff_ids
    document = {
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=1"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}, **(config or {}),
    }
    encoded = json.dumps(document).encode()
    described = [
        {
            "mediaType": (media_types or {}).get(i, OCI + "layer.v1.tar+gzip"), "digest": sha(layer),
            "size": (sizes or {}).get(i, len(layer)), "annotations": (annotations or {}).get(i, {}),
        }
        for i, layer in enumerate(layers)
    ]
    return encoded, {
        "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
        "config": {"mediaType": OCI + "config.v1+json", "digest": sha(encoded), "size": len(encoded)},
        "layers": described,
    }


def tar(*entries, pack=True):
    """A tar of (name, content or None for a folder, options); options are TarInfo's attributes."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            name, content = entry[0], entry[1]
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if content is None else 0o644
            if content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            for key, value in (entry[2] if len(entry) > 2 else {}).items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content or b""))
    data = output.getvalue()
    return gzip.compress(data, 1, mtime=0) if pack else data


def link(name, target):
    return (name, b"", {"type": tarfile.SYMTYPE, "linkname": target, "size": 0})


def hard_link(name, target):
    return (name, b"", {"type": tarfile.LNKTYPE, "linkname": target, "size": 0})


class FaultProxy:
    """Stands between the host and the registry. `fault(pattern, function)` answers matching requests itself:
    the function gets the handler and the registry's answer, and returns True when it has written something."""

    def __init__(self, registry):
        self.registry = registry
        self.faults = []
        self.requests = []
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def relay(self):
                proxy.requests.append((self.command, self.path, dict(self.headers)))
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                headers["Host"] = proxy.host
                try:
                    answer = proxy.registry.request(self.command, self.path, body, headers, auth=False)
                except OSError:
                    self.close_connection = True
                    return
                for pattern, function in list(proxy.faults):
                    if re.search(pattern, f"{self.command} {self.path}"):
                        if function(self, answer):
                            return
                self.give(answer.status, answer.headers.items(), answer.content)

            def give(self, status, headers, content, length=None):
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                if length is None:
                    length = len(content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = relay

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fault(self, pattern, function, times=None):
        count = [0]

        def limited(handler, answer):
            if times is not None and count[0] >= times:
                return False
            count[0] += 1
            return function(handler, answer)

        self.faults.append((pattern, limited))

    def count(self, pattern):
        return sum(1 for method, path, _ in self.requests if re.search(pattern, f"{method} {path}"))

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


# What can go wrong with an answer.

def cut(after):
    """The connection breaks after so many bytes of the body."""
    def fault(handler, answer):
        handler.give(answer.status, answer.headers.items(), answer.content[:after], length=len(answer.content))
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True
    return fault


def truncated(to):
    """A whole answer, with less in it."""
    def fault(handler, answer):
        handler.give(answer.status, answer.headers.items(), answer.content[:to])
        return True
    return fault


def corrupted(at):
    def fault(handler, answer):
        content = bytearray(answer.content)
        content[at] ^= 0x55
        handler.give(answer.status, answer.headers.items(), bytes(content))
        return True
    return fault


def endless(handler, answer):
    """The right bytes, and then more and more: nothing but their number is wrong."""
    handler.send_response_only(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.close_connection = True
    try:
        handler.wfile.write(b"%x\r\n" % len(answer.content) + answer.content + b"\r\n")
        for _ in range(10_000):
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    except OSError:
        pass
    return True


def slow(handler, answer):
    handler.send_response_only(200)
    handler.send_header("Content-Length", str(len(answer.content)))
    handler.end_headers()
    handler.close_connection = True
    try:
        for byte in answer.content:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.2)
    except OSError:
        pass
    return True


def status(code, *headers, body=b""):
    def fault(handler, answer):
        handler.give(code, headers, body)
        return True
    return fault


def silent(handler, answer):
    handler.close_connection = True
    time.sleep(30)
    return True


def of(method, fault):
    """The fault for requests of one method."""
    return lambda handler, answer: handler.command == method and fault(handler, answer)


class TokenService:
    """A token service as the distribution project describes it: signs what a user may do, for a short while."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        key, certificate = self.folder / "sign.key", self.folder / "sign.crt"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "3",
             "-subj", "/CN=signer"], check=True, capture_output=True)
        der = subprocess.run(["openssl", "x509", "-in", certificate, "-outform", "DER"], check=True, capture_output=True).stdout
        self.certificate, self.x5c = base64.b64encode(der).decode(), certificate
        self.passwords = [PASSWORD]
        self.refresh_token = "refresh-me"
        self.form_only = False
        self.rights = ["pull", "push"]
        self.lifetime = 300
        self.padding = 0
        self.requests = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def grant(self, name, query, key):
                scopes = [s for text in query.get("scope", []) for s in text.split(" ")]
                self.answer(200, {key: service.token(name, scopes), "expires_in": service.lifetime, "padding": "x" * service.padding})

            def do_GET(self):
                service.requests.append(("GET", self.path, dict(self.headers)))
                if service.form_only:
                    return self.answer(404, {})
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                given = self.headers.get("Authorization")
                if given:
                    name, _, password = base64.b64decode(given.split()[1]).decode().partition(":")
                    if name != USER or password not in service.passwords:
                        return self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]})
                    return self.grant(name, query, "token")
                self.grant("", query, "token")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.requests.append(("POST", body, dict(self.headers)))
                form = urllib.parse.parse_qs(body)
                right = form.get("password", [""])[0] in service.passwords and form.get("username") == [USER]
                if form["grant_type"] == ["refresh_token"]:
                    right = form["refresh_token"] == [service.refresh_token]
                if not right:
                    return self.answer(401, {"error": "invalid_grant", "error_description": "not you"})
                self.grant(USER, form, "access_token")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def configuration(self, service):
        return (f"auth: {{token: {{realm: 'http://{self.host}/oauth2/token', service: '{service}', issuer: test-issuer, "
                f"rootcertbundle: {self.x5c}}}}}\n")

    def token(self, name, scopes, service="test-service"):
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            resource, _, actions = rest.rpartition(":")
            allowed = [a for a in actions.split(",") if name and a in self.rights]
            if allowed:
                access.append({"type": kind, "name": resource, "actions": allowed})
        now = int(time.time())
        parts = [
            {"typ": "JWT", "alg": "RS256", "x5c": [self.certificate]},
            {"iss": "test-issuer", "sub": name, "aud": service, "exp": now + self.lifetime, "nbf": now - 10, "iat": now,
             "jti": str(time.monotonic()), "access": access},
        ]
        encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
        text = ".".join(encode(json.dumps(part).encode()) for part in parts)
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", str(self.folder / "sign.key")], input=text.encode(), check=True,
            capture_output=True).stdout
        return text + "." + encode(signed)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
