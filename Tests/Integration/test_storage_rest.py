"""The storage folder over REST, by the real azure-storage-blob and azure-storage-queue packages."""

import base64
import concurrent.futures
import json
import os
import time
import urllib.error
import urllib.request

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient, ContentSettings
from azure.storage.queue import QueueServiceClient, TextBase64DecodePolicy, TextBase64EncodePolicy

from conftest import andiron, until
from test_blobs import Recorded, blob_function

KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def connection_string(host, key=KEY):
    return (
        f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
        f"BlobEndpoint={host.info['blob']};QueueEndpoint={host.info['queue']};"
    )


@pytest.fixture
def noted(app, start):
    return Recorded(app, start)


@pytest.fixture
def blobs(noted):
    host = noted.start()
    with BlobServiceClient.from_connection_string(connection_string(host)) as service:
        service.noted = noted
        service.host = host
        yield service


def test_containers(blobs):
    container = blobs.create_container("made", metadata={"colour": "red"})
    with pytest.raises(ResourceExistsError):
        blobs.create_container("made")
    assert container.get_container_properties().metadata == {"colour": "red"}
    container.set_container_metadata({"colour": "blue"})
    assert {c.name: c.metadata for c in blobs.list_containers(include_metadata=True)} == {"incoming": {}, "made": {"colour": "blue"}}
    assert [c.name for c in blobs.list_containers(name_starts_with="m")] == ["made"]
    container.upload_blob("a", b"x")
    container.delete_container()
    assert not container.exists()
    with pytest.raises(ResourceNotFoundError):
        container.delete_container()
    with pytest.raises(HttpResponseError):
        blobs.create_container("Bad_Name")
    assert blobs.get_service_properties()["analytics_logging"].version == "1.0"
    assert blobs.get_account_information()["sku_name"] == "Standard_LRS"


def test_an_uploaded_blob_starts_the_function(blobs):
    blob = blobs.get_blob_client("incoming", "by rest/ünï.json")
    blob.upload_blob(b"uploaded", metadata={"camera": "front"}, content_settings=ContentSettings(content_type="text/plain"))
    assert blobs.noted.settled(1) == ["uploaded"]
    assert (blobs.noted.incoming / "by rest" / "ünï.json").read_text() == "uploaded"
    properties = blob.get_blob_properties()
    assert (properties.size, properties.content_settings.content_type, properties.metadata) == (8, "text/plain", {"camera": "front"})
    with pytest.raises(ResourceExistsError):
        blob.upload_blob(b"again")
    blob.upload_blob(b"changed", overwrite=True)
    assert blobs.noted.settled(2) == ["changed", "uploaded"]
    # Metadata makes a new version, as in Azure.
    blob.set_blob_metadata({"camera": "back"})
    assert blobs.noted.settled(3).count("changed") == 2


def test_downloads_and_ranges(blobs):
    container = blobs.get_container_client("incoming")
    data = os.urandom(3_000_000)
    container.upload_blob("large", data)
    assert container.download_blob("large").readall() == data
    assert container.download_blob("large", offset=1000, length=500).readall() == data[1000:1500]
    container.upload_blob("empty", b"")
    assert container.download_blob("empty").readall() == b""
    with pytest.raises(ResourceNotFoundError):
        container.download_blob("none")
    assert not container.get_blob_client("none").exists()
    # What was dropped as a file is a blob.
    (blobs.noted.incoming / "file").write_text("dropped")
    assert container.download_blob("file").readall() == b"dropped"


def test_blocks(app, start):
    app.function("Hello")
    host = start(app, "--blob-port", "0", "--queue-port", "0")
    service = BlobServiceClient.from_connection_string(connection_string(host), max_single_put_size=1 << 20, max_block_size=1 << 20)
    service.create_container("data")
    data = os.urandom(5_500_000)
    blob = service.get_blob_client("data", "blocks")
    blob.upload_blob(data, max_concurrency=2)
    assert blob.download_blob(max_concurrency=2).readall() == data
    ids = [base64.b64encode(f"{number:04}".encode()).decode() for number in range(3)]
    for number, name in enumerate(ids):
        blob.stage_block(name, bytes([number]) * 10)
    committed, staged = blob.get_block_list("all")
    assert [block.id for block in staged] and len(staged) == 3
    with pytest.raises(HttpResponseError):
        blob.commit_block_list([BlobBlock(base64.b64encode(b"9999").decode())])
    blob.commit_block_list([BlobBlock(ids[2]), BlobBlock(ids[0])], metadata={"n": "2"})
    assert blob.download_blob().readall() == b"\x02" * 10 + b"\x00" * 10
    assert blob.get_blob_properties().metadata == {"n": "2"}
    copy = service.get_blob_client("data", "copy")
    copy.start_copy_from_url(blob.url)
    assert copy.download_blob().readall() == b"\x02" * 10 + b"\x00" * 10


