/// `andiron queue`: looks into the queues of a running host's Service Bus and changes them.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import EventLoops
import Glibc
import HTTPClients
import JSONText

struct QueueCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "Look into the queues of a running host and change them.",
        discussion: """
            Examples:
              andiron queue ls
              andiron queue send orders -d '{"n": 1}'
              andiron queue dead-letters orders
              andiron queue resubmit orders
              andiron queue peek news/Subscriptions/large
            """,
        subcommands: [
            List.self, Send.self, Peek.self, Receive.self, DeadLetters.self, Resubmit.self, Purge.self, Move.self,
        ])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ls",
            abstract: "List queues, topics and subscriptions: active, scheduled, deferred, dead letters, name.")

        @OptionGroup var host: BrokerHost

        func run() throws {
            let host = host
            runLoop {
                guard let body = await host.admin("GET", "queues"), let list = try? JSONParser.parse(body) else {
                    return .failed
                }
                outputText("  active  scheduled  deferred  dead  name\n")
                for queue in list.elements ?? [] {
                    let cell = { (name: String, width: Int) in
                        let text = "\(queue[name]?.integer ?? 0)"
                        return String(repeating: " ", count: max(0, width - text.count)) + text
                    }
                    outputText(
                        "\(cell("active", 8))  \(cell("scheduled", 9))  \(cell("deferred", 8))  \(cell("deadLetters", 4))  \(queue["name"]?.string ?? "")\n"
                    )
                }
                return .done
            }
        }
    }

    struct Send: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Send a message.")

        @Argument(help: "The queue, or the topic.")
        var queue: String

        @Option(name: [.short, .long], help: "The body: text, @FILE, or @- for standard input.")
        var data: String

        @Option(help: "The session it belongs to.")
        var session: String?

        @Option(help: "Its message id.")
        var messageID: String?

        @Option(help: "Its subject, which filters know as sys.Label.")
        var subject: String?

        @Option(help: "Its content type.")
        var contentType = "application/octet-stream"

        @Option(
            name: .customLong("property"), help: "NAME=VALUE of its own; may be repeated. A whole number is a number.")
        var properties: [String] = []

        @OptionGroup var host: BrokerHost

        func validate() throws {
            for property in properties {
                let name = property.prefix { $0 != "=" }
                let isToken =
                    !name.isEmpty
                    && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "-_.".contains($0)) }
                guard isToken, name.count < property.count, !property.contains(where: \.isNewline) else {
                    throw ValidationError(
                        "--property is '\(property)': NAME=VALUE, with letters, digits, '-', '_' or '.' in the name")
                }
            }
        }

        func run() throws {
            let body = try readBody(data)
            let broker = jsonObject { writer in
                if let messageID { writer.member("MessageId", messageID) }
                if let session { writer.member("SessionId", session) }
                if let subject { writer.member("Label", subject) }
            }
            let own = properties.map { property in
                let name = property.prefix { $0 != "=" }
                let value = property.dropFirst(name.count + 1)
                return (name: String(name), value: Int64(value) == nil ? "\"\(value)\"" : String(value))
            }
            let headers = [
                (name: "BrokerProperties", value: String(decoding: broker, as: UTF8.self)),
                (name: "Content-Type", value: contentType),
            ]
            let host = host
            let queue = queue
            runLoop {
                let answer = await host.rest("POST", "\(queue)/messages", body, headers + own)
                return answer?.status == 201 ? .done : .failed
            }
        }
    }

    struct Peek: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Show messages without taking them.")

        @Argument(help: "The queue; q/$DeadLetterQueue and topic/Subscriptions/name are queues too.")
        var queue: String

        @Option(help: "How many.")
        var count = 10

        @Option(help: "The sequence number to begin with.")
        var from = 0

        @OptionGroup var host: BrokerHost

        func run() throws { showMessages(queue, from: from, count: count, host) }
    }

    struct DeadLetters: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "dead-letters", abstract: "Show dead letters and why they died.")

        @Argument(help: "The queue.")
        var queue: String

        @Option(help: "How many.")
        var count = 10

        @OptionGroup var host: BrokerHost

        func run() throws { showMessages(queue + "/$DeadLetterQueue", from: 0, count: count, host) }
    }

    struct Receive: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Take a message out and write its body.")

        @Argument(help: "The queue.")
        var queue: String

        @Option(help: "Seconds to wait for one.")
        var wait = 0

        @OptionGroup var host: BrokerHost

        func run() throws {
            let host = host
            let path = "\(queue)/messages/head?timeout=\(wait)"
            runLoop {
                guard let answer = await host.rest("DELETE", path, [], []) else { return .failed }
                guard answer.status == 200 else {
                    if answer.status == 204 { complain("there is no message") }
                    return .failed
                }
                output(answer.body + (answer.body.last == 0x0A ? [] : [0x0A]))
                return .done
            }
        }
    }

    struct Resubmit: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Put dead letters back into their queue.")

        @Argument(help: "The queue.")
        var queue: String

        @Option(help: "How many at most.")
        var count: Int?

        @OptionGroup var host: BrokerHost

        func run() throws { move(queue + "/$DeadLetterQueue", queue, count, host) }
    }

    struct Move: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Move messages to another queue.")

        @Argument(help: "The queue they are in.")
        var source: String

        @Argument(help: "The queue they go to.")
        var target: String

        @Option(help: "How many at most.")
        var count: Int?

        @OptionGroup var host: BrokerHost

        func run() throws { move(source, target, count, host) }
    }

    struct Purge: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Remove every message that no receiver holds.")

        @Argument(help: "The queue.")
        var queue: String

        @OptionGroup var host: BrokerHost

        func run() throws {
            let queue = queue
            change("purge", jsonObject { $0.member("queue", queue) }, host)
        }
    }
}

