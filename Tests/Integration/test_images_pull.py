"""Pulling from a real registry: what comes is what was pushed, by whatever tool, or nothing comes."""

import concurrent.futures
import gzip
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import time

import pytest

import registry as r
from conftest import ANDIRON, until
from registry import USER, PASSWORD, hard_link, link, tar


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    server = r.Registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture
def proxy(registry):
    server = r.FaultProxy(registry)
    yield server
    server.stop()


@pytest.fixture
def puller(tmp_path, registry):
    return Puller(tmp_path / "cache", registry)


class Puller:
    def __init__(self, cache, registry):
        self.cache, self.registry = cache, registry
        self.store = cache / "images" / "v1"

    def start(self, reference, *arguments, host=None, username=USER, password=PASSWORD, timeout=20, env=None):
        command = [ANDIRON, "image", "pull", f"{host or self.registry.host}/{reference}", "--timeout", str(timeout)]
        command += ["--username", username, "--password", password] if username else []
        return subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "ANDIRON_CACHE": str(self.cache), "HOME": str(self.cache), **(env or {})},
        )

    def pull(self, reference, *arguments, **options):
        process = self.start(reference, *arguments, **options)
        output, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
        result = json.loads(output)
        result["errors"] = errors
        result["files"] = pathlib.Path(result["folder"])
        return result

    def refused(self, reference, code, *words, **options):
        process = self.start(reference, **options)
        output, errors = process.communicate(timeout=90)
        assert process.returncode not in (0, -11, -6), output
        assert f"error[{code}]" in errors, errors
        for word in words:
            assert word in errors, errors
        # Which image, and what to do about it.
        assert reference.split(":")[0].split("@")[0] in errors and "\n  try: " in errors, errors
        self.is_clean()
        return errors

    def is_clean(self):
        """Nothing that was not verified has a name that anybody looks at."""
        for name in ("layers", "roots"):
            folder = self.store / name
            for entry in folder.iterdir() if folder.exists() else []:
                assert not entry.name.endswith(".tmp"), entry
                assert (entry / "state").exists() or (entry / "layers").exists(), entry


def push(registry, name, *layers, **options):
    return registry.push(name, "1", list(layers), **options)


def test_a_name_may_begin_with_what_combines_with_the_slash_before_it(registry, puller):
    names = ["first", "\u0301second", "\u0301"]
    push(registry, "combining", tar(("a", None), *[(f"a/{name}", name.encode()) for name in names]))
    files = puller.pull("combining:1")["files"]
    assert {p.name: p.read_text() for p in (files / "a").iterdir()} == {name: name for name in names}


