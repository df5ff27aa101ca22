/// `andiron cache`: the inference cache of a running host.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import JSONText

struct CacheCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache", abstract: "Look into the inference cache of a running host, and empty it.",
        discussion: """
            Examples:
              andiron cache stats
              andiron cache explain DigitsScore -d @a.json --with @b.json   why two inputs have two results
              andiron cache flush --function DigitsScore
            """,
        subcommands: [Stats.self, List.self, Get.self, Explain.self, Verify.self, Flush.self])

    struct Stats: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Hits, misses, time saved, per function; and Redis.")
        @OptionGroup var call: CacheCall

        func run() throws {
            call.perform("GET", "") { answer in
                print("memory: \(answer["entries"]?.integer ?? 0) results, \(answer["bytes"]?.integer ?? 0) bytes")
                if let redis = answer["redis"], !redis.isNull {
                    print("redis:  \(redis["address"]?.string ?? ""): \(redis["state"]?.string ?? "")")
                    if let problem = redis["problem"]?.string { print("        \(problem)") }
                    if let remedy = redis["try"]?.string { print("        try: \(remedy)") }
                }
                for function in answer["functions"]?.elements ?? [] {
                    let number = { (name: String) in function[name]?.integer ?? 0 }
                    let given = number("hits") + number("stale")
                    let all = given + number("misses")
                    let ratio = all == 0 ? 0 : given * 1000 / all
                    let saved = function["savedSeconds"]?.double ?? 0
                    print(
                        "\(function["name"]?.string ?? ""): \(ratio / 10).\(ratio % 10) % hits"
                            + " (\(number("hits")) hits, \(number("stale")) stale, \(number("misses")) misses,"
                            + " \(number("bypasses")) bypassed), \(number("redisHits")) from Redis,"
                            + " \(number("redisErrors")) errors, saved \((saved * 1000).rounded() / 1000) s")
                }
                return .done
            }
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ls", abstract: "List kept results: where, bytes, seconds left in Redis, key.")
        @OptionGroup var filter: FunctionFilter
        @Option(help: "At most so many.") var limit = 100
        @OptionGroup var call: CacheCall

        func run() throws {
            call.perform("GET", "/keys?limit=\(limit)" + CacheCall.query("function", filter.function, "&")) { answer in
                for one in answer["keys"]?.elements ?? [] {
                    let places = [
                        one["memory"]?.bool == true ? "memory" : "", one["redis"]?.bool == true ? "redis" : "",
                    ]
                    let left = one["secondsLeft"]?.integer.map { "\($0) s" } ?? "-"
                    print(
                        "\(places.filter { !$0.isEmpty }.joined(separator: "+"))\t\(one["bytes"]?.integer ?? 0)\t\(left)\t\(one["key"]?.string ?? "")"
                    )
                }
                return .done
            }
        }
    }

    struct Get: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print a kept result; what is known of it on standard error.")
        @Argument(help: "The key, as ls shows it.") var key: String
        @OptionGroup var call: CacheCall

        func run() throws {
            call.perform("GET", "/entry" + CacheCall.query("key", key, "?")) { answer in
                complain(
                    "\(answer["status"]?.integer ?? 0) \(answer["contentType"]?.string ?? "") from \(answer["from"]?.string ?? ""),"
                        + " \(answer["ageSeconds"]?.integer ?? 0) s old, fresh for \(answer["freshSeconds"]?.integer ?? 0) s,"
                        + " took \(answer["runMilliseconds"]?.double ?? 0) ms")
                print(answer["body"]?.string ?? "")
                return .done
            }
        }
    }

    struct Explain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what the key of an input is made of, and why two inputs differ.")
        @Argument(help: "The function's name.") var function: String
        @Option(name: [.short, .long], help: "The input: text, @file, or - for standard input.") var data: String
        @Option(help: "Another input to compare with.") var with: String?
        @OptionGroup var call: CacheCall

        func run() throws {
            let path = "/explain" + CacheCall.query("function", function, "?")
            let first = call.input(data)
            guard let with else {
                return call.perform("POST", path, first) { answer in
                    Self.show(answer)
                    return .done
                }
            }
            let second = call.input(with)
            let call = call
            runLoop {
                guard let one = await call.answer("POST", path, first),
                    let other = await call.answer("POST", path, second)
                else { return .failed }
                Self.show(one)
                if one["key"]?.string == other["key"]?.string {
                    print("both inputs have this key")
                    return .done
                }
                print("the other input's key: \(other["key"]?.string ?? "")")
                Self.compare(one, other)
                return .done
            }
        }

        private static func show(_ answer: JSONValue) {
            let text = { (name: String) in answer[name]?.string ?? "" }
            print("key:       \(text("key"))")
            print("version:   \(text("versionTag"))\nfunction:  \(text("function"))\nbundle:    \(text("bundle"))")
            print("input:     \(text("input"))\(answer["cacheable"]?.bool == true ? "" : ", never kept")")
            if let canonical = answer["canonical"]?.string { print("canonical: \(canonical.prefix(2000))") }
            let places = ["memory", "redis"].filter { answer[$0]?.bool == true }
            print("kept:      \(places.isEmpty ? "no" : "in " + places.joined(separator: " and "))")
        }

        private static func compare(_ one: JSONValue, _ other: JSONValue) {
            for part in ["bundle", "input"] where one[part]?.string != other[part]?.string {
                print("they differ in: \(part)")
            }
            let parse = { (answer: JSONValue) in
                answer["canonical"]?.string.flatMap { try? JSONParser.parse(Array($0.utf8)) }
            }
            guard let left = parse(one), let right = parse(other) else {
                print("they differ in their bytes; only a decorated script has canonical JSON")
                return
            }
            for line in differences(left, right) { print("they differ at \(line)") }
        }
    }

    struct Verify: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Compute an input anew and compare with the result that is kept; exit code 1 when they differ.")
        @Argument(help: "The function's name.") var function: String
        @Option(name: [.short, .long], help: "The input: text, @file, or - for standard input.") var data: String
        @OptionGroup var call: CacheCall

        func run() throws {
            call.perform("POST", "/verify" + CacheCall.query("function", function, "?"), call.input(data)) {
                answer in
                if answer["same"]?.bool == true {
                    print(
                        "the kept result (\(answer["ageSeconds"]?.integer ?? 0) s old) is what the function gives now")
                    return .done
                }
                print("kept:  \(answer["keptStatus"]?.integer ?? 0) \(answer["kept"]?.string ?? "")")
                print("fresh: \(answer["freshStatus"]?.integer ?? 0) \(answer["fresh"]?.string ?? "")")
                let parse = { (name: String) in answer[name]?.string.flatMap { try? JSONParser.parse(Array($0.utf8)) } }
                if let kept = parse("kept"), let fresh = parse("fresh") {
                    for line in differences(kept, fresh) { print("they differ at \(line)") }
                }
                return .failed
            }
        }
    }

    struct Flush: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Forget kept results, here and in Redis.")
        @OptionGroup var filter: FunctionFilter
        @OptionGroup var call: CacheCall

        func run() throws {
            call.perform("DELETE", CacheCall.query("function", filter.function, "?")) { answer in
                print("\(answer["count"]?.integer ?? 0) results forgotten")
                return .done
            }
        }
    }
}

