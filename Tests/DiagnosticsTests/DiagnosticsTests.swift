@testable import Diagnostics
import JSONText
import Testing

private struct Sample: HostError {
    let code = "AN9999"
    let fault = Fault.user
    let message = "unknown property 'authlevel'"
    let remedy: String? = "did you mean 'authLevel'?"
    let place: SourcePlace?
}

@Suite struct HostErrorTests {
    @Test func `an error shows code, place, line, caret and remedy`() {
        let text = Array("{\n  \"a\": 1,\n\t\"authlevel\": 2\n}".utf8)
        let place = SourcePlace(file: "host.json", text: text, offset: text.count - 16)
        #expect(place.line == 3)
        #expect(
            Sample(place: place).description == """
                error[AN9999] host.json:3:2: unknown property 'authlevel'
                  3 |  "authlevel": 2
                    |  ^
                  try: did you mean 'authLevel'?
                """)
    }

    @Test func `a place at the end of the text is inside the file`() {
        let place = SourcePlace(file: "f", text: Array("a\n".utf8), offset: 2)
        #expect(place.line == 2)
        #expect(place.column == 1)
    }

    @Test(
        arguments: [
            ("authlevel", "authLevel"), ("rout", "route"), ("metods", "methods"), ("metohds", "methods"),
            ("xyzzy", nil),
        ] as [(String, String?)])
    func `the nearest name is suggested when it is near`(written: String, meant: String?) {
        #expect(nearest(to: written, among: ["authLevel", "route", "methods", "type"]) == meant)
    }
}

@Suite struct StageTimesTests {
    @Test func `the stages add up to the total`() {
        var times = StageTimes(entering: .accept, at: 100)
        times.enter(.auth, at: 150)
        times.enter(.workerWait, at: 151)
        times.attribute(30, to: .score, at: 200)
        times.enter(.output, at: 205)
        times.finish(at: 210)
        #expect(times.total == 110)
        #expect(Stage.allCases.reduce(UInt64(0)) { $0 + times[$1] } == 110)
        #expect(times[.score] == 30)
        #expect(times[.workerWait] == 24)
    }

    @Test func `more than the elapsed time cannot be attributed`() {
        var times = StageTimes(entering: .workerWait, at: 0)
        times.attribute(500, to: .score, at: 100)
        times.finish(at: 100)
        #expect(times[.score] == 100)
        #expect(times.total == 100)
    }
}

@Suite struct RecordTests {
    @Test func `an invocation is one JSON line`() throws {
        var random = RandomBytes()
        var times = StageTimes(entering: .accept, at: 0)
        times.finish(at: 2_500_000)
        let id = InvocationID(from: &random)
        let record = InvocationRecord(
            id: id, functionName: "F", trigger: "http", succeeded: false, status: 500, cache: .miss, stages: times,
            inputByteCount: 3, outputByteCount: 0, failure: "AN4004 \"x\"\n")
        var bytes: [UInt8] = []
        HostEvent(record).appendJSONLine(timestamp: "2026-01-01T00:00:00.000Z", to: &bytes)
        #expect(bytes.count { $0 == 0x0A } == 1)
        let json = try JSONParser.parse(bytes)
        #expect(json["kind"]?.string == "invocation_completed")
        #expect(json["schema_version"]?.integer == 1)
        #expect(json["duration_ms"]?.double == 2.5)
        #expect(json["stages_ms"]?["accept"]?.double == 2.5)
        #expect(json["error"]?.string == "AN4004 \"x\"\n")
        #expect(json["invocation_id"]?.string == "\(id)")
    }

    @Test func `identifiers are version 4 UUIDs and differ`() {
        var random = RandomBytes()
        var ids: [String] = []
        for _ in 0..<1000 { ids.append("\(InvocationID(from: &random))") }
        #expect(Set(ids).count == 1000)
        for id in ids {
            #expect(id.wholeMatch(of: /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/) != nil)
        }
    }

    @Test func `a histogram counts into doubling buckets`() {
        var histogram = Histogram()
        for nanoseconds: UInt64 in [500, 1000, 1001, 2000, 3_000_000, 100_000_000_000] {
            histogram.observe(nanoseconds)
        }
        var text = ""
        histogram.appendPrometheus(name: "h", labels: "f=\"x\"", to: &text)
        #expect(text.contains("h_bucket{f=\"x\",le=\"1e-06\"} 2\n"))
        #expect(text.contains("h_bucket{f=\"x\",le=\"2e-06\"} 4\n"))
        #expect(text.contains("h_bucket{f=\"x\",le=\"+Inf\"} 6\n"))
        #expect(text.contains("h_count{f=\"x\"} 6\n"))
    }

    @Test func `the longest prefix of a category decides what is shown`() {
        var levels = LogLevels()
        #expect(levels.shows(.critical, in: "Host.General") == nil)
        #expect(levels.mayShow(.information, below: "Function") == nil)
        levels.set("default", .error)
        levels.set("Function", .warning)
        levels.set("function.noisy", nil)
        levels.set("Function.Noisy.User", .debug)
        let shown: [(String, EventLevel, Bool)] = [
            ("Host.General", .warning, false), ("Host.General", .error, true),
            ("Function.Quiet", .information, false), ("Function.Quiet.User", .warning, true),
            ("Function.Noisy", .critical, false), ("Function.Noisy.User", .debug, true),
            ("Function.Noisy.User", .trace, false),
        ]
        for (category, level, isShown) in shown { #expect(levels.shows(level, in: category) == isShown, "\(category)") }
        #expect(levels.mayShow(.information, below: "Function") == true)
        #expect(levels.mayShow(.warning, below: "Host") == false)
    }
}