def test_lists(blobs):
    container = blobs.create_container("listed")
    names = ["a/1", "a/2", "a/b/3", "b", "c d", "é", "z&<>\"'", "tab\there"]
    for name in names:
        container.upload_blob(name, name.encode(), metadata={"n": "1"})
    ordered = sorted(names, key=lambda name: name.encode())
    assert [blob.name for blob in container.list_blobs()] == ordered
    assert [blob.name for page in container.list_blobs(results_per_page=3).by_page() for blob in page] == ordered
    assert [blob.name for blob in container.list_blobs(name_starts_with="a/")] == ["a/1", "a/2", "a/b/3"]
    walked = [item.name for item in container.walk_blobs(delimiter="/")]
    assert sorted(walked) == ["a/"] + [name for name in ordered if "/" not in name]
    assert sorted(item.name for item in container.walk_blobs(name_starts_with="a/", delimiter="/")) == ["a/1", "a/2", "a/b/"]
    listed = next(iter(container.list_blobs(name_starts_with="b", include=["metadata"])))
    assert (listed.size, listed.metadata, listed.blob_type) == (1, {"n": "1"}, "BlockBlob")
    assert listed.etag == container.get_blob_client("b").get_blob_properties().etag.strip('"')


def test_conditions(blobs):
    blob = blobs.get_blob_client("incoming", "conditions")
    first = blob.upload_blob(b"one")["etag"]
    second = blob.upload_blob(b"two", etag=first, match_condition=MatchConditions.IfNotModified, overwrite=True)["etag"]
    assert first != second
    with pytest.raises(ResourceModifiedError):
        blob.upload_blob(b"three", etag=first, match_condition=MatchConditions.IfNotModified, overwrite=True)
    with pytest.raises(ResourceModifiedError):
        blob.delete_blob(etag=first, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(HttpResponseError) as caught:
        blob.download_blob(etag=second, match_condition=MatchConditions.IfModified)
    assert caught.value.status_code == 304
    blob.delete_blob(etag=second, match_condition=MatchConditions.IfNotModified)
    with pytest.raises(ResourceNotFoundError):
        blob.delete_blob()
    with pytest.raises(ResourceNotFoundError):
        blobs.get_blob_client("nowhere", "x").upload_blob(b"x")


def test_one_of_many_creators_wins(blobs):
    def create(number):
        try:
            blobs.get_blob_client("incoming", "race").upload_blob(f"{number}".encode())
            return number
        except ResourceExistsError:
            return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(40)) if number is not None]
    assert len(winners) == 1
    assert blobs.get_blob_client("incoming", "race").download_blob().readall() == f"{winners[0]}".encode()


def test_headers_are_kept(blobs):
    blob = blobs.get_blob_client("incoming", "headers")
    settings = ContentSettings(content_type="application/json", content_encoding="identity", content_language="en", cache_control="no-cache", content_disposition="inline")
    blob.upload_blob(b"{}", content_settings=settings)
    kept = blob.get_blob_properties().content_settings
    assert (kept.content_type, kept.content_encoding, kept.content_language, kept.cache_control, kept.content_disposition) == (
        "application/json", "identity", "en", "no-cache", "inline")
    blob.set_http_headers(ContentSettings(content_type="text/csv"))
    assert blob.get_blob_properties().content_settings.content_type == "text/csv"
    assert blob.download_blob().readall() == b"{}"


def test_receipts_are_blobs_of_the_hosts_container(blobs):
    (blobs.noted.incoming / "7.json").write_text("seven")
    blobs.noted.settled(1)
    container = blobs.get_container_client("azure-webjobs-hosts")
    [receipt] = list(container.list_blobs(name_starts_with="blobreceipts/", include=["metadata"]))
    host_id = blobs.host.call("GET", "/admin/host/status").json["id"]
    etag = blobs.get_blob_client("incoming", "7.json").get_blob_properties().etag
    assert receipt.name == f"blobreceipts/{host_id}/Host.Functions.Note/{etag}/incoming/7.json"
    assert receipt.metadata == {"Completed": "True"}
    assert container.get_blob_client(receipt.name).get_blob_properties().metadata == {"Completed": "True"}
    container.delete_blob(receipt.name)
    assert list(container.list_blobs()) == []
    blobs.noted.host.stop()
    blobs.noted.start()
    assert blobs.noted.settled(2) == ["seven", "seven"]


