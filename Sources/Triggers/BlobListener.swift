/// The blob trigger on the storage folder: each version of each blob that matches, once.
///
/// A blob is known by container, name and ETag. Its receipt says how far this function has come with it; it is durable
/// before the outcome is reported. Events and scans only say where to look: whatever they repeat, a receipt stops, and
/// whatever they miss, the next scan finds (docs/decisions/021-blob-trigger.md).
internal import DequeModule
public import Diagnostics
internal import DurableStores
public import EventLoops
public import FunctionApps
public import Invocations
internal import JSONText
public import StorageAccounts

/// Listens to one container for one function.
@EventLoop
public final class BlobListener: TriggerListener, BlobObserver, BlobSlotUser {
    public let container: String
    public private(set) var failure: (any HostError)?
    public var source: String { pattern.text }
    let functionName: String
    let account: any BlobSource
    let configuration: BlobsConfiguration
    let log: EventLog
    private let pattern: BlobPathPattern
    private let slots: BlobSlots
    private let dispatcher: any InvocationDispatching
    private var random = RandomBytes()
    /// Names to be looked at, each once; false for those that a scan found, which may still be written.
    private var waiting = Deque<String>()
    private var waitingNames: [String: Bool] = [:]
    /// Blobs under way; true when they have changed since.
    private var running: [String: Bool] = [:]
    private var mustRescan = false
    private var rescanDue: UInt64 = 0
    private var isScanning = false
    private var isListening = false
    private var skipsFound = false
    /// Receipts cannot be written.
    private var isStuck = false
    /// The function cannot run at all until then; monotonic.
    private var pausedUntil: UInt64 = 0
    private var pause = BlobListener.retryInterval
    private var settled: Gate?
    private var retryTimer: LoopTimer?
    private var retries: [(name: String, due: UInt64)] = []
    private var told: Set<String> = []

    /// Names kept in memory; more are found again by a scan.
    static let waitingLimit = 20_000
    /// The pause before a blob that is being written, or could not be processed for no fault of its own, is tried again.
    static let retryInterval = Duration.seconds(1)
    /// The pause before a blob that could not be read is looked at again.
    static let unreadableInterval = Duration.seconds(10)
    /// The longest pause while the function cannot run or its outputs cannot be written.
    static let longestPause = Duration.seconds(30)
    /// Where given-up blobs are announced.
    public static let poisonQueue = "webjobs-blobtrigger-poison"

    public init(
        functionName: String, pattern: BlobPathPattern, account: any BlobSource, slots: BlobSlots,
        configuration: BlobsConfiguration, dispatcher: any InvocationDispatching, log: EventLog
    ) {
        self.functionName = functionName
        self.pattern = pattern
        container = pattern.container
        self.account = account
        self.slots = slots
        self.configuration = configuration
        self.dispatcher = dispatcher
        self.log = log
        retryTimer = LoopTimer { [unowned self] in self.retry() }
    }

    // MARK: Life

    public func start() {
        guard !isListening else { return }
        isListening = true
        slots.add(self)
        loopTask { [self] in
            if configuration.skipExistingBlobs {
                skipsFound = await account.hasStarted(functionName, container) == false
            }
            guard isListening else { return }
            isScanning = true
            do throws(StorageError) {
                try account.add(self)
            } catch {
                fail(error)
            }
        }
    }

    public func stop() async {
        guard isListening else { return }
        isListening = false
        account.remove(self)
        slots.remove(self)
        retryTimer?.stop()
        waiting.removeAll()
        waitingNames.removeAll()
        retries.removeAll()
        guard !running.isEmpty else { return }
        let gate = Gate()
        settled = gate
        await gate.wait()
    }

    /// Blobs known to wait, for health pages and metrics.
    public var waitingCount: Int { waiting.count }

    // MARK: What the watch says

    public func blobWritten(_ name: String) { enqueue(name, wasClosed: true) }

    public func blobRemoved(_ name: String) {
        // It stays in the queue's order and is skipped when its turn comes.
        waitingNames[name] = nil
    }