def test_what_combines_with_a_slash_does_not_lead_through_a_link(registry, puller, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    push(registry, "through", tar(link("a", str(outside)), ("a/\u0301b/c", b"x")))
    puller.refused("through:1", "AN9008")
    assert list(outside.iterdir()) == []


def test_what_comes_is_what_was_pushed_and_the_second_pull_costs_one_head(registry, puller):
    layers = [tar(("a", None), ("a/x.txt", b"one")), tar(("a/y.txt", b"two"), ("b/c/z.txt", b"three"))]
    digest = push(registry, "plain", *layers)
    first = puller.pull("plain:1")
    assert first["digest"] == digest
    assert (first["files"] / "a/x.txt").read_text() == "one"
    assert (first["files"] / "a/y.txt").read_text() == "two"
    assert (first["files"] / "b/c/z.txt").read_text() == "three"
    before = len([e for e in registry.log() if e.get("msg") == "response completed"])
    second = puller.pull("plain:1")
    assert second["folder"] == first["folder"] and second["receivedBytes"] == 0
    requests = [e for e in registry.log() if "response completed" in e.get("msg", "")][before:]
    assert [e["http.request.method"] for e in requests] == ["HEAD"]
    by_digest = puller.pull(f"plain@{digest}")
    assert by_digest["receivedBytes"] == 0


def test_images_made_by_umoci_and_pushed_by_skopeo_are_pulled(registry, puller, tmp_path):
    site = tmp_path / "site"
    (site / "score").mkdir(parents=True)
    (site / "host.json").write_text('{"version": "2.0"}')
    (site / "score" / "data.bin").write_bytes(os.urandom(100_000))
    layout = tmp_path / "layout"
    for command in (
        ["init", "--layout", layout], ["new", "--image", f"{layout}:v1"],
        ["insert", "--rootless", "--image", f"{layout}:v1", site, "/home/site/wwwroot"],
        ["config", "--image", f"{layout}:v1", "--config.env", "AzureWebJobsScriptRoot=/home/site/wwwroot"],
    ):
        subprocess.run(["umoci", *map(str, command)], check=True, capture_output=True)
    for tag, form in (("oci", "oci"), ("docker", "v2s2")):
        subprocess.run(
            ["skopeo", "copy", "-q", "--format", form, "--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}",
             f"oci:{layout}:v1", f"docker://{registry.host}/umoci:{tag}"], check=True, capture_output=True)
        pulled = puller.pull(f"umoci:{tag}")
        found = pulled["files"] / "home/site/wwwroot/score/data.bin"
        assert found.read_bytes() == (site / "score/data.bin").read_bytes()


def test_whiteouts_hide_lower_layers_and_opaque_folders_all_of_them(registry, puller):
    lower = tar(("d/keep", b"k"), ("d/gone", b"g"), ("o/old", b"old"), ("tree/deep/file", b"f"), ("swap", b"file"))
    upper = tar(
        ("d/.wh.gone", b""), ("o/new", b"new"), ("o/.wh..wh..opq", b""), (".wh.tree", b""), ("tree/again", b"a"),
        ("swap/inside", b"now a folder"),
    )
    push(registry, "whiteouts", lower, upper)
    files = puller.pull("whiteouts:1")["files"]
    found = sorted(str(p.relative_to(files)) for p in files.rglob("*"))
    names = lambda folder: sorted(p.name for p in (files / folder).iterdir())
    assert names("d") == ["keep"] and names("o") == ["new"] and names("tree") == ["again"], found
    assert (files / "swap/inside").read_text() == "now a folder"


def test_legal_links_unpack_and_stay_inside(registry, puller):
    lower = tar(("usr/lib/libm.so", b"m"), link("lib", "usr/lib"), ("opt/python/bin/python", b"p"), link("py", "/opt/python"))
    upper = tar(
        ("lib/libx.so", b"x"), link("a", "."), link("c", "usr/../usr/lib"), hard_link("usr/hard", "usr/lib/libm.so"),
        link("up", "../../../etc/hostname"), ("files/f", b"1"), hard_link("files/g", "files/f"),
    )
    push(registry, "links", lower, upper)
    files = puller.pull("links:1")["files"]
    assert (files / "usr/lib/libx.so").read_text() == "x" and (files / "lib/libx.so").read_text() == "x"
    assert (files / "lib").is_symlink() and (files / "c/libm.so").read_text() == "m"
    assert (files / "usr/hard").read_text() == "m" and (files / "files/g").read_text() == "1"
    assert (files / "py/bin/python").read_text() == "p", os.readlink(files / "py")
    assert os.readlink(files / "py").startswith(str(files))
    assert not (files / "up").exists() and str(files) in os.readlink(files / "up")


def test_modes_times_and_attributes_are_kept_as_far_as_they_are_harmless(registry, puller):
    push(
        registry, "modes",
        tar(("run.sh", b"#!", {"mode": 0o4755, "mtime": 1_500_000_000, "uid": 12345}), ("private", b"p", {"mode": 0o000}),
            ("tty", b"", {"type": tarfile.CHRTYPE, "devmajor": 5}), ("pipe", b"", {"type": tarfile.FIFOTYPE})))
    files = puller.pull("modes:1")["files"]
    status = (files / "run.sh").stat()
    assert status.st_mode & 0o7777 == 0o755 and status.st_mtime == 1_500_000_000 and status.st_uid == os.getuid()
    assert (files / "private").read_text() == "p"
    assert sorted(p.name for p in files.iterdir()) == ["private", "run.sh"]


def test_zstd_plain_and_concatenated_gzip_layers(registry, puller):
    if not shutil.which("zstd"):
        pytest.fail("zstd is needed")
    content = tar(("z.txt", b"z" * 100_000), pack=False)
    packed = subprocess.run(["zstd", "-c"], input=content, stdout=subprocess.PIPE, check=True).stdout
    half = len(content) // 2
    joined = gzip.compress(content[:half] , mtime=0) + gzip.compress(content[half:], mtime=1)
    plain = tar(("p.txt", b"p"), pack=False)
    joined_tar = content.replace(b"z.txt", b"j.txt")
    push(registry, "zstd", packed, plain,
         media_types={0: r.OCI + "layer.v1.tar+zstd", 1: r.OCI + "layer.v1.tar"})
    files = puller.pull("zstd:1")["files"]
    assert (files / "z.txt").stat().st_size == 100_000 and (files / "p.txt").read_text() == "p"
    push(registry, "joined", joined)
    assert (puller.pull("joined:1")["files"] / "z.txt").stat().st_size == 100_000


def test_an_index_gives_the_image_for_this_machine(registry, puller):
    entries = []
    for architecture in ("arm64", "amd64"):
        layer = tar((f"{architecture}.txt", b"x"))
        config, manifest = r.image([layer], config={"architecture": architecture})
        for blob in (config, layer):
            registry.push_blob("index", blob)
        body = json.dumps(manifest).encode()
        digest = registry.push_manifest("index", r.sha(body), body)
        entries.append({
            "mediaType": manifest["mediaType"], "digest": digest, "size": len(body),
            "platform": {"os": "linux", "architecture": architecture}})
    for tag, media_type in (("oci", r.OCI + "index.v1+json"), ("list", r.DOCKER + "distribution.manifest.list.v2+json")):
        registry.push_manifest("index", tag, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, media_type)
        assert (puller.pull(f"index:{tag}")["files"] / "amd64.txt").exists()
    only_arm = {"schemaVersion": 2, "mediaType": r.OCI + "index.v1+json", "manifests": entries[:1]}
    registry.push_manifest("index", "arm", only_arm, r.OCI + "index.v1+json")
    puller.refused("index:arm", "AN9006", "no image found in image index for architecture amd64", "linux/arm64")


def test_layers_that_say_they_are_a_base_can_be_left_out(registry, puller):
    layers = [tar(("bin/sh", b"base")), tar(("code.py", b"code"))]
    push(registry, "roles", *layers, annotations={0: {"io.andiron.layer.role": "base"}})
    files = puller.pull("roles:1", "--skip-base")["files"]
    assert (files / "code.py").exists() and not (files / "bin").exists()
    assert (puller.pull("roles:1")["files"] / "bin/sh").exists()


# What is refused.

@pytest.mark.parametrize("name, layer, code, words", [
    ("traversal", tar(("../../evil", b"x")), "AN9008", "leads out"),
    ("inner-traversal", tar(("a/../../evil", b"x")), "AN9008", "leads out"),
    ("write-through-absolute", tar(link("e", "/tmp"), ("e/evil", b"x")), "AN9008", "goes through a link"),
    ("write-through-relative", tar(link("e", "../../../../tmp"), ("e/evil", b"x")), "AN9008", "link that leads out"),
    ("link-chain-out", tar(("d", None), link("d/a", ".."), link("d/b", "a/../.."), ("d/b/evil", b"x")), "AN9008", "leads out"),
    ("circle", tar(link("a", "b"), link("b", "a"), ("a/x", b"x")), "AN9008", "circle"),
    ("hard-link-absolute", tar(hard_link("h", "/etc/passwd")), "AN9008", "hard link"),
    ("hard-link-dots", tar(hard_link("h", "../../etc/passwd")), "AN9008", "hard link"),
    ("hard-link-through-link", tar(link("e", "/etc"), hard_link("h", "e/passwd")), "AN9008", "hard link"),
    ("hard-link-nowhere", tar(hard_link("h", "etc/passwd")), "AN9008", "hard link"),
    ("whiteout-of-parent", tar(("d/.wh...", b"")), "AN9008", "whiteout"),
    ("whiteout-of-self", tar(("d/.wh..", b"")), "AN9008", "whiteout"),
    ("whiteout-of-nothing", tar(("d/.wh.", b"")), "AN9008", "whiteout"),
    ("file-then-folder", tar(("f", b"x"), ("f/g", b"x")), "AN9008", "a file and then a folder"),
    ("long-name", tar(("n" * 256, b"x")), "AN9009", "256 bytes"),
    ("deep", tar(("/".join(["d"] * 300), b"x")), "AN9009", "folders deep"),
    ("sparse-giant", None, "AN9009", "the limit is"),
    ("bomb", gzip.compress(tar(("zeros", b"\0" * (150 << 20)), pack=False), 9, mtime=0), "AN9009", "as a bomb does"),
    ("bomb-zstd", subprocess.run(["zstd", "-c"], input=tar(("zeros", b"\0" * (150 << 20)), pack=False), stdout=subprocess.PIPE).stdout,
     "AN9009", "as a bomb does"),
    ("truncated-tar", gzip.compress(tar(("f", b"x" * 5000), pack=False)[:2000], mtime=0), "AN9007", "tar"),
    ("bad-checksum", gzip.compress(b"f" + b"\0" * 2000, mtime=0), "AN9007", "tar"),
    ("truncated-gzip", tar(("f", os.urandom(5000)))[:-900], "AN9007", "ends in the middle"),
    ("damaged-gzip", b"\x1f\x8b\x08\x00" + b"\xff" * 200, "AN9007", "damaged"),
], ids=lambda value: value if isinstance(value, str) and value.isascii() and len(value) < 40 else "")
def test_hostile_and_damaged_layers_leave_nothing(registry, puller, name, layer, code, words):
    if name == "sparse-giant":
        info = tarfile.TarInfo("giant")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(8 << 40),
                            "GNU.sparse.name": "giant"}
        map_block = b"0\n".ljust(512, b"\0")
        info.size = len(map_block)
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(info, io.BytesIO(map_block))
        layer = gzip.compress(output.getvalue(), mtime=0)
    try:
        ids = [r.sha(r.unpacked(layer))]
    except (EOFError, OSError, Exception):
        ids = [r.sha(b"")]
    push(registry, name, layer, diff_ids=ids)
    puller.refused(f"{name}:1", code, words, name)
    assert not list((puller.store / "layers").iterdir()) and not list((puller.store / "partial").iterdir())
    assert not pathlib.Path("/tmp/evil").exists()