def test_a_wrong_key_is_refused(blobs):
    wrong = base64.b64encode(b"wrong").decode()
    with BlobServiceClient.from_connection_string(connection_string(blobs.host, wrong)) as service:
        with pytest.raises(HttpResponseError) as caught:
            service.create_container("x")
    assert caught.value.status_code == 403 and caught.value.error_code == "AuthenticationFailed"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(blobs.host.info["blob"] + "/incoming?restype=container&comp=list")
    assert refused.value.code == 403
    for path in ["/devstoreaccount1/incoming/..%2f..%2fhost.json", "/other/x", "/devstoreaccount1/%zz"]:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(blobs.host.info["blob"].rsplit("/", 1)[0] + path)
        assert refused.value.code in (400, 403, 404)


def test_names_that_lead_out_are_refused(blobs):
    container = blobs.get_container_client("incoming")
    for name in ["../host.json", "a/../../host.json", "a//b", "x" * 256, "back\\slash"]:
        with pytest.raises(HttpResponseError):
            container.get_blob_client(name).upload_blob(b"x")
    os.symlink(blobs.noted.app.folder, blobs.noted.incoming / "out")
    with pytest.raises(HttpResponseError):
        container.get_blob_client("out/host.json").download_blob()
    with pytest.raises(HttpResponseError):
        container.get_blob_client("out/written").upload_blob(b"x")
    assert not (blobs.noted.app.folder / "written").exists()


def test_queues(app, start):
    app.function("Hello")
    host = start(app, "--queue-port", "0", "--blob-port", "0")
    service = QueueServiceClient.from_connection_string(connection_string(host))
    queue = service.create_queue("orders", metadata={"colour": "red"})
    assert [q.name for q in service.list_queues()] == ["orders"]
    properties = queue.get_queue_properties()
    assert (properties.approximate_message_count, properties.metadata) == (0, {"colour": "red"})
    queue.set_queue_metadata({"colour": "blue"})
    sent = queue.send_message("one <&> ünï")
    queue.send_message("two", visibility_timeout=1)
    assert [m.content for m in queue.peek_messages(5)] == ["one <&> ünï"]
    [message] = queue.receive_messages(visibility_timeout=60)
    assert (message.id, message.content, message.dequeue_count) == (sent.id, "one <&> ünï", 1)
    assert list(queue.receive_messages()) == [] or True
    changed = queue.update_message(message, content="three", visibility_timeout=0)
    with pytest.raises(HttpResponseError):
        queue.delete_message(message.id, "wrong receipt")
    [again] = [m for m in queue.receive_messages(visibility_timeout=60) if m.content == "three"]
    assert again.dequeue_count == 2
    queue.delete_message(again)
    with pytest.raises(ResourceNotFoundError):
        queue.delete_message(again)
    until(lambda: [m.content for m in queue.peek_messages(5)] == ["two"], "the delayed one")
    queue.clear_messages()
    assert queue.get_queue_properties().approximate_message_count == 0
    queue.delete_queue()
    with pytest.raises(ResourceNotFoundError):
        queue.send_message("x")
    with pytest.raises(HttpResponseError):
        service.create_queue("Bad_Name")


def test_a_message_by_rest_starts_the_function(app, start):
    app.write("Order/function.json", {"bundle": "builtin:echo", "bindings": [
        {"name": "m", "type": "queueTrigger", "queueName": "orders"},
        {"name": "$return", "type": "queue", "direction": "out", "queueName": "answers"},
    ]})
    host = start(app)
    service = QueueServiceClient.from_connection_string(connection_string(host))
    policies = {"message_encode_policy": TextBase64EncodePolicy(), "message_decode_policy": TextBase64DecodePolicy()}
    service.create_queue("orders").close()
    orders = service.get_queue_client("orders", **policies)
    answers = service.get_queue_client("answers", **policies)
    orders.send_message('{"n": 1}')

    def answer():
        try:
            return list(answers.receive_messages())
        except ResourceNotFoundError:
            return []

    [message] = until(answer, "the answer")
    assert json.loads(message.content) == {"n": 1}
    # What is not Base64 goes to the poison queue, as in Azure.
    service.get_queue_client("orders").send_message("not base64 !")
    poison = service.get_queue_client("orders-poison")
    until(lambda: "orders-poison" in [q.name for q in service.list_queues()], "the poison queue")
    assert [m.content for m in poison.peek_messages()] == ["not base64 !"]


