"""The store: what is in use stays, what is too much goes, and no crash or full disk leaves a lie."""

import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import time

import pytest

import registry as r
from conftest import ANDIRON, until
from registry import PASSWORD, USER, tar
from test_images_pull import Puller, push


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = r.Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture
def puller(tmp_path, registry):
    return Puller(tmp_path / "cache", registry)


def prune(puller, *arguments):
    done = subprocess.run(
        [ANDIRON, "image", "prune", *map(str, arguments)], capture_output=True, text=True, timeout=60,
        env={**os.environ, "ANDIRON_CACHE": str(puller.cache)})
    return json.loads(done.stdout) if done.returncode == 0 else done


def names(puller, place):
    return sorted(p.name for p in (puller.store / place).iterdir())


def test_each_layer_has_its_own_place_on_the_disk(registry, puller):
    kind = subprocess.run(["stat", "-f", "-c", "%T", puller.cache.parent], capture_output=True, text=True, check=True).stdout.strip()
    if not kind.startswith("ext"):
        pytest.skip(f"only ext4 has the mark, and this is {kind}")
    push(registry, "spread", tar(("a", b"1")))
    puller.pull("spread:1")
    flags = subprocess.run(["lsattr", "-d", puller.store / "trash"], capture_output=True, text=True, check=True).stdout
    assert "T" in flags.split()[0]
    layer, = names(puller, "layers")
    assert (puller.store / "layers" / layer / "fs/a").read_text() == "1"


def test_what_is_not_used_goes_and_what_is_used_stays(registry, puller):
    shared = tar(("shared", b"s" * 100_000))
    push(registry, "one", shared, tar(("one", b"1" * 200_000)))
    push(registry, "two", shared, tar(("two", b"2" * 300_000)))
    one, two = puller.pull("one:1"), puller.pull("two:1")
    with open(puller.store / "locks" / ("root-" + one["digest"][7:]), "w") as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        done = prune(puller, "--all")
    assert done["images"] == 1 and done["layers"] == 1
    assert names(puller, "roots") == [one["digest"][7:]] and len(names(puller, "layers")) == 2
    assert (one["files"] / "shared").exists() and not two["files"].exists()
    assert names(puller, "trash") == []
    assert puller.pull("one:1")["receivedBytes"] == 0
    assert prune(puller, "--all")["images"] == 1 and names(puller, "layers") == []


def test_the_store_is_kept_to_a_size_and_the_newest_stay(registry, puller):
    digests = []
    for index in range(3):
        push(registry, f"sized{index}", tar((f"f{index}", os.urandom(100_000))))
        digests.append(puller.pull(f"sized{index}:1")["digest"][7:])
        time.sleep(1.1)
    puller.pull("sized0:1")
    assert prune(puller, "--keep-bytes", 200_000)["images"] == 1
    assert names(puller, "roots") == sorted([digests[0], digests[2]])
    assert prune(puller)["images"] == 0


def test_nothing_is_collected_while_an_image_is_pulled(registry, puller):
    proxy = r.FaultProxy(registry)
    layer = tar(("f", b"x"))
    push(registry, "pulling", layer)
    proxy.fault("GET .*/blobs/" + r.sha(layer), lambda h, a: time.sleep(2), times=1)
    process = puller.start("pulling:1", host=proxy.host)
    until(lambda: proxy.count("GET .*/blobs/" + r.sha(layer)), "the pull")
    done = prune(puller, "--all")
    assert done.returncode == 69 and "being pulled" in done.stderr
    assert process.communicate(timeout=30) and process.returncode == 0
    proxy.stop()


def test_a_layer_that_was_not_on_the_disk_when_the_machine_stopped_is_not_believed(registry, puller):
    push(registry, "boot", tar(("f", b"x" * 1000)))
    first = puller.pull("boot:1")
    for state in puller.store.glob("*/*/state"):
        state.write_text("another-boot")
    (first["files"] / "f").unlink()
    again = puller.pull("boot:1")
    assert again["receivedBytes"] > 0 and (again["files"] / "f").exists()
    next((puller.store / "layers").glob("*/state")).write_text("durable")
    assert puller.pull("boot:1")["receivedBytes"] == 0


def test_killed_at_any_moment_the_next_pull_is_right(registry, puller):
    layers = [tar(*[(f"{i}/f{j}", os.urandom(20_000)) for j in range(60)]) for i in range(3)]
    push(registry, "killed", *layers)
    for delay in (0.01, 0.03, 0.05, 0.08, 0.12):
        process = puller.start("killed:1")
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for layer in (puller.store / "layers").glob("*") if (puller.store / "layers").exists() else []:
            assert layer.name.endswith(".tmp") or (layer / "record.json").exists()
    files = puller.pull("killed:1")["files"]
    for i in range(3):
        assert len(list((files / str(i)).iterdir())) == 60
    assert not list((puller.store / "layers").glob("*.tmp"))


def test_a_damaged_manifest_in_the_store_is_fetched_again(registry, puller):
    push(registry, "damaged", tar(("f", b"x")))
    digest = puller.pull("damaged:1")["digest"][7:]
    blob = puller.store / "blobs" / digest
    blob.write_bytes(blob.read_bytes().replace(b"layers", b"LAYERS"))
    assert puller.pull("damaged:1")["digest"][7:] == digest


def test_a_full_disk_leaves_nothing_and_says_what_to_do(registry, puller, tmp_path):
    push(registry, "full", tar(("f", os.urandom(8 << 20))))
    cache = tmp_path / "small"
    cache.mkdir()
    command = (f"mount -t tmpfs -o size=3m none {cache} && {ANDIRON} image pull {registry.host}/full:1 --timeout 20 "
               f"--username {USER} --password '{PASSWORD}'; code=$?; find {cache} -type f -size +1k; exit $code")
    flags = ["-m"] if os.getuid() == 0 else ["-rm"]
    done = subprocess.run(
        ["unshare", *flags, "sh", "-c", command], capture_output=True, text=True, timeout=60,
        env={**os.environ, "ANDIRON_CACHE": str(cache)})
    assert done.returncode == 73 and "error[AN9011]" in done.stderr and "image prune" in done.stderr, done.stderr
    assert "ENOSPC" in done.stderr and "layer" in done.stderr
    assert not [line for line in done.stdout.splitlines() if "/layers/" in line or "/partial/" in line], done.stdout


def test_on_a_terminal_each_layer_has_a_bar(registry, puller):
    push(registry, "bars", tar(("a", os.urandom(3 << 20))), tar(("b", os.urandom(2 << 20))))
    main, other = pty.openpty()
    command = [ANDIRON, "image", "pull", f"{registry.host}/bars:1", "--username", USER, "--password", PASSWORD]
    process = subprocess.Popen(command, stderr=other, stdout=subprocess.DEVNULL, env={**os.environ, "ANDIRON_CACHE": str(puller.cache)})
    os.close(other)
    seen = b""
    while True:
        try:
            chunk = os.read(main, 65536) if select.select([main], [], [], 30)[0] else b""
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(30) == 0
    text = seen.decode()
    assert "█" * 24 in text and "\x1b[2A" in text and "Pull complete" in text
