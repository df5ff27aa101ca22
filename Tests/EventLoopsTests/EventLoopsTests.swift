import EventLoops
import Glibc
import HostTestSupport
import Testing

@Suite(.serialized) struct EventLoopsTests {
    @Test func `a timer fires once, and again when told to repeat`() async throws {
        let count = try await onTheLoop {
            let done = Gate()
            let counter = Counter()
            let timer = LoopTimer {
                counter.value += 1
                if counter.value == 3 { done.open() }
            }
            timer.start(after: .milliseconds(1), every: .milliseconds(1))
            await done.wait()
            timer.stop()
            return counter.value
        }
        #expect(count == 3)
    }

    @Test func `an alarm goes off at its time of day, not when stopped, and at once when that is past`() async throws {
        let (early, late) = try await onTheLoop {
            let rang = Gate()
            let counter = Counter()
            let alarm = try WallTimer {
                counter.value += 1
                rang.open()
            }
            let now = { @EventLoop () -> Int64 in
                var time = timespec()
                clock_gettime(CLOCK_REALTIME, &time)
                return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
            }
            alarm.start(at: now() + 3_600_000)
            alarm.start(at: now() + 1)
            alarm.stop()
            alarm.start(at: now() + 30)
            let begin = now()
            await rang.wait()
            let waited = now() - begin
            let again = Gate()
            let second = try WallTimer { again.open() }
            second.start(at: 5)
            await again.wait()
            return (waited, counter.value)
        }
        #expect(early >= 29 && late == 1)
    }

    @Test func `work on the loop brings no job from another thread`() async throws {
        let hops = try await onTheLoop {
            let gate = Gate()
            let done = Gate()
            let start = Marker()
            // A root task, as connections and workers have them: suspended and resumed a thousand times.
            loopTask {
                start.value = EventLoop.executor.remoteJobs
                for _ in 0..<1000 { await sleepUntilNextTurn() }
                gate.open()
                await gate.wait()
                start.value = EventLoop.executor.remoteJobs - start.value
                done.open()
            }
            await done.wait()
            return start.value
        }
        // Other tests, which run at the same time, enter the loop now and then; a hop per suspension is thousands.
        #expect(hops < 50)
    }

    @Test func `work is done on another thread and comes back`() async throws {
        let (onLoop, back) = try await onTheLoop {
            let elsewhere = await offload { !EventLoop.executor.isCurrent }
            return (elsewhere, EventLoop.executor.isCurrent)
        }
        #expect(onLoop)
        #expect(back)
    }

    @Test func `a large answer arrives whole through back-pressure`() async throws {
        let received = try await onTheLoop {
            let payload = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let server = Keeper()
            let listener = try StreamListener(address: "127.0.0.1", port: 0) { stream in
                server.stream = stream
                stream.write([1, 2, 3])
                stream.write(payload)
                stream.finish()
            }
            let client = try await ByteStream.connect(host: "127.0.0.1", port: listener.port)
            let collector = Collector()
            client.startReading(to: collector)
            await collector.ended.wait()
            listener.close()
            return collector.bytes == [1, 2, 3] + payload
        }
        #expect(received)
    }

    @Test func `a taken port says so`() async throws {
        let symbol = try await onTheLoop { () -> String in
            let first = try StreamListener(address: "127.0.0.1", port: 0) { _ in }
            defer { first.close() }
            do throws(SystemError) {
                _ = try StreamListener(address: "127.0.0.1", port: first.port) { _ in }
                return "none"
            } catch {
                return error.symbol
            }
        }
        #expect(symbol == "EADDRINUSE")
    }

    @Test func `a child's output and exit are seen, and its group can be ended`() async throws {
        let (status, text, signal) = try await onTheLoop {
            let collector = Collector()
            let child = try ChildProcess(
                ChildCommand(
                    executable: "/bin/sh", arguments: ["-c", "echo $X; exit 3"], environment: ["X": "hello"],
                    folder: "/"))
            child.standardOutput.startReading(to: collector)
            let exit = await child.waitForExit()
            await collector.ended.wait()
            // Its output closes with it.
            withExtendedLifetime(child) {}
            let sleeper = try ChildProcess(
                ChildCommand(
                    executable: "/bin/sh", arguments: ["-c", "sleep 100 & wait"],
                    environment: ["PATH": "/bin:/usr/bin"], folder: "/"))
            sleeper.kill(signal: SIGKILL)
            return (exit.status, String(decoding: collector.bytes, as: UTF8.self), await sleeper.waitForExit().signal)
        }
        #expect(status == 3)
        #expect(text == "hello\n")
        #expect(signal == Int(SIGKILL))
    }

    @Test func `code that is unmapped comes back when it runs`() {
        let before = residentFilePages()
        releaseStartUpCode()
        let after = residentFilePages()
        // Other tests run meanwhile and bring some of it back.
        #expect(after > 0 && after < before)
    }

    private func residentFilePages() -> Int {
        // Size, resident, shared (file-backed), in pages.
        let descriptor = open("/proc/self/statm", O_RDONLY)
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 128)
        let count = read(descriptor, &bytes, bytes.count)
        return Int(String(decoding: bytes[..<count], as: UTF8.self).split(separator: " ")[2]) ?? 0
    }

    @Test func `what cannot be watched is an error and nothing else`() async throws {
        // A file on disk cannot be polled.
        let refused = try await onTheLoop {
            let descriptor = open("/proc/self/exe", O_RDONLY)
            defer { close(descriptor) }
            do throws(SystemError) {
                _ = try PollHandle(descriptor: descriptor) { _, _ in }
                return false
            } catch {
                return true
            }
        }
        #expect(refused)
    }

    @Test func `a written file is seen when it is closed`() async throws {
        let folder = TemporaryFolder()
        let changes = try await onTheLoop {
            let seen = Gate()
            let log = Changes()
            let watch = try FolderWatch { change in
                log.list.append(change)
                if change == .removed(path: folder.path + "/a") { seen.open() }
            }
            try watch.add(folder: folder.path)
            folder.write("a", "text")
            unlink(folder.path + "/a")
            await seen.wait()
            return log.list
        }
        #expect(changes.last == .removed(path: folder.path + "/a"))
        #expect(changes.contains(.written(path: folder.path + "/a")))
    }

    @Test func `digests and comparisons are right`() {
        #expect(
            "\(SHA256Digest(of: Array("abc".utf8)))"
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(SHA256Digest(of: [1], [2, 3]) == SHA256Digest(of: [1, 2, 3]))
        #expect(constantTimeEqual([1, 2], [1, 2]))
        #expect(!constantTimeEqual([1, 2], [1, 3]))
        #expect(!constantTimeEqual([1], [1, 2]))
    }
}

@EventLoop private final class Counter { var value = 0 }
@EventLoop private final class Marker { var value = 0 }
@EventLoop private final class Keeper { var stream: ByteStream? }
@EventLoop private final class Changes { var list: [FolderChange] = [] }

@EventLoop private final class Collector: ByteStreamReader {
    var bytes: [UInt8] = []
    let ended = Gate()

    func streamDidRead(_ bytes: UnsafeRawBufferPointer) { self.bytes.append(contentsOf: bytes) }
    func streamDidEnd(_ error: SystemError?) { ended.open() }
}

/// Suspends until a timer of the loop's next turn.
@EventLoop private func sleepUntilNextTurn() async {
    let gate = Gate()
    let timer = LoopTimer { gate.open() }
    timer.start(after: .zero)
    await gate.wait()
}