@pytest.mark.parametrize("what, options, code, words", [
    ("size-too-small", {"sizes": {0: 10}}, "AN9007", "promised"),
    ("size-too-large", {"sizes": {0: 99999}}, "AN9007", "promised"),
    ("wrong-diff-id", {"diff_ids": ["sha256:" + "0" * 64]}, "AN9007", "the configuration promised"),
    ("too-few-diff-ids", {"diff_ids": []}, "AN9005", "0 diff_ids for 1 layers"),
    ("other-platform", {"config": {"architecture": "s390x"}}, "AN9006", "linux/s390x"),
])
def test_images_that_lie_about_themselves(registry, puller, what, options, code, words):
    push(registry, what, tar(("f", b"x" * 1000)), **options)
    puller.refused(f"{what}:1", code, words)


def test_images_of_kinds_that_are_not_supported(registry, puller):
    push(registry, "types", tar(("f", b"x")), media_types={0: "application/x-strange"})
    puller.refused("types:1", "AN9006", "unknown media type 'application/x-strange'")
    inner = {"schemaVersion": 2, "mediaType": r.OCI + "index.v1+json", "manifests": []}
    for depth in range(4):
        body = json.dumps(inner).encode()
        registry.push_manifest("types", f"n{depth}", body, r.OCI + "index.v1+json")
        inner = {"schemaVersion": 2, "mediaType": r.OCI + "index.v1+json", "manifests": [
            {"mediaType": r.OCI + "index.v1+json", "digest": r.sha(body), "size": len(body)}]}
    puller.refused("types:n3", "AN9006", "nested")
    puller.refused("types:n0", "AN9006", "no image found", "the index is empty")


