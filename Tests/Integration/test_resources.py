"""Local counterparts of Azure's commands: their words, arguments and JSON."""

import json
import os
import pathlib
import pty
import subprocess
import sys

import pytest

import registry as r
from conftest import ANDIRON, ROOT
from registry import PASSWORD, USER


@pytest.fixture
def az(tmp_path):
    def run(*arguments, ok=True, code=None, text=False):
        done = subprocess.run(
            [ANDIRON, *map(str, arguments)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANDIRON_STATE": str(tmp_path / "state"), "ANDIRON_CACHE": str(tmp_path / "cache")})
        if not ok:
            assert done.returncode == (code or done.returncode) != 0, done.stdout + done.stderr
            return done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout if text or not done.stdout.strip() else json.loads(done.stdout)

    run.folder = tmp_path
    return run


@pytest.fixture
def group(az):
    az("group", "create", "--name", "rg", "--location", "westeurope")
    return az


def test_groups(az):
    created = az("group", "create", "-n", "myRG", "-l", "westeurope")
    assert created["properties"] == {"provisioningState": "Succeeded"} and created["location"] == "westeurope"
    assert created["id"].endswith("/resourceGroups/myRG") and created["type"] == "Microsoft.Resources/resourceGroups"
    assert az("group", "exists", "-n", "myrg", text=True) == "true\n"
    assert [g["name"] for g in az("group", "list")] == ["myRG"]
    assert "Resource group 'other' could not be found." in az("group", "show", "-n", "other", ok=False)
    assert "AN9020" in az("group", "create", "-n", "ends.", "-l", "x", ok=False)
    assert "no tty" in az("group", "delete", "-n", "myRG", ok=False)
    az("group", "delete", "-n", "myRG", "--yes")
    assert az("group", "list") == []


def test_deleting_a_group_asks_for_its_name(group):
    def answer(text):
        main, other = pty.openpty()
        process = subprocess.Popen(
            [ANDIRON, "group", "delete", "-n", "rg"], stdin=other, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "ANDIRON_STATE": str(group.folder / "state")})
        os.close(other)
        os.write(main, (text + "\n").encode())
        errors = process.communicate(timeout=30)[1]
        os.close(main)
        assert "Type its name to go on" in errors
        return process.returncode

    assert answer("yes") != 0 and len(group("group", "list")) == 1
    assert answer("rg") == 0 and group("group", "list") == []


def test_plans_and_storage_accounts(group):
    plan = group("appservice", "plan", "create", "-g", "rg", "-n", "plan", "--sku", "B1", "--is-linux")
    assert plan["sku"]["tier"] == "Basic" and plan["kind"] == "linux" and plan["reserved"] is True
    assert group("appservice", "plan", "list", "--query", "[].name", "-o", "tsv", text=True) == "plan\n"
    account = group("storage", "account", "create", "-n", "acc1", "-g", "rg", "-l", "here", "--sku", "Standard_LRS")
    assert account["sku"] == {"name": "Standard_LRS", "tier": "Standard"} and "_key1" not in account
    text = group("storage", "account", "show-connection-string", "-n", "acc1", "-g", "rg", "--query", "connectionString", "-o", "tsv", text=True)
    names = [part.split("=")[0] for part in text.strip().split(";")]
    assert names == ["DefaultEndpointsProtocol", "EndpointSuffix", "AccountName", "AccountKey", "BlobEndpoint", "FileEndpoint",
                     "QueueEndpoint", "TableEndpoint"]
    keys = group("storage", "account", "keys", "list", "--account-name", "acc1")
    assert [k["keyName"] for k in keys] == ["key1", "key2"] and len(keys[0]["value"]) == 88
    renewed = group("storage", "account", "keys", "renew", "--account-name", "acc1", "--key", "primary")
    assert renewed[0]["value"] != keys[0]["value"] and renewed[1] == keys[1]
    assert "lower-case" in group("storage", "account", "create", "-n", "Acc", "-g", "rg", ok=False, code=65)
    assert group("storage", "account", "check-name", "-n", "acc1")["reason"] == "AlreadyExists"
    assert "could not be found" in group("storage", "account", "create", "-n", "acc2", "-g", "nowhere", ok=False)


def test_a_registry_has_two_passwords_and_each_can_be_renewed(group):
    assert "between 5 and 50" in group("acr", "create", "-n", "abc", "-g", "rg", ok=False)
    created = group("acr", "create", "-n", "myregistry", "-g", "rg", "--sku", "Basic", "--login-server", "http://127.0.0.1:5001")
    assert created["loginServer"] == "127.0.0.1:5001" and "_password" not in created
    first = group("acr", "credential", "show", "-n", "myregistry")
    assert first["username"] == "myregistry" and [p["name"] for p in first["passwords"]] == ["password", "password2"]
    second = group("acr", "credential", "renew", "-n", "myregistry", "--password-name", "password2")
    assert second["passwords"][0] == first["passwords"][0] and second["passwords"][1] != first["passwords"][1]
    group("acr", "update", "-n", "myregistry", "--admin-enabled", "false")
    assert "admin-enabled true" in group("acr", "credential", "show", "-n", "myregistry", ok=False)


def test_either_password_works_and_repositories_are_listed(group, tmp_path):
    group("acr", "create", "-n", USER, "-g", "rg", "--login-server", "127.0.0.1:1")
    passwords = [p["value"] for p in group("acr", "credential", "show", "-n", USER)["passwords"]]
    for index in (0, 1):
        server = r.Registry(tmp_path / f"registry{index}", password=passwords[index])
        try:
            group("acr", "update", "-n", USER, "--login-server", server.host)
            assert group("acr", "login", "-n", USER, text=True) == "Login Succeeded\n"
            assert group("acr", "repository", "list", "-n", USER) == []
            script = tmp_path / "score.py"
            script.write_text("def run(d): return d")
            location = group(
                "package", "--entry-script", script, "--registry", USER, "--image-label", "v1", "--username", USER, "--password",
                passwords[index], text=True).strip()
            assert group("acr", "repository", "show-tags", "--repository", "package", "-n", USER, "-o", "tsv", text=True) == "v1\n"
            pushed = group("image", "push", location, f"{server.host}/other:v2", "--username", USER, "--password", passwords[index], text=True)
            assert pushed.strip() == location.replace("/package@", "/other@")
            assert group("acr", "repository", "list", "-n", USER) == ["other", "package"]
            deleted = group("acr", "repository", "delete", "-n", USER, "--image", "package:v1", "--yes")
            assert deleted["manifestsDeleted"] == [location.split("@")[1]]
        finally:
            server.stop()


def test_function_apps_and_their_settings(group):
    group("storage", "account", "create", "-n", "acc1", "-g", "rg")
    group("appservice", "plan", "create", "-g", "rg", "-n", "plan", "--is-linux")
    app = group("functionapp", "create", "-g", "rg", "--plan", "plan", "--name", "my-app", "--storage-account", "acc1",
                "--deployment-container-image-name", "acr.io/package:1")
    assert app["kind"] == "functionapp,linux,container" and app["siteConfig"]["linuxFxVersion"] == "DOCKER|acr.io/package:1"
    listed = {s["name"]: s for s in group("functionapp", "config", "appsettings", "list", "-n", "my-app", "-g", "rg")}
    assert listed["DOCKER_CUSTOM_IMAGE_NAME"]["value"] == "acr.io/package:1"
    assert listed["WEBSITES_ENABLE_APP_SERVICE_STORAGE"]["value"] == "false"
    assert listed["FUNCTION_APP_EDIT_MODE"]["value"] == "readOnly" and len(listed["MACHINEKEY_DecryptionKey"]["value"]) == 64
    assert "AccountName=acc1" in listed["AzureWebJobsStorage"]["value"]
    changed = group("functionapp", "config", "appsettings", "set", "-n", "my-app", "-g", "rg", "--settings", "B=1=2", "A=x",
                    "--slot-settings", "S=slot")
    assert all(s["value"] is None for s in changed) and [s["name"] for s in changed] == sorted(s["name"] for s in changed)
    assert [s["name"] for s in changed if s["slotSetting"]] == ["S"]
    listed = {s["name"]: s["value"] for s in group("functionapp", "config", "appsettings", "list", "-n", "my-app")}
    assert listed["B"] == "1=2"
    assert "Expected 'key=value' format" in group("functionapp", "config", "appsettings", "set", "-n", "my-app", "--settings", "bad", ok=False)
    group("functionapp", "config", "appsettings", "delete", "-n", "my-app", "-g", "rg", "--setting-names", "A", "B")
    assert "A" not in {s["name"] for s in group("functionapp", "config", "appsettings", "list", "-n", "my-app")}
    assert "could not be found" in group("functionapp", "config", "appsettings", "list", "-n", "other", ok=False)
    assert "not begin or end" in group("functionapp", "create", "-g", "rg", "--name", "app-", ok=False)


@pytest.mark.parametrize("old", [False, True])
def test_the_container_of_an_app_in_both_spellings(group, old):
    group("functionapp", "create", "-g", "rg", "--name", "my-app")
    options = (["--docker-custom-image-name", "--docker-registry-server-url", "--docker-registry-server-user", "--docker-registry-server-password"]
               if old else ["--image", "--registry-server", "--registry-username", "--registry-password"])
    values = ["acr.io/package:20190827195524", "https://acr.io", "me", "geheim"]
    arguments = [text for pair in zip(options, values) for text in pair]
    shown = group("functionapp", "config", "container", "set", "-n", "my-app", "-g", "rg", *arguments)
    assert shown == [
        {"name": "WEBSITES_ENABLE_APP_SERVICE_STORAGE", "slotSetting": False, "value": "false"},
        {"name": "DOCKER_REGISTRY_SERVER_URL", "slotSetting": False, "value": "https://acr.io"},
        {"name": "DOCKER_REGISTRY_SERVER_USERNAME", "slotSetting": False, "value": "me"},
        {"name": "DOCKER_REGISTRY_SERVER_PASSWORD", "slotSetting": False, "value": None},
        {"name": "DOCKER_CUSTOM_IMAGE_NAME", "value": "DOCKER|acr.io/package:20190827195524"},
    ]
    assert group("functionapp", "config", "container", "show", "-n", "my-app", "-g", "rg") == shown
    assert "geheim" not in group("functionapp", "config", "appsettings", "list", "-n", "my-app", text=True)
    assert "must be lowercase" in group("functionapp", "config", "container", "set", "-n", "my-app", "--image", "acr.io/Package:1", ok=False)
    hook = group("functionapp", "deployment", "container", "config", "-n", "my-app", "-g", "rg", "--enable-cd", "true")
    assert hook["DOCKER_ENABLE_CI"] is True and hook["CI_CD_URL"].startswith("http://$my-app:") and hook["CI_CD_URL"].endswith("/docker/hook")
    assert group("functionapp", "deployment", "container", "show-cd-url", "-n", "my-app") == hook
    assert len(group("functionapp", "config", "container", "delete", "-n", "my-app", "-g", "rg")) == 1


def test_redis_caches(group):
    created = group("redis", "create", "-n", "my-cache", "-g", "rg", "-l", "here", "--sku", "Basic", "--vm-size", "C0")
    assert created["hostName"] == "my-cache.redis.cache.windows.net" and created["sslPort"] == 6380
    assert created["enableNonSslPort"] is False and created["sku"] == {"capacity": 0, "family": "C", "name": "Basic"}
    keys = group("redis", "list-keys", "-n", "my-cache", "-g", "rg")
    assert set(keys) == {"primaryKey", "secondaryKey"} and len(keys["primaryKey"]) == 44
    again = group("redis", "regenerate-keys", "-n", "my-cache", "-g", "rg", "--key-type", "Secondary")
    assert again["primaryKey"] == keys["primaryKey"] and again["secondaryKey"] != keys["secondaryKey"]
    assert "consecutive" in group("redis", "create", "-n", "a--b", "-g", "rg", ok=False)
    group("redis", "delete", "-n", "my-cache", "-g", "rg", "--yes")
    assert group("redis", "list") == []


def test_output_and_query(group):
    for name in ("a1", "b2"):
        group("group", "create", "-n", name, "-l", "loc-" + name)
    table = group("group", "list", "-o", "table", "--query", "[].{name:name, location:location}", text=True).splitlines()
    assert table[0].split() == ["Name", "Location"] and set(table[1]) == {"-", " "} and table[2].split() == ["a1", "loc-a1"]
    assert group("group", "list", "-o", "tsv", "--query", "[?name=='b2'].location", text=True) == "loc-b2\n"
    assert group("group", "list", "-o", "tsv", "--query", "[0].[name, location]", text=True) == "a1\nloc-a1\n"
    assert "understood" in group("group", "list", "--query", "length(@)", ok=False)


def test_many_commands_at_once_lose_nothing(group):
    processes = [
        subprocess.Popen([ANDIRON, "group", "create", "-n", f"g{i}", "-l", "x"], stdout=subprocess.DEVNULL,
                         env={**os.environ, "ANDIRON_STATE": str(group.folder / "state")}) for i in range(20)]
    assert all(p.wait(30) == 0 for p in processes)
    assert len(group("group", "list")) == 21


def test_the_tutorials_python(tmp_path):
    server = r.Registry(tmp_path / "registry")
    (tmp_path / "model.pkl").write_text("weights")
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    program = f"""
from andiron_azureml import *
from andiron_azureml import WebserviceException
ws = Workspace.create("tutorial", registry="{server.host}", username="{USER}", password="{PASSWORD}")
model = Model.register(ws, model_path="model.pkl", model_name="sklearn_mnist", tags={{"area": "digits"}}, description="d")
assert model.version == 1 and model.id == "sklearn_mnist:1" and model.tags == {{"area": "digits"}}
assert Model(ws, "sklearn_mnist").id == "sklearn_mnist:1" and len(Model.list(ws)) == 1
env = Environment("tutorial")
env.environment_variables["A"] = "b"
env.python.conda_dependencies = CondaDependencies.create(pip_packages=["azureml-defaults", "redis"])
config = InferenceConfig(entry_script="score.py", environment=env)
made = package(ws, [model], config, functions_enabled=True, trigger=HTTP_TRIGGER, auth_level="anonymous")
made.wait_for_creation(show_output=True)
print(made.location)
assert package_blob(ws, [model], config, input_path="in/{{n}}", output_path="out/{{n}}").state == "Succeeded"
bad = package(ws, [model], config, functions_enabled=True, trigger="timer")
try:
    bad.wait_for_creation()
except WebserviceException as error:
    assert "Invalid trigger timer, valid options are [blob,service_bus_queue,http]" in str(error)
else:
    raise AssertionError("not refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=90, cwd=tmp_path,
        env={**os.environ, "ANDIRON": ANDIRON, "ANDIRON_STATE": str(tmp_path / "state"), "ANDIRON_CACHE": str(tmp_path / "cache"),
             "PYTHONPATH": str(ROOT / "samples/python/andiron_azureml")})
    server.stop()
    assert done.returncode == 0, done.stderr
    assert "Package creation Succeeded" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith(f"{server.host}/package@sha256:")


@pytest.mark.parametrize("create, show, query, value", [
    ("group create -n g2 -l here", "group show -n g2", "properties.provisioningState", "Succeeded"),
    ("appservice plan create -n p -g rg --sku P1V2 --is-linux", "appservice plan show -n p -g rg", "[sku.tier, status, zoneRedundant]", "PremiumV2\nReady\nFalse"),
    ("storage account create -n acc9 -g rg -l westeurope", "storage account show -n acc9 -g rg",
     "[primaryLocation, primaryEndpoints.blob, statusOfPrimary]", "westeurope\nhttp://127.0.0.1:10000/acc9\navailable"),
    ("acr create -n registry9 -g rg --sku Basic", "acr show -n registry9", "[loginServer, sku.name, adminUserEnabled, publicNetworkAccess]",
     "127.0.0.1:5000\nBasic\nTrue\nEnabled"),
    ("functionapp create -n app-9 -g rg --deployment-container-image-name r.io/p:1", "functionapp show -n app-9 -g rg",
     "[state, defaultHostName, hostNames[0], siteConfig.linuxFxVersion, kind, availabilityState, usageState]",
     "Running\nlocalhost:7071\nlocalhost:7071\nDOCKER|r.io/p:1\nfunctionapp,linux,container\nNormal\nNormal"),
    ("redis create -n cache-9 -g rg -l here --sku Basic --vm-size c0", "redis show -n cache-9 -g rg",
     "[hostName, sslPort, port, provisioningState, sku.family]", "cache-9.redis.cache.windows.net\n6380\n6379\nSucceeded\nC"),
])
def test_what_a_script_asks_of_a_resource(group, create, show, query, value):
    made = group(*create.split())
    shown = group(*show.split())
    assert shown == made and shown["id"].startswith("/subscriptions/") and shown["type"].startswith("Microsoft.")
    assert not [name for name in shown if name.startswith("_")]
    assert group(*show.split(), "--query", query, "-o", "tsv", text=True) == value + "\n"
    listed = [name for name in shown if name.endswith(("Date", "Time", "TimeUtc"))]
    assert all(shown[name] is None or shown[name].endswith("+00:00") for name in listed)
