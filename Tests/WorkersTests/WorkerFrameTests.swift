import Diagnostics
import Testing
@testable import Workers

private func frame(_ kind: UInt8, _ request: UInt32, _ payload: [UInt8]) -> [UInt8] {
    little(UInt32(payload.count + 5)) + [kind] + little(request) + payload
}

private func little(_ value: some FixedWidthInteger) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

private func result(status: UInt16, body: String) -> [UInt8] {
    little(status) + [1] + little(UInt64(77)) + little(UInt16(2)) + little(UInt32(6)) + little(UInt32(3))
        + Array("tt".utf8) + Array("X: y\r\n".utf8) + Array("{ }".utf8)
        + Array(body.utf8)
}

@Suite struct WorkerFrameTests {
    private func read(_ bytes: [UInt8], step: Int) throws(WorkerFrameError) -> [String] {
        var reader = WorkerFrameReader()
        var seen: [String] = []
        var offset = 0
        while offset < bytes.count {
            let piece = Array(bytes[offset..<min(bytes.count, offset + step)])
            offset += piece.count
            let outcome = piece.withUnsafeBytes { memory -> Result<Void, WorkerFrameError> in
                do throws(WorkerFrameError) {
                    try reader.feed(memory) { seen.append(describe($0)) }
                    return .success(())
                } catch {
                    return .failure(error)
                }
            }
            try outcome.get()
        }
        return seen
    }

    private func describe(_ frame: WorkerFrame) -> String {
        switch frame {
        case .ready(let json): "ready \(json.count)"
        case .initFailed(let json): "failed \(json.count)"
        case .phase(let name): "phase \(name)"
        case .log(let request, let level, let line): "log \(request) \(level.name) \(line)"
        case .result(let request, let result):
            "result \(request) \(result.status) \(result.runFailed) \(result.runNanoseconds) \(result.contentType) "
                + "\(result.headerLines.count) \(result.failure.count) \(String(decoding: result.body, as: UTF8.self))"
        }
    }

    @Test(arguments: [1, 3, 17, 1000])
    func `frames come out whole however they are cut`(step: Int) throws {
        let bytes =
            frame(20, 0, Array("import".utf8)) + frame(16, 0, Array("{}".utf8)) + frame(19, 5, [3] + Array("hm".utf8))
            + frame(18, 5, result(status: 200, body: "[7]")) + frame(18, 6, result(status: 500, body: ""))
        #expect(
            try read(bytes, step: step) == [
                "phase import", "ready 2", "log 5 Warning hm", "result 5 200 true 77 tt 6 3 [7]",
                "result 6 500 true 77 tt 6 3 ",
            ])
    }

    @Test(arguments: [
        frame(1, 0, []), frame(99, 0, []), little(UInt32(4)) + [18, 0, 0, 0, 0], little(UInt32.max) + [18, 0, 0, 0, 0],
        frame(18, 1, [0, 0, 0]), Array("Hello from a stray print\n".utf8),
        frame(
            18, 1,
            little(UInt16(200)) + [0] + little(UInt64(0)) + little(UInt16(500)) + little(UInt32(0)) + little(UInt32(0))),
    ])
    func `what is no frame is refused`(bytes: [UInt8]) {
        #expect(throws: WorkerFrameError.self) { try read(bytes, step: 4) }
        #expect(throws: WorkerFrameError.self) { try read(bytes, step: 1000) }
    }

    @Test func `a frame may have the limit and not one byte more`() throws {
        let header = { (length: Int) in little(UInt32(length)) + [UInt8(18), 0, 0, 0, 0] }
        #expect(try read(header(WorkerFrameReader.frameByteLimit), step: 100) == [])
        #expect(throws: WorkerFrameError.self) { try read(header(WorkerFrameReader.frameByteLimit + 1), step: 100) }
    }

    @Test func `the host's header is length, kind and request`() {
        var bytes: [UInt8] = []
        appendFrameHeader(.invoke, request: 258, payloadLength: 3, to: &bytes)
        #expect(bytes == [8, 0, 0, 0, 1, 2, 1, 0, 0])
    }
}