def test_unknown_names_and_credentials(registry, puller, tmp_path):
    push(registry, "known", tar(("f", b"x")))
    puller.refused("known:2", "AN9004", "manifest unknown", "tag 2")
    puller.refused("unknown:1", "AN9004", "repository")
    puller.refused(f"known:{'a' * 64}", "AN9004", "did you mean", f"known@sha256:{'a' * 64}")
    puller.refused("known:1", "AN9003", "refuses the credentials of 'myacr'", password="wrong")
    puller.refused("known:1", "AN9003", "wants credentials", "DOCKER_REGISTRY_SERVER_USERNAME", username=None)
    puller.refused("Known:1", "AN9001", "must be lowercase")
    config = tmp_path / "docker"
    config.mkdir()
    auth = r.base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (config / "config.json").write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
    assert puller.pull("known:1", username=None, env={"DOCKER_CONFIG": str(config)})


# Between here and the registry.

def big_layer(megabytes=3):
    return tar(("big", os.urandom(megabytes << 20)))


def test_a_layer_that_is_cut_goes_on_where_it_was(registry, proxy, puller):
    layer = big_layer()
    push(registry, "cut", layer)
    proxy.fault("GET .*/blobs/" + r.sha(layer), r.cut(1 << 20), times=2)
    assert puller.pull("cut:1", host=proxy.host)
    ranges = [h.get("Range") for m, p, h in proxy.requests if r.sha(layer) in p and m == "GET"]
    assert len(ranges) == 3 and ranges[0] is None and all(v.startswith("bytes=") for v in ranges[1:])
    assert ranges[2] != ranges[1], ranges