/// `andiron trigger queue`.
struct TriggerQueue: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "Send a message to the queue of a function.",
        discussion: """
            Examples:
              andiron trigger queue DigitsQueue -d @samples/bundles/digits/sample-input.json
            """)

    @Argument(help: "The function's name.")
    var function: String

    @Option(name: [.short, .long], help: "The body: text, @FILE, or @- for standard input.")
    var data: String

    @Option(help: "The session it belongs to.")
    var session: String?

    @OptionGroup var host: BrokerHost

    func run() throws {
        let body = try readBody(data)
        let document = jsonObject { writer in
            writer.member("function", function)
            writer.member("body", String(decoding: body, as: UTF8.self))
            if let session { writer.member("sessionId", session) }
        }
        let host = host
        runLoop {
            guard let answer = await host.admin("POST", "trigger", document) else { return .failed }
            output(answer + [0x0A])
            return .done
        }
    }
}

/// The host whose broker is meant, and how to ask it.
struct BrokerHost: ParsableArguments {
    @OptionGroup var running: RunningHost

    @Option(help: "The master key, when the host demands keys.")
    var key: String?

    /// Sends a request to the host; an answer that is an error is told.
    @EventLoop
    func rest(
        _ method: String, _ path: String, _ body: [UInt8], _ headers: [(name: String, value: String)]
    ) async -> HTTPClientResponse? {
        guard let base = running.base() else {
            complain("error[AN1006]: the ready file is not there; does the host run?")
            return nil
        }
        let key: [(name: String, value: String)] = self.key.map { [("x-functions-key", $0)] } ?? []
        do throws(HTTPClientError) {
            let response = try await HTTPClient().send(
                HTTPClientRequest(
                    method: method, url: "\(base)/\(path)", headers: headers + key, body: body, timeout: .seconds(330)))
            guard response.status >= 400 else { return response }
            let error = (try? JSONParser.parse(response.body))?["error"]
            let isUnknown = response.status == 404 && error == nil
            let words =
                isUnknown
                ? "there is no queue '\(path.firstRange(of: "/messages").map { path[..<$0.lowerBound] } ?? path[...])', or the broker does not run"
                : error?["message"]?.string ?? detail(response.body) ?? "status \(response.status)"
            let remedy =
                (error?["try"]?.string ?? (isUnknown ? "`andiron queue ls` lists those there are" : nil))
                .map { "\n  try: \($0)" } ?? ""
            complain("error[\(error?["code"]?.string ?? "AN8011")]: \(words)\(remedy)")
            return nil
        } catch {
            complain("\(error)")
            return nil
        }
    }

    /// Asks below `/admin/servicebus/`.
    @EventLoop
    func admin(_ method: String, _ operation: String, _ body: [UInt8] = []) async -> [UInt8]? {
        await rest(method, "admin/servicebus/\(operation)", body, [("Content-Type", "application/json")])?.body
    }
}

/// What the broker's own REST calls say about a failure, in XML.
private func detail(_ body: [UInt8]) -> String? {
    let text = String(decoding: body, as: UTF8.self)
    guard let start = text.firstRange(of: "<Detail>")?.upperBound,
        let end = text[start...].firstRange(of: "</Detail>")?.lowerBound
    else { return nil }
    return [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&amp;", "&")].reduce(String(text[start..<end])) {
        $0.replacing($1.0, with: $1.1)
    }
}

private func readBody(_ data: String) throws -> [UInt8] {
    guard data.hasPrefix("@") else { return Array(data.utf8) }
    let name = String(data.dropFirst())
    let path = name == "-" ? "/dev/stdin" : absolutePath(name, in: currentFolder())
    guard let bytes = readFile(path) else {
        complain("error[AN1005]: the file '\(name)' cannot be read: \(String(cString: strerror(errno)))")
        Glibc.exit(ExitStatus.missingFile.rawValue)
    }
    return bytes
}

private func showMessages(_ queue: String, from: Int, count: Int, _ host: BrokerHost) {
    let request = jsonObject { writer in
        writer.member("queue", queue)
        writer.member("from", from)
        writer.member("count", count)
    }
    runLoop {
        guard let body = await host.admin("POST", "peek", request), let list = try? JSONParser.parse(body) else {
            return .failed
        }
        for message in list.elements ?? [] {
            var writer = JSONWriter()
            writer.value(message)
            output(writer.bytes + [0x0A])
        }
        return .done
    }
}

private func move(_ source: String, _ target: String, _ count: Int?, _ host: BrokerHost) {
    let request = jsonObject { writer in
        writer.member("queue", source)
        writer.member("to", target)
        if let count { writer.member("count", count) }
    }
    change("move", request, host)
}

private func change(_ operation: String, _ request: [UInt8], _ host: BrokerHost) {
    runLoop {
        guard let answer = await host.admin("POST", operation, request) else { return .failed }
        let count = (try? JSONParser.parse(answer))?["messages"]?.integer ?? 0
        outputText("\(count) message\(count == 1 ? "" : "s")\n")
        return .done
    }
}
