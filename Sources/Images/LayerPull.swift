/// One layer, from the registry to an unpacked folder: downloaded on the loop, hashed and unpacked on a thread.
internal import ConfigurationFiles
internal import EventLoops
internal import Glibc
internal import HTTPClients

/// Pulls one layer; once.
@EventLoop
final class LayerPull: HTTPBodyReceiver {
    private let store: ContentStore
    private let client: RegistryClient
    private let reference: ImageReference
    private let descriptor: Descriptor
    private let diffID: Digest
    private let limits: UnpackLimits
    private let report: @EventLoop (LayerState, _ received: Int) -> Void
    private var queue: LayerQueue?
    private var transfer: HTTPTransfer?
    private var received = 0
    private var skip = 0
    private var failure: ImageError?
    private var unpacked: Result<LayerRecord, ImageError>?
    private let unpackedGate = Gate()

    init(
        store: ContentStore, client: RegistryClient, reference: ImageReference, descriptor: Descriptor, diffID: Digest,
        limits: UnpackLimits, report: @escaping @EventLoop (LayerState, _ received: Int) -> Void
    ) {
        self.store = store
        self.client = client
        self.reference = reference
        self.descriptor = descriptor
        self.diffID = diffID
        self.limits = limits
        self.report = report
    }

    private var image: String { "\(reference)" }
    private var step: String { "layer \(descriptor.digest.short)" }

    /// Ends the pull with an error.
    func cancel(_ error: ImageError) {
        if failure == nil { failure = error }
        queue?.fail(error)
        transfer?.cancel()
    }

    /// Returns when the layer is in the store.
    func run() async throws(ImageError) {
        let lock = try await takeLock()
        defer { close(lock) }
        if await offload({ [store, diffID] in store.hasLayer(diffID) }) {
            report(.cached, descriptor.size)
            return
        }
        let temporary = store.layerFolder(diffID) + ".tmp"
        let (file, existing) = try await open(temporary)
        defer { if file >= 0 { close(file) } }
        received = existing
        report(.downloading, received)
        let queue = LayerQueue { [weak self] in loopTask { self?.transfer?.resume() } }
        self.queue = queue
        startUnpacking(queue, file, existing, temporary)
        var downloadFailure: ImageError?
        do throws(ImageError) {
            try await download()
            queue.end()
            report(.unpacking, received)
        } catch {
            downloadFailure = failure ?? error
            queue.fail(downloadFailure ?? error)
        }
        await unpackedGate.wait()
        try await settle(temporary, downloadFailure)
        report(.done, descriptor.size)
    }

    /// Waits while another host, or another app, pulls the same layer.
    private func takeLock() async throws(ImageError) -> Int32 {
        while true {
            if let lock = store.tryLock("layer-\(diffID.hex)") { return lock }
            guard client.remaining > .zero else { throw client.timeLimit(image, step, "another host is pulling it") }
            if let failure { throw failure }
            await sleep(for: .milliseconds(50))
        }
    }

    private func open(_ temporary: String) async throws(ImageError) -> (file: Int32, existing: Int) {
        let path = store.partialPath(descriptor.digest)
        let size = descriptor.size
        let opened = await offload { [store] () -> Result<(Int32, Int), SystemError> in
            store.discard(temporary)
            do throws(SystemError) {
                try store.makeLayerFolder(temporary)
            } catch {
                return .failure(error)
            }
            let file = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
            guard file >= 0 else { return .failure(SystemError(errno: errno, call: "open", subject: path)) }
            var existing = Int(lseek(file, 0, SEEK_END))
            if existing > size {
                ftruncate(file, 0)
                existing = 0
            }
            return .success((file, existing))
        }
        switch opened {
        case .success(let (file, existing)): return (file, existing)
        case .failure(let error): throw store.failure(error, image: image, step: step)
        }
    }

    private func startUnpacking(_ queue: LayerQueue, _ file: Int32, _ existing: Int, _ temporary: String) {
        let (descriptor, image, step, diffID, limits) = (descriptor, image, step, diffID, limits)
        let path = store.partialPath(descriptor.digest)
        let started = startThread { [weak self] in
            let result: Result<LayerRecord, ImageError>
            do throws(ImageError) {
                let source = LayerSource(
                    descriptor: descriptor, image: image, queue: queue, file: file, path: path, existing: existing)
                result = .success(
                    try unpackLayer(
                        source, into: temporary + "/fs", expecting: diffID, limits: limits, image: image, step: step))
            } catch {
                queue.abandon()
                result = .failure(error)
            }
            loopTask {
                self?.unpacked = result
                self?.unpackedGate.open()
            }
        }
        if !started {
            unpacked = .failure(ImageError(.store, image: image, step: step, "no thread can be started"))
            queue.abandon()
            unpackedGate.open()
        }
    }