    public func blobsFound(_ blobs: [FoundBlob]) async {
        let matching = blobs.filter { isWanted($0.name) }
        if matching.isEmpty { return }
        if skipsFound {
            // What an event has told of meanwhile is new.
            let old = matching.filter { waitingNames[$0.name] == nil && running[$0.name] == nil }
            await account.skip(functionName, container, old)
            return
        }
        switch await account.unprocessed(functionName, container, matching).value() {
        case .success(let left):
            storeWorks()
            for blob in left { enqueue(blob.name, wasClosed: false) }
        case .failure(let error):
            fail(error)
            mustRescan = true
            rescanDue = monotonicNanoseconds() + Self.unreadableInterval.wholeNanoseconds
            retryTimer?.start(after: Self.unreadableInterval)
        }
    }

    public func scanEnded() {
        isScanning = false
        if skipsFound || configuration.skipExistingBlobs {
            skipsFound = false
            loopTask { [self] in
                await account.setStarted(functionName, container)
            }
        }
        rescanIfNeeded()
    }

    public func watchFailed(_ error: StorageError?) {
        if let error { fail(error) } else { failure = nil }
    }

    private func fail(_ error: StorageError) {
        if failure?.code != error.code { log(HostEvent(.log, .error, error.description, fields(error))) }
        failure = error
    }

    private func fields(_ error: StorageError) -> [(String, HostEvent.Value)] {
        [("function", .text(functionName)), ("code", .text(error.code))]
    }

    // MARK: Waiting

    /// Temporary names of editors and copying tools begin with a dot and are never events.
    private func isWanted(_ name: String) -> Bool {
        if name.hasPrefix(".") || name.contains("/.") { return false }
        return pattern.match(container: container, name: name) != nil
    }

    private func enqueue(_ name: String, wasClosed: Bool) {
        guard isListening, isWanted(name) else { return }
        if running[name] != nil {
            running[name] = true
            return
        }
        guard waiting.count < Self.waitingLimit else {
            mustRescan = true
            return
        }
        if waitingNames.updateValue(wasClosed || waitingNames[name] == true, forKey: name) == nil {
            waiting.append(name)
        }
        slots.fill()
    }

    private func rescanIfNeeded() {
        guard mustRescan, !isScanning, waiting.count < Self.waitingLimit / 2, monotonicNanoseconds() >= rescanDue else {
            return
        }
        mustRescan = false
        isScanning = true
        account.rescan(container)
    }

    public func useSlot() -> Bool {
        if isStuck || pausedUntil > 0 && monotonicNanoseconds() < pausedUntil { return false }
        while let name = waiting.popFirst() {
            guard let wasClosed = waitingNames.removeValue(forKey: name) else { continue }
            running[name] = false
            loopTask { [self] in await process(name, wasClosed: wasClosed) }
            return true
        }
        rescanIfNeeded()
        return false
    }

    /// Tries a blob again after a pause.
    private func later(_ name: String, after pause: Duration = BlobListener.retryInterval) {
        guard isListening else { return }
        guard retries.count < Self.waitingLimit else {
            mustRescan = true
            return
        }
        retries.append((name, monotonicNanoseconds() + pause.wholeNanoseconds))
        if retryTimer?.isActive == false { retryTimer?.start(after: Self.retryInterval) }
    }

    private func retry() {
        let now = monotonicNanoseconds()
        let due = retries.filter { $0.due <= now }
        retries.removeAll { $0.due <= now }
        for entry in due { enqueue(entry.name, wasClosed: true) }
        if !retries.isEmpty { retryTimer?.start(after: Self.retryInterval) }
        rescanIfNeeded()
        slots.fill()
    }

    private func end(_ name: String) {
        let hasChanged = running.removeValue(forKey: name) ?? false
        if hasChanged { enqueue(name, wasClosed: true) }
        if running.isEmpty { settled?.open() }
    }

    // MARK: Processing