def test_another_service_is_polled_and_written_to(app, start, tmp_path_factory):
    """One host's REST face is the other host's storage service."""
    app.function("Hello")
    service_host = start(app, "--blob-port", "0", "--queue-port", "0")
    text = connection_string(service_host)
    service = BlobServiceClient.from_connection_string(text)
    incoming = service.create_container("incoming")
    incoming.upload_blob("good one.txt", b"good", metadata={"camera": "front"})
    incoming.upload_blob("bad", b"bad")
    service.create_container("lookup").upload_blob("key", b"looked up")

    other = tmp_path_factory.mktemp("other")
    runs = other / "runs.txt"
    (other / "host.json").write_text(json.dumps({"version": "2.0", "extensions": {"blobs": {"poisonBlobThreshold": 2}, "queues": {"maxPollingInterval": "00:00:00.2"}}}))
    (other / "local.settings.json").write_text(json.dumps({"Values": {"Cloud": text}}))

    def function(name, script, *bindings):
        (other / name).mkdir()
        (other / name / "function.json").write_text(json.dumps({"bindings": [{**b, "connection": "Cloud"} for b in bindings]}))
        (other / name / "score.py").write_text(script)

    function("Note", f"def init(): pass\ndef run(data):\n    open({str(runs)!r}, 'a').write(data + '\\n')\n    if data == 'bad': raise ValueError('bad')\n    return {{'blob': data.upper(), 'message': {{'key': 'key'}}}}\n",
             {"name": "b", "type": "blobTrigger", "path": "incoming/{name}"},
             {"name": "blob", "type": "blob", "direction": "out", "path": "scored/{name}-{Metadata.camera}"},
             {"name": "message", "type": "queue", "direction": "out", "queueName": "work"})
    function("Look", "def init(): pass\ndef run(data):\n    return data\n",
             {"name": "m", "type": "queueTrigger", "queueName": "work"},
             {"name": "i", "type": "blob", "direction": "in", "path": "lookup/{key}"},
             {"name": "$return", "type": "blob", "direction": "out", "path": "looked/{Id}"})
    host = start(other)
    scored = service.get_blob_client("scored", "good one.txt-front")
    until(scored.exists, lambda: host.printed())
    assert scored.download_blob().readall() == b"GOOD"
    looked = service.get_container_client("looked")
    until(lambda: looked.exists() and list(looked.list_blobs()), "the queue-triggered function")
    assert looked.download_blob(next(iter(looked.list_blobs())).name).readall() == b"looked up"
    poison = QueueServiceClient.from_connection_string(text).get_queue_client("webjobs-blobtrigger-poison")
    until(lambda: "Moving message to queue 'webjobs-blobtrigger-poison'" in host.printed(), "the poison blob")
    until(lambda: "webjobs-blobtrigger-poison" in [q.name for q in QueueServiceClient.from_connection_string(text).list_queues()], "the queue")
    [message] = poison.peek_messages()
    assert json.loads(base64.b64decode(message.content))["BlobName"] == "bad"
    assert sorted(runs.read_text().split()) == ["bad", "bad", "good"]
    receipts = list(service.get_container_client("azure-webjobs-hosts").list_blobs(include=["metadata"]))
    assert sorted(r.name.rsplit("/", 1)[1] for r in receipts) == ["bad", "good one.txt"]
    assert all(r.metadata["Completed"] == "True" for r in receipts)
    # A restart runs nothing again; a new version is found within a cycle of ten seconds.
    host.stop()
    host = start(other)
    incoming.upload_blob("good one.txt", b"better", overwrite=True, metadata={"camera": "back"})
    until(lambda: "better" in runs.read_text(), "the new version", deadline=30)
    time.sleep(0.5)
    assert sorted(runs.read_text().split()) == ["bad", "bad", "better", "good"]
    # The service goes away, says so, and comes back.
    service_host.stop()
    until(lambda: "AN7023" in host.call("GET", "/readyz?verbose").text or "cannot be reached" in host.call("GET", "/readyz?verbose").text, "its absence", deadline=30)
    assert KEY not in host.printed()