def test_a_pull_that_was_killed_goes_on_where_it_was(registry, proxy, puller):
    layer = big_layer()
    push(registry, "killed", layer)
    proxy.fault("GET .*/blobs/" + r.sha(layer), lambda h, a: (h.give(200, [], a.content[: 1 << 20], len(a.content)), time.sleep(30)))
    process = puller.start("killed:1", host=proxy.host)
    partial = puller.store / "partial" / r.sha(layer)[7:]
    until(lambda: partial.exists() and partial.stat().st_size == 1 << 20, "half of the layer")
    process.kill()
    process.communicate()
    proxy.faults.clear()
    proxy.requests.clear()
    pulled = puller.pull("killed:1", host=proxy.host)
    ranges = [h.get("Range") for m, p, h in proxy.requests if r.sha(layer) in p]
    assert ranges == [f"bytes={1 << 20}-"] and pulled["receivedBytes"] == len(layer) - (1 << 20)
    assert not partial.exists()


@pytest.mark.parametrize("name, fault, code, words", [
    ("corrupted", r.corrupted(2000), "AN9007", ""),
    ("corrupted-end", r.corrupted(-1), "AN9007", ""),
    ("empty", r.truncated(0), "AN9007", "promised"),
    ("endless", r.endless, "AN9007", ""),
    ("slow", r.slow, "AN9010", "time limit"),
    ("silent", r.silent, "AN9010", "time limit"),
    ("gone", r.cut(0), "AN9002", "127.0.0.1"),
    ("html", r.status(200, ("Content-Type", "text/html"), body=b"<html>sign in</html>"), "AN9007", "promised"),
    ("storm", r.status(503), "AN9012", "503"),
    ("busy", r.status(429, ("Retry-After", "3600")), "AN9012", "3600 s"),
    ("redirects", r.status(307, ("Location", "/v2/loop")), "AN9005", "redirects"),
    ("denied", r.status(403, body=b'{"errors":[{"code":"DENIED","message":"no rights"}]}'), "AN9003", "no rights"),
])
def test_blobs_that_do_not_come_as_they_should(registry, proxy, puller, name, fault, code, words):
    layer = tar(("f", os.urandom(50_000)))
    push(registry, name, layer)
    proxy.fault(r"GET .*(/blobs/" + r.sha(layer) + "|/v2/loop)", fault)
    start = time.monotonic()
    puller.refused(f"{name}:1", code, f"{proxy.host}/{name}:1", words, "layer", host=proxy.host, timeout=3 if name in ("slow", "silent") else 6)
    assert time.monotonic() - start < 20
    assert not list((puller.store / "layers").iterdir())


