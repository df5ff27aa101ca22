"""Pulling an image beside skopeo + umoci: 5 layers, about 320 MB packed, 745 MB unpacked, 32 000 files.

images.py [--rounds N] [--folder F] prints a table; both sides pull from the same docker-registry on loopback, into
fresh folders. The floor is what this machine needs
for creating as many files and for inflating as many bytes on its cores, measured in the same run.
"""

import argparse
import concurrent.futures
import io
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests/Integration"))
ANDIRON = os.environ.get("ANDIRON", str(ROOT / ".build/release/andiron"))
os.environ.setdefault("ANDIRON", ANDIRON)

import registry as r  # noqa: E402

# Files and bytes of each layer, unpacked; the model does not get smaller.
LAYERS = [("base", 12_000, 260 << 20), ("python", 8_000, 160 << 20), ("deps", 12_000, 220 << 20), ("model", 1, 60 << 20), ("code", 700, 22 << 20)]


def contents(generator, size, share):
    """Bytes of which about `share` are left after gzip."""
    noise = generator.randbytes(int(size * share))
    text = (b"def function_%d(argument):\n    return argument\n" % generator.randrange(1000)) * (size // 40 + 1)
    mixed = bytearray()
    step = 512
    for start in range(0, len(noise), step):
        mixed += noise[start:start + step]
        mixed += text[:int(step * (1 - share) / max(share, 0.01))]
    return bytes(mixed[:size]).ljust(size, b" ")


def layer(name, count, size, seed):
    generator = random.Random(seed)
    output = io.BytesIO()
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    with tarfile.open(fileobj=output, mode="w") as archive:
        for index in range(count):
            folder = f"opt/{name}/{index % 97}/{index % 13}"
            info = tarfile.TarInfo(f"{folder}/file{index}.py")
            info.size = max(1, int(size / count * generator.uniform(0.2, 1.8))) if count > 1 else size
            archive.addfile(info, io.BytesIO(contents(generator, info.size, 1 if name == "model" else 0.36)))
    data = output.getvalue()
    return packer.compress(data) + packer.flush(), r.sha(data), len(data)


def build(folder):
    """The layers, made once and kept."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "image.json"
    if not made.exists():
        facts = []
        for index, (name, count, size) in enumerate(LAYERS):
            packed, diff_id, unpacked = layer(name, count, size, index)
            (folder / name).write_bytes(packed)
            facts.append({"name": name, "diff_id": diff_id, "packed": len(packed), "unpacked": unpacked, "files": count})
        made.write_text(json.dumps(facts))
    return json.loads(made.read_text())


def timed(command, **options):
    # What the side before has left to be written would be written on this side's time.
    os.sync()
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr[-500:]
    return time.monotonic() - start, done.stdout


def inflate(path):
    machine = zlib.decompressobj(31)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 18):
            machine.decompress(chunk)


def floor(folder, work):
    """Seconds for inflating on all cores and for creating the files."""
    os.sync()
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(abs, range(4)))
        start = time.monotonic()
        list(pool.map(inflate, [folder / name for name, _, size in sorted(LAYERS, key=lambda l: -l[2])]))
        inflating = time.monotonic() - start
    start = time.monotonic()
    for name, count, _ in LAYERS:
        for index in range(count):
            path = work / name / str(index % 97)
            if index < 97:
                path.mkdir(parents=True)
            os.close(os.open(f"{path}/file{index}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return inflating, time.monotonic() - start


def resident(command, environment):
    """Peak resident memory of a command, in megabytes."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    done = subprocess.run([sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default="/var/tmp/andiron-bench-image", help="where the image is kept between runs")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    source = pathlib.Path(options.folder)
    facts = build(source)
    work = pathlib.Path(tempfile.mkdtemp(prefix="andiron-images-", dir="/var/tmp"))
    # ext4 makes files slowly where others were deleted minutes ago (decision 014): each side's folder is put elsewhere
    # on the disk, by its name.
    subprocess.run(["chattr", "+T", work], capture_output=True)
    token = work.name[-8:]
    server = r.Registry(work / "registry")
    rows = []
    try:
        blobs = [(source / f["name"]).read_bytes() for f in facts]
        ids = [f["diff_id"] for f in facts]
        config, manifest = r.image(blobs, diff_ids=ids)
        for blob in (config, *blobs):
            server.push_blob("bench", blob)
        server.push_manifest("bench", "1", manifest)
        code = r.tar(*[(f"opt/code/{i}.py", os.urandom(50_000)) for i in range(280)])
        server.push_blob("bench", code)
        config2, manifest2 = r.image([*blobs[:4], code], diff_ids=[*ids[:4], r.sha(r.unpacked(code))])
        server.push_blob("bench", config2)
        server.push_manifest("bench", "2", manifest2)
        del blobs
        environment = lambda n: {**os.environ, "ANDIRON_CACHE": str(work / f"cache{n}{token}"), "HOME": str(work)}
        pull = lambda tag: [ANDIRON, "image", "pull", f"{server.host}/bench:{tag}", "--username", r.USER, "--password", r.PASSWORD]
        ours, theirs, floors, updates, cached = [], [], [], [], []
        for n in range(options.rounds):
            ours.append(timed(pull(1), env=environment(n))[0])
            cached.append(timed(pull(1), env=environment(n))[0])
            updates.append(timed(pull(2), env=environment(n))[0])
            floors.append(floor(source, work / f"floor{n}{token}"))
            if not options.no_peer:
                layout = work / f"layout{n}{token}"
                copy = timed(["skopeo", "copy", "-q", "--src-tls-verify=false", "--src-creds", f"{r.USER}:{r.PASSWORD}",
                              f"docker://{server.host}/bench:1", f"oci:{layout}:1"])[0]
                theirs.append(copy + timed(["umoci", "unpack", "--rootless", "--image", f"{layout}:1", str(work / f"bundle{n}{token}")])[0])
        memory = resident(pull(1), environment("memory"))
        packed, unpacked = sum(f["packed"] for f in facts) / 1e6, sum(f["unpacked"] for f in facts) / 1e6
        median = statistics.median
        lowest = median(a + b for a, b in floors)
        rows = [
            ("image", f"{len(facts)} layers, {packed:.0f} MB packed, {unpacked:.0f} MB unpacked, {sum(f['files'] for f in facts)} files", ""),
            ("pull + verify + unpack", f"{median(ours):.2f} s ({', '.join(f'{t:.2f}' for t in ours)})", ""),
            ("floor: inflate on all cores, then create the files", f"{lowest:.2f} s ({median(a for a, _ in floors):.2f} + {median(b for _, b in floors):.2f})", ""),
            ("against the floor", f"{median(ours) / lowest:.2f} ×", "at most 1.5 ×"),
        ]
        if theirs:
            rows += [
                ("skopeo copy + umoci unpack", f"{median(theirs):.1f} s ({', '.join(f'{t:.1f}' for t in theirs)})", ""),
                ("against them", f"{median(theirs) / median(ours):.1f} × faster", "at least 5 ×"),
            ]
        rows += [
            ("update of code only, a 14 MB layer", f"{median(updates):.2f} s", "under 0.5 s"),
            ("everything cached: one HEAD", f"{median(cached) * 1000:.0f} ms", "one HEAD"),
            ("peak memory of a pull", f"{memory:.0f} MB", "under 100 MB"),
        ]
    finally:
        server.stop()
        shutil.rmtree(work, ignore_errors=True)
    print("| images | measured | goal |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