    private func process(_ name: String, wasClosed: Bool) async {
        let address = BlobAddress(container: container, name: name)
        let startedAt = monotonicNanoseconds()
        let reading = await account.reading(address, limit: configuration.maxBlobBytes, wasClosed: wasClosed)
        switch reading {
        case .gone: break
        case .beingWritten: later(name)
        case .failed(let error):
            await give(up: address, error)
            if case .unreadable = error { later(name, after: Self.unreadableInterval) }
        case .blob(let blob):
            // Changes from here on make another version.
            let key = ReceiptKey(
                function: functionName, container: container, name: name, etag: blob.properties.etag)
            switch await account.receipt(key).value() {
            case .failure(let error):
                fail(error)
                later(name)
            case .success(let receipt):
                storeWorks()
                if let receipt, receipt.state != .attempted { break }
                if running[name] != nil { running[name] = false }
                run(address, blob, key, attempts: receipt?.attempts ?? 0, startedAt)
                return
            }
        }
        end(name)
        slots.free()
    }

    /// A blob that cannot be read is told of once; a version too large is given up at once, for it stays so.
    private func give(up address: BlobAddress, _ error: StorageError) async {
        if told.count > Self.waitingLimit { told.removeAll() }
        if told.insert("\(error.code) \(address)").inserted {
            log(HostEvent(.log, .error, error.description, fields(error)))
        }
        guard case .tooLarge = error, let properties = await account.properties(of: address) else { return }
        let key = ReceiptKey(
            function: functionName, container: container, name: address.name, etag: properties.etag)
        if case .success(let known?) = await account.receipt(key).value(), known.state != .attempted { return }
        _ = await account.record(key, .poisoned, attempts: 1, poison: poisonMessage(key)).value()
    }

    private func invocation(
        _ address: BlobAddress, _ blob: Blob, attempt: Int, _ startedAt: UInt64
    ) -> Invocation {
        let captures = pattern.match(container: address.container, name: address.name) ?? []
        var event = TriggerEvent(trigger: "blob", body: blob.contents)
        event.data = blobTriggerData(address, blob.properties, uri: account.url(of: address), captures)
        event.source = "\(address)"
        event.parent = account.author(of: address)
        event.attempt = attempt
        return Invocation(
            id: InvocationID(from: &random), functionName: functionName, event: event,
            stages: StageTimes(entering: .bind, at: startedAt))
    }

    /// Runs the function for a blob now, whatever its receipts say; a success is a receipt. nil when there is no blob.
    public func runNow(_ address: BlobAddress) async throws(StorageError) -> InvocationOutcome? {
        guard let blob = try await account.read(address, limit: configuration.maxBlobBytes) else { return nil }
        let key = ReceiptKey(
            function: functionName, container: address.container, name: address.name, etag: blob.properties.etag)
        let invocation = invocation(address, blob, attempt: 1, monotonicNanoseconds())
        invocation.settlement = { [self] outcome in
            guard problem(outcome) == nil else { return .now(()) }
            return record(key, .completed, attempts: 1)
        }
        return await dispatcher.dispatch(invocation).value()
    }

    private func run(_ address: BlobAddress, _ blob: Blob, _ key: ReceiptKey, attempts: Int, _ startedAt: UInt64) {
        let invocation = invocation(address, blob, attempt: attempts + 1, startedAt)
        var holdsSlot = true
        let free = { @EventLoop [slots] in
            if holdsSlot {
                holdsSlot = false
                slots.free()
            }
        }
        invocation.settlement = { [self] outcome in
            let settlement = settle(key, outcome, attempts: attempts + 1)
            // The function is done: the next blob need not wait for this one's receipt.
            if !isStuck { free() }
            return settlement
        }
        dispatcher.dispatch(invocation).whenDone { [self] outcome in
            // Without a settlement the function was not there any more.
            if invocation.settlement != nil, case .failed(let failure) = outcome, failure.code == "AN4010" {
                later(address.name)
            }
            end(address.name)
            free()
        }
    }

    // MARK: Settling

