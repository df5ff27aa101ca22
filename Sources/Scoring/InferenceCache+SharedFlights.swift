/// Equal requests on several hosts that share a Redis: one computes, the others wait for its result.
internal import EventLoops
internal import RedisClients

extension InferenceCache {
    /// A function whose runs are shorter is computed on each host: waiting would cost more.
    static let sharedFlightAbove = Duration.milliseconds(20)
    /// A host that has died holds the others up for at most this long.
    static let sharedFlightLimit = Duration.seconds(10)
    private static let pollPauses = [2, 5, 10, 20, 40].map { Duration.milliseconds($0) }

    /// How long another host's computation is waited for; nil when it is not worth it.
    ///
    /// - Parameter usualRun: how long `run()` usually takes, in nanoseconds; 0 when that is not known.
    func sharedFlightTime(usualRun: UInt64) -> Duration? {
        guard limits.sharesFlights, redis != nil else { return nil }
        if usualRun == 0 { return .seconds(2) }
        guard usualRun >= Self.sharedFlightAbove.wholeNanoseconds else { return nil }
        return min(Self.sharedFlightLimit, max(.milliseconds(250), .nanoseconds(Int64(usualRun)) * 4))
    }

    /// Says that this host computes `key`; `done` gets false when another one has said so before.
    func claim(
        _ key: CacheKey, for time: Duration, _ tally: InferenceCacheTally, _ done: @escaping @EventLoop (Bool) -> Void
    ) {
        guard let redis, mayAskRedis() else { return done(true) }
        let name = Self.lockName(key)
        let command = [
            Array("SET".utf8), name, Array("1".utf8), Array("NX".utf8), Array("PX".utf8),
            Array("\(time.wholeMilliseconds)".utf8),
        ]
        redis.send(command, key: name, limit: limits.redisTimeout) { [self] answer in
            switch answer {
            case .success(let reply):
                noteSuccess()
                done(reply != .null)
            case .failure(let error):
                noteFailure(error, tally)
                done(true)
            }
        }
    }

    /// Lets other hosts compute `key` again.
    func release(_ key: CacheKey) {
        guard let redis, redis.isConnected else { return }
        let name = Self.lockName(key)
        redis.send(ignoringReplyTo: [Array("DEL".utf8), name], key: name) { _ in }
    }

    /// Waits for another host's result; nil when it does not come while that host holds its claim, and not within `time`.
    func waitForOther(_ key: CacheKey, atMost time: Duration, _ tally: InferenceCacheTally) async -> CachedResult? {
        let deadline = monotonicNanoseconds() + time.wholeNanoseconds
        var turn = 0
        while monotonicNanoseconds() < deadline {
            await sleep(for: Self.pollPauses[min(turn, Self.pollPauses.count - 1)])
            turn += 1
            guard let redis, mayAskRedis() else { return nil }
            // Asked before the value: a claim that is gone by now has left its value, or there is none.
            let name = Self.lockName(key)
            let exists = try? await redis.command([Array("EXISTS".utf8), name], key: name, limit: limits.redisTimeout)
            let found = await withUnsafeContinuation { continuation in
                lookInRedis(key, tally) { continuation.resume(returning: $0) }
            }
            if let found {
                tally.counts.shared += 1
                return found
            }
            guard exists == .integer(1) else { return nil }
        }
        return nil
    }

    private static func lockName(_ key: CacheKey) -> [UInt8] { key.name + Array(":lock".utf8) }
}