@pytest.mark.parametrize("name, fault, code, words", [
    ("m-html", r.status(200, ("Content-Type", "text/html"), body=b"<html>"), "AN9005", "text/html"),
    ("m-schema1", r.status(200, ("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"), body=b'{"schemaVersion":1}'),
     "AN9006", "has not been supported yet"),
    ("m-storm", r.status(503), "AN9012", "503"),
    ("m-busy", r.status(429, ("Retry-After", "3600")), "AN9012", "3600 s"),
    ("m-redirects", r.status(307, ("Location", "/v2/loop/manifests/1")), "AN9005", "redirects"),
    ("m-corrupted", r.of("GET", r.corrupted(30)), "AN9007", "digest"),
    ("m-truncated", r.of("GET", r.truncated(100)), "AN9007", "digest"),
    ("m-silent", r.silent, "AN9010", "time limit"),
])
def test_manifests_that_do_not_come_as_they_should(registry, proxy, puller, name, fault, code, words):
    push(registry, name, tar(("f", b"x")))
    proxy.fault(r"(GET|HEAD) .*/manifests/", fault)
    puller.refused(f"{name}:1", code, words, host=proxy.host, timeout=2)


def test_short_storms_are_waited_out(registry, proxy, puller):
    layer = tar(("f", b"x"))
    push(registry, "storm-over", layer)
    proxy.fault("HEAD .*/manifests/", r.status(503, ("Retry-After", "1")), times=2)
    proxy.fault("GET .*/blobs/" + r.sha(layer), r.status(500), times=2)
    assert puller.pull("storm-over:1", host=proxy.host)


def test_a_tag_that_moves_in_the_middle_does_not_mix_images(registry, proxy, puller):
    old = push(registry, "moving", tar(("f", b"old")))

    def move(handler, answer):
        if answer.headers.get("Docker-Content-Digest") == old:
            push(registry, "moving", tar(("f", b"new")))
        return False

    proxy.fault("HEAD .*/manifests/1", move, times=1)
    pulled = puller.pull("moving:1", host=proxy.host)
    assert pulled["digest"] == old and (pulled["files"] / "f").read_text() == "old"
    assert (puller.pull("moving:1", host=proxy.host)["files"] / "f").read_text() == "new"


def test_two_pulls_of_one_image_at_once_share_the_work(registry, proxy, puller):
    layer = big_layer()
    push(registry, "twice", layer)
    proxy.fault("GET .*/blobs/" + r.sha(layer), lambda h, a: time.sleep(0.5), times=1)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: puller.pull("twice:1", host=proxy.host), range(2)))
    assert results[0]["folder"] == results[1]["folder"]
    assert proxy.count("GET .*/blobs/" + r.sha(layer)) == 1


