"""Registries that want bearer tokens: the real docker-registry in front of a token service."""

import base64
import json
import os
import subprocess

import pytest

import registry as r
from conftest import ANDIRON
from registry import PASSWORD, USER, tar
from test_images_pull import Puller


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    server = r.TokenService(tmp_path_factory.mktemp("tokens"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def registry(tmp_path_factory, service):
    server = r.Registry(tmp_path_factory.mktemp("registry"), auth=service.configuration("test-service"))
    token = service.token(USER, ["repository:package:pull,push"])
    plain = server.request
    server.request = lambda method, path, body=None, headers=None, auth=True: plain(
        method, path, body, {**(headers or {}), **({"Authorization": "Bearer " + token} if auth else {})}, auth=False)
    server.push("package", "1", [tar(("f", b"x" * 1000)), tar(("g", b"y"))])
    server.request = plain
    yield server
    server.stop()


@pytest.fixture
def puller(tmp_path, registry, service):
    service.requests.clear()
    service.passwords, service.form_only, service.rights, service.lifetime = [PASSWORD], False, ["pull", "push"], 300
    service.padding = 0
    return Puller(tmp_path / "cache", registry)


def test_a_token_is_fetched_once_for_a_pull(service, puller):
    assert (puller.pull("package:1")["files"] / "f").exists()
    assert len(service.requests) == 1
    method, path, headers = service.requests[0]
    assert method == "GET" and "service=test-service" in path and "scope=repository%3Apackage%3Apull" in path
    assert headers["Authorization"].startswith("Basic ")


def test_a_service_that_knows_only_the_form_gets_the_form(service, puller):
    service.form_only = True
    puller.pull("package:1")
    method, body, headers = service.requests[-1]
    assert method == "POST" and "grant_type=password" in body and "Authorization" not in headers


def test_an_identity_token_is_used_as_a_refresh_token(service, puller, tmp_path):
    config = tmp_path / "docker"
    config.mkdir()
    entry = {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(), "identitytoken": service.refresh_token}
    (config / "config.json").write_text(json.dumps({"auths": {puller.registry.host: entry}}))
    puller.pull("package:1", username=None, env={"DOCKER_CONFIG": str(config)})
    assert "grant_type=refresh_token" in service.requests[-1][1]


def test_wrong_and_missing_credentials(service, puller):
    errors = puller.refused("package:1", "AN9003", "sign in", "authentication required", password="wrong")
    assert "Basic" not in errors
    puller.refused("package:1", "AN9003", "wants credentials", username=None)


def test_too_few_rights_are_not_asked_for_again_and_again(service, puller):
    service.rights = []
    puller.refused("package:1", "AN9003", "requested access to the resource is denied")
    assert len(service.requests) <= 2


def test_an_expired_token_is_renewed(service, puller):
    # The registry allows for a minute of difference between clocks; this one is older at once.
    service.lifetime = -120
    puller.refused("package:1", "AN9003")
    assert 1 <= len(service.requests) <= 3
    service.lifetime = 300
    puller.pull("package:1")


def test_package_pushes_with_a_token(service, puller, tmp_path):
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(d): return d\n")
    done = subprocess.run(
        [ANDIRON, "package", "--entry-script", str(script), "--registry", puller.registry.host, "--image-label", "pushed",
         "--username", USER, "--password", PASSWORD], capture_output=True, text=True, timeout=60,
        env={**os.environ, "ANDIRON_CACHE": str(tmp_path / "c")})
    assert done.returncode == 0, done.stderr
    assert puller.pull("package:pushed")["digest"] == done.stdout.strip().split("@")[1]


def test_a_token_services_answer_has_a_limit(service, puller):
    service.padding = (1 << 20) - 10_000
    puller.pull("package:1")
    service.padding = 1 << 20
    puller.refused("package:1", "AN9009", "1048576 bytes", service.host)


def test_a_token_service_that_is_away_is_named(tmp_path):
    service = r.TokenService(tmp_path / "tokens")
    registry = r.Registry(tmp_path / "registry", auth=service.configuration("test-service"))
    service.stop()
    Puller(tmp_path / "cache", registry).refused("package:1", "AN9002", "sign in", service.host, timeout=3)
    registry.stop()