    private func download() async throws(ImageError) {
        while received < descriptor.size {
            let before = received
            let response = try await client.perform(
                RegistryCall(
                    path: "/v2/\(reference.repository)/blobs/\(descriptor.digest)",
                    scope: "repository:\(reference.repository):pull", image: image, step: step,
                    position: { [unowned self] in (received, descriptor.digest) }, receiver: self,
                    started: { [unowned self] in transfer = $0 }))
            transfer = nil
            if let failure { throw failure }
            if received == descriptor.size { return }
            // The registry says this is all, and it is not what the manifest promised.
            if response.status == 416 || received == before {
                throw ImageError(
                    .verification, image: image, step: step,
                    "ends after \(received) bytes; the manifest promised \(descriptor.size)",
                    remedy: "the image was pushed wrong, or the registry has lost a part of it")
            }
        }
    }

    /// Gives the layer its name, or leaves nothing of it.
    private func settle(_ temporary: String, _ downloadFailure: ImageError?) async throws(ImageError) {
        let (result, store, diffID, digest) = (unpacked, store, diffID, descriptor.digest)
        let outcome = await offload { () -> Result<Void, ImageError> in
            switch result {
            case .success(let record):
                do throws(SystemError) {
                    try store.commit(record, temporary, diffID)
                } catch {
                    store.discard(temporary)
                    return .failure(store.failure(error, image: "", step: "store"))
                }
                unlink(store.partialPath(digest))
                return .success(())
            case .failure(let error):
                store.discard(temporary)
                // What is sound so far is worth keeping for the next try; what is wrong is not.
                if ![.unreachable, .timeLimit, .busy].contains(error.kind) { unlink(store.partialPath(digest)) }
                return .failure(error)
            case nil: return .success(())
            }
        }
        if case .failure(let error) = outcome {
            // The thread knows what was wrong with the bytes; else it was the way they came.
            let isAboutBytes = [ImageError.Kind.verification, .hostileLayer, .limit, .store].contains(error.kind)
            throw isAboutBytes ? error : downloadFailure ?? error
        }
    }

    // MARK: The body

    func takesBody(of head: HTTPClientResponse) -> Bool {
        guard head.status == 200 || head.status == 206 else { return false }
        skip = 0
        if head.status == 200 {
            // Not a part but the whole: what is here already is passed over.
            skip = received
        } else if let range = head.header("content-range") {
            let start = range.drop { !$0.isNumber }.prefix { $0.isNumber }
            if Int(start) != received { failure = violation("answers with '\(range)' when asked from \(received) on") }
        } else {
            failure = violation("answers 206 without Content-Range")
        }
        return true
    }

    private func violation(_ what: String) -> ImageError {
        ImageError(
            .protocolViolation, image: image, step: step, "\(client.host) \(what)", remedy: "is it a registry?")
    }

    func receive(_ bytes: UnsafeRawBufferPointer) -> HTTPBodyFlow {
        guard failure == nil, let queue else { return .stop }
        let passed = min(skip, bytes.count)
        let fresh = UnsafeRawBufferPointer(rebasing: bytes[passed...])
        guard received + fresh.count <= descriptor.size else {
            failure = ImageError(
                .verification, image: image, step: step, "more than the promised \(descriptor.size) bytes come",
                remedy: "the image was pushed wrong, or something between here and the registry answers for it")
            return .stop
        }
        if !fresh.isEmpty {
            switch queue.offer(fresh) {
            case nil: return .stop
            case false?: return .pause
            case true?: break
            }
        }
        skip -= passed
        received += fresh.count
        report(.downloading, received)
        return .more
    }
}

extension ContentStore {
    func commit(_ record: LayerRecord, _ temporary: String, _ diffID: Digest) throws(SystemError) {
        try writeFileAtomically(temporary + "/record.json", record.encoded())
        try commitLayer(temporary, diffID)
    }
}

/// Decompresses, hashes, parses and writes one layer, and compares what came with what was promised.
func unpackLayer(
    _ source: LayerSource, into folder: String, expecting diffID: Digest, limits: UnpackLimits, image: String,
    step: String
) throws(ImageError) -> LayerRecord {
    let fail = { (kind: ImageError.Kind, reason: String, remedy: String?) in
        ImageError(kind, image: image, step: step, reason, remedy: remedy)
    }
    let decompressor = LayerDecompressor(source: source, limits: limits, fail: fail)
    let reader = try TarReader(source: decompressor, fail: fail)
    let unpacker = try LayerUnpacker(folder: folder, limits: limits, fail: fail)
    let record = try unpacker.unpack(reader)
    // Behind the end of a tar there may be padding, which counts for the digest.
    try decompressor.drain()
    try source.finish()
    guard decompressor.diffID == diffID else {
        throw fail(
            .verification,
            "unpacked it has the digest \(decompressor.diffID), and the configuration promised \(diffID)",
            "the image was pushed wrong")
    }
    return record
}