/// Where two JSON values differ, at most ten places: `data[0][2]: 1.5 and 1.6`.
func differences(_ left: JSONValue, _ right: JSONValue, at path: String = "") -> [String] {
    let place = path.isEmpty ? "the top" : path
    if let one = left.members, let other = right.members {
        let names = one.map(\.name) + other.map(\.name).filter { name in !one.contains { $0.name == name } }
        return Array(
            names.flatMap { name -> [String] in
                let inner = path.isEmpty ? name : "\(path).\(name)"
                switch (left[name], right[name]) {
                case (let a?, let b?): return differences(a, b, at: inner)
                case (nil, _): return ["\(inner): only in the second"]
                case (_, nil): return ["\(inner): only in the first"]
                }
            }.prefix(10))
    }
    if let one = left.elements, let other = right.elements {
        var found = one.count == other.count ? [] : ["\(place): \(one.count) and \(other.count) elements"]
        for (index, pair) in zip(one, other).enumerated() where found.count < 10 {
            found += differences(pair.0, pair.1, at: "\(path)[\(index)]")
        }
        return Array(found.prefix(10))
    }
    let texts = [left, right].map { String(decoding: $0.canonicalBytes, as: UTF8.self) }
    return texts[0] == texts[1] ? [] : ["\(place): \(texts[0].prefix(60)) and \(texts[1].prefix(60))"]
}