    private func settle(_ key: ReceiptKey, _ outcome: InvocationOutcome, attempts: Int) -> Eventual<Void> {
        guard let problem = problem(outcome) else {
            pause = Self.retryInterval
            return record(key, .completed, attempts: attempts)
        }
        // What is not this blob's fault is no attempt: a full disk, or a script that does not start, must not turn every
        // blob into a poison blob.
        guard problem.fault == .user, problem.code != "AN4001", !problem.code.hasPrefix("AN5") else {
            pausedUntil = monotonicNanoseconds() + pause.wholeNanoseconds
            later(key.name, after: pause)
            pause = min(pause * 2, Self.longestPause)
            return .now(())
        }
        pause = Self.retryInterval
        guard attempts >= configuration.poisonBlobThreshold else {
            running[key.name] = true
            return record(key, .attempted, attempts: attempts)
        }
        log(
            HostEvent(
                .log, .warning,
                "Message has reached MaxDequeueCount of \(attempts). Moving message to queue '\(Self.poisonQueue)'.",
                [("function", .text(functionName)), ("blob", .text("\(key.container)/\(key.name)"))]))
        return record(key, .poisoned, attempts: attempts, poison: poisonMessage(key))
    }

    private func problem(_ outcome: InvocationOutcome) -> InvocationFailure? {
        switch outcome {
        case .failed(let failure): failure
        case .completed(let response): response.failure ?? refusal(response)
        }
    }

    /// A script that answers with an error status has failed, though it threw nothing.
    private func refusal(_ response: ScoringResponse) -> InvocationFailure? {
        guard response.status >= 400 else { return nil }
        return InvocationFailure(code: "AN4004", fault: .user, message: "the script answered \(response.status)")
    }

    /// Writes a receipt, as often as it takes: without it the blob would be scored again.
    private func record(
        _ key: ReceiptKey, _ state: ReceiptState, attempts: Int,
        poison: (queue: String, message: NewMessage)? = nil
    ) -> Eventual<Void> {
        .later { [self] done in
            account.record(key, state, attempts: attempts, poison: poison).whenDone { [self] result in
                switch result {
                case .success:
                    if isStuck { recovered() }
                    done(())
                case .failure(let error):
                    fail(error)
                    isStuck = true
                    loopTask { [self] in
                        await sleep(for: Self.retryInterval)
                        record(key, state, attempts: attempts, poison: poison).whenDone(done)
                    }
                }
            }
        }
    }

    private func storeWorks() {
        if !isStuck, case .store? = failure as? StorageError { failure = nil }
    }

    private func recovered() {
        failure = nil
        isStuck = false
        log.log(.information, "receipts can be written again", [("function", .text(functionName))])
        slots.fill()
    }

    /// The message of the real host, Base64 as its queues have it.
    private func poisonMessage(_ key: ReceiptKey) -> (queue: String, message: NewMessage) {
        let json = jsonObject { writer in
            writer.member("Type", "BlobTrigger")
            writer.member("FunctionId", "Host.Functions.\(key.function)")
            writer.member("BlobType", "BlockBlob")
            writer.member("ContainerName", key.container)
            writer.member("BlobName", key.name)
            writer.member("ETag", key.etag)
        }
        return (Self.poisonQueue, NewMessage(body: Array(encodeBase64(json).utf8)))
    }
}

/// What a blob trigger knows by name: `BlobTrigger`, `Uri`, `Properties`, `Metadata`, then what the pattern captured.
func blobTriggerData(
    _ address: BlobAddress, _ properties: BlobProperties, uri: String, _ captures: [(name: String, value: String)]
) -> BindingData {
    var data = BindingData()
    data.set("BlobTrigger", "\(address)")
    data.set("Uri", uri)
    data.set(
        "Properties",
        .object([
            ("ETag", .text(properties.etag)), ("LastModified", .time(properties.lastModified)),
            ("ContentType", .text(properties.contentType)), ("ContentLength", .integer(properties.byteCount)),
            ("Length", .integer(properties.byteCount)), ("BlobType", .text("BlockBlob")),
        ]))
    data.set("Metadata", .object(properties.metadata.map { ($0.name, .text($0.value)) }))
    for capture in captures { data.set(capture.name, capture.value) }
    return data
}