def test_the_registry_gone_in_the_middle(registry, proxy, puller, tmp_path):
    own = r.Registry(tmp_path / "own")
    gone = r.FaultProxy(own)
    layer = big_layer()
    push(own, "gone", layer)

    def leave(handler, answer):
        own.stop()
        return r.cut(1000)(handler, answer)

    gone.fault("GET .*/blobs/" + r.sha(layer), leave, times=1)
    puller.refused("gone:1", "AN9002", "layer", host=gone.host, timeout=10)
    gone.stop()


def test_credentials_do_not_follow_a_redirect(registry, puller, proxy, tmp_path):
    layer = tar(("f", b"redirected"))
    push(registry, "redirected", layer)
    seen = []

    class Elsewhere(r.http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", str(len(layer)))
            self.end_headers()
            self.wfile.write(layer)

        def log_message(self, *_):
            pass

    server = r.http.server.HTTPServer(("127.0.0.1", 0), Elsewhere)
    r.threading.Thread(target=server.serve_forever, daemon=True).start()
    proxy.fault("GET .*/blobs/" + r.sha(layer), r.status(307, ("Location", f"http://127.0.0.1:{server.server_address[1]}/x")))
    assert (puller.pull("redirected:1", host=proxy.host)["files"] / "f").read_text() == "redirected"
    assert len(seen) == 1 and "Authorization" not in seen[0]
    server.shutdown()
    server.server_close()


def test_memory_does_not_grow_with_the_image(registry, puller):
    push(registry, "large", *[tar((f"f{i}", os.urandom(1 << 20) * 60)) for i in range(3)])
    command = puller.start("large:1", timeout=60)
    command.communicate(timeout=90)
    usage = subprocess.run(
        ["python3", "-c", "import os,subprocess,sys,resource; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL,"
         " stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
         ANDIRON, "image", "pull", f"{registry.host}/large:1", "--username", USER, "--password", PASSWORD],
        env={**os.environ, "ANDIRON_CACHE": str(puller.cache) + "2"}, capture_output=True, text=True, timeout=90)
    assert int(usage.stdout) < 100_000, f"{usage.stdout} kB {usage.stderr}"


def test_the_size_of_a_manifest_at_the_limit_and_past_it(registry, proxy, puller):
    layer = tar(("f", b"x"))
    config, manifest = r.image([layer])
    for blob in (config, layer):
        registry.push_blob("size", blob)
    limit = 4 << 20
    body = json.dumps(manifest).encode()
    padded = body[:-1] + b" " * (limit - len(body)) + b"}"
    registry.push_manifest("size", "1", padded)
    assert len(padded) == limit and (puller.pull("size:1")["files"] / "f").exists()
    larger = padded[:-1] + b" }"
    proxy.fault("(HEAD|GET) .*/manifests/", r.status(
        200, ("Content-Type", r.OCI + "manifest.v1+json"), ("Docker-Content-Digest", r.sha(larger)), body=larger))
    errors = puller.refused("size:larger", "AN9009", f"more than the {limit} bytes", host=proxy.host)
    assert proxy.host in errors


def test_an_endless_manifest_takes_no_memory(registry, proxy, puller):
    push(registry, "endless-manifest", tar(("f", b"x")))
    proxy.fault("GET .*/manifests/", r.endless)
    puller.refused("endless-manifest:1", "AN9009", "manifest", host=proxy.host)


def test_a_zstd_window_at_the_limit_and_past_it(registry, puller):
    # The window is in the frame's head: 32 MiB is 1 << 25.
    for log, is_taken in ((25, True), (26, False)):
        content = tar((f"w{log}", b"w" * 1000), pack=False)
        packed = subprocess.run(["zstd", "-c", f"--zstd=wlog={log}", f"--long={log}"], input=content, stdout=subprocess.PIPE, check=True).stdout
        assert packed[4] & 0x20 == 0 and packed[5] >> 3 == log - 10, "the frame has no window of that size"
        push(registry, f"window{log}", packed, media_types={0: r.OCI + "layer.v1.tar+zstd"}, diff_ids=[r.sha(content)])
        if is_taken:
            assert (puller.pull(f"window{log}:1")["files"] / f"w{log}").exists()
        else:
            puller.refused(f"window{log}:1", "AN9007", "zstd")


def test_as_many_layers_as_may_be(registry, puller):
    layers = [tar((f"f{i}", b"x")) for i in range(3)]
    # The registry takes any number; the same layers again are the same work.
    for count in (512, 513):
        config, manifest = r.image([layers[i % 3] for i in range(count)])
        for blob in (config, *layers):
            registry.push_blob("many", blob)
        registry.push_manifest("many", str(count), manifest)
    assert len(list(puller.pull("many:512")["files"].iterdir())) == 3
    puller.refused("many:513", "AN9009", "513 layers; the limit is 512")


@pytest.mark.parametrize("name, fault, code, words", [
    ("c-html", r.status(200, ("Content-Type", "text/html"), body=b"<html>sign in</html>"), "AN9007", "is not what came"),
    ("c-cut", r.cut(20), "AN9002", "configuration"),
    ("c-corrupted", r.corrupted(30), "AN9007", "is not what came"),
    ("c-endless", r.endless, "AN9009", "configuration"),
    ("c-silent", r.silent, "AN9010", "time limit"),
    ("c-slow", r.slow, "AN9010", "time limit"),
    ("c-storm", r.status(503), "AN9012", "503"),
])
def test_configurations_that_do_not_come_as_they_should(registry, proxy, puller, name, fault, code, words):
    layer = tar(("f", b"x"))
    config, _ = r.image([layer])
    push(registry, name, layer)
    proxy.fault("GET .*/blobs/" + r.sha(config), fault)
    puller.refused(f"{name}:1", code, words, f"{proxy.host}/{name}:1", host=proxy.host, timeout=3)


def test_a_redirect_from_https_to_http_is_not_followed(tmp_path, monkeypatch):
    secure = r.Registry(tmp_path / "registry", tls=r.Authority(tmp_path / "authority"))
    layer = tar(("f", b"x"))
    push(secure, "down", layer)
    plain = r.FaultProxy(secure)
    # docker-registry itself sends its blobs elsewhere.
    secure.stop()
    redirecting = (secure.folder / "config.yml").read_text().replace(
        "  delete:", f"  redirect: {{disable: false}}\n  delete:") + (
        f"middleware: {{storage: [{{name: redirect, options: {{baseurl: 'http://{plain.host}'}}}}]}}\n")
    (secure.folder / "config.yml").write_text(redirecting)
    secure.process = subprocess.Popen(
        [r.REGISTRY, "serve", str(secure.folder / "config.yml")], stdout=open(secure.folder / "log", "a"), stderr=subprocess.STDOUT)
    until(secure.answers, "the registry")
    puller = Puller(tmp_path / "cache", secure)
    puller.refused("down:1", "AN9005", "redirects", "https is never left for http", env={"SSL_CERT_FILE": str(secure.tls.file)})
    assert plain.requests == []
    secure.stop()
    plain.stop()


def test_a_tag_that_names_another_manifest_than_its_digest(registry, proxy, puller):
    push(registry, "swapped", tar(("f", b"one")))
    other = push(registry, "swapped-other", tar(("f", b"two")))
    body = registry.request("GET", f"/v2/swapped-other/manifests/{other}", headers={"Accept": r.OCI + "manifest.v1+json"}).content
    proxy.fault("GET .*/manifests/", lambda h, a: h.give(200, [("Content-Type", r.OCI + "manifest.v1+json")], body) or True)
    puller.refused("swapped:1", "AN9007", "digest", host=proxy.host)
