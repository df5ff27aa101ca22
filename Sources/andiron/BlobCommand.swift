/// `andiron blob`: looks into the storage folder and changes it.
import ArgumentParser
import ConfigurationFiles
import Diagnostics
import DurableStores
import EventLoops
import Glibc
import JSONText
import StorageAccounts

struct BlobCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "blob", abstract: "Look into the storage folder and change it.",
        discussion: """
            Examples:
              andiron blob ls incoming
              andiron blob put digit.json incoming/7.json
              andiron blob reprocess incoming/7.json
            """,
        subcommands: [
            List.self, Put.self, Get.self, Remove.self, Receipts.self, Reprocess.self, Poison.self,
        ])

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "ls", abstract: "List containers, or the blobs of one: bytes, time of change, name.")

        @Argument(help: "A container, or container/prefix.")
        var path: String?

        @OptionGroup var location: StorageLocation

        func run() throws {
            guard let path else {
                for name in location.folder.containers() { outputText(name + "\n") }
                return
            }
            let halves = path.split(separator: "/", maxSplits: 1).map(String.init)
            guard isFolder("\(location.root())/\(halves[0])") else {
                complain("error[AN7017]: there is no container '\(halves[0])' in \(location.root())")
                Glibc.exit(ExitStatus.missingFile.rawValue)
            }
            location.folder.each(container: halves[0], prefix: halves.count > 1 ? halves[1] : "") { name, properties in
                let size = String(properties.byteCount)
                let padding = String(repeating: " ", count: max(0, 12 - size.count))
                outputText("\(padding)\(size)  \(httpDate(properties.lastModified))  \(name)\n")
            }
        }
    }

    struct Put: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Write a file, or standard input (-), to a blob.")

        @Argument(help: "The file, or -.")
        var file: String

        @Argument(help: "container/name")
        var blob: String

        @Option(help: "The content type.")
        var contentType = BlobProperties.defaultContentType

        @Option(help: "Metadata, name=value.")
        var metadata: [String] = []

        @OptionGroup var location: StorageLocation

        func run() throws {
            let address = try location.address(blob)
            let path = file == "-" ? "/dev/stdin" : absolutePath(file, in: currentFolder())
            guard let contents = readFile(path) else {
                complain("error[AN1005]: the file '\(file)' cannot be read: \(String(cString: strerror(errno)))")
                Glibc.exit(ExitStatus.missingFile.rawValue)
            }
            var headers = BlobHeaders(contentType: contentType)
            for pair in metadata {
                let halves = pair.split(separator: "=", maxSplits: 1).map(String.init)
                guard halves.count == 2 else { throw ValidationError("--metadata is '\(pair)'; it is name=value.") }
                headers.metadata.append((halves[0], halves[1]))
            }
            do throws(StorageError) {
                try location.folder.makeFolders()
                let written = try location.folder.write(
                    address, contents, headers, temporaryName: "cli-\(getpid()).tmp"
                ).get()
                outputText("\(address) \(written.etag)\n")
            } catch {
                complain(error.description)
                Glibc.exit(ExitStatus.cannotCreate.rawValue)
            }
        }
    }

    struct Get: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Write a blob to standard output, or to a file.")

        @Argument(help: "container/name")
        var blob: String

        @Argument(help: "The file (default: standard output).")
        var file: String?

        @OptionGroup var location: StorageLocation

        func run() throws {
            let address = try location.address(blob)
            switch location.folder.read(address, limit: .max) {
            case .blob(let blob):
                guard let file else { return output(blob.contents) }
                do throws(SystemError) {
                    try writeFileAtomically(absolutePath(file, in: currentFolder()), blob.contents)
                } catch {
                    complain(error.description)
                    Glibc.exit(ExitStatus.cannotCreate.rawValue)
                }
            case .gone:
                complain("error[AN7013]: there is no blob '\(address)' in \(location.root())")
                Glibc.exit(ExitStatus.missingFile.rawValue)
            case .beingWritten:
                complain("error[AN7013]: the blob '\(address)' is being written")
                Glibc.exit(ExitStatus.timedOut.rawValue)
            case .failed(let error):
                complain(error.description)
                Glibc.exit(ExitStatus.failed.rawValue)
            }
        }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(commandName: "rm", abstract: "Remove a blob.")

        @Argument(help: "container/name")
        var blob: String

        @OptionGroup var location: StorageLocation

        func run() throws {
            let address = try location.address(blob)
            do throws(StorageError) {
                guard try location.folder.delete(address).get() else {
                    complain("error[AN7013]: there is no blob '\(address)' in \(location.root())")
                    Glibc.exit(ExitStatus.missingFile.rawValue)
                }
            } catch {
                complain(error.description)
                Glibc.exit(ExitStatus.failed.rawValue)
            }
        }
    }

    struct Receipts: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what functions have done with blobs: state, attempts, function, blob.")

        @Argument(help: "What the blob's container/name begins with.")
        var prefix = ""

        @OptionGroup var filter: FunctionFilter
        @OptionGroup var format: JSONChoice

        @OptionGroup var location: StorageLocation

        func run() throws {
            let command = self
            runLoop { await command.list() }
        }

        @EventLoop
        private func list() async -> ExitStatus {
            let query =
                "receipts?prefix=\(percentEncoded(path: prefix))&function=\(percentEncoded(path: filter.function ?? ""))"
            let found = await location.request("GET", query) { (ledger) throws(StorageError) in
                let receipts = await ledger.receipts(
                    function: filter.function, prefix: prefix, state: nil, limit: 1_000_000
                )
                .value()
                return receiptsDocument(try stored(receipts))
            }
            guard let found else { return .failed }
            if format.json {
                output(found + [0x0A])
                return .done
            }
            for receipt in (try? JSONParser.parse(found))?.elements ?? [] {
                let word = { (name: String) in receipt[name]?.string ?? "" }
                outputText(
                    "\(word("state")) \(receipt["attempts"]?.integer ?? 0) \(word("function")) \(word("blob")) \(word("etag"))\n"
                )
            }
            return .done
        }
    }

    struct Reprocess: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Have a blob, or all of a container, processed again by forgetting the receipts.")

        @Argument(help: "container/name, or a container.")
        var path: String

        @OptionGroup var filter: FunctionFilter

        @OptionGroup var location: StorageLocation

        func run() throws {
            let command = self
            runLoop { await command.forget() }
        }

        @EventLoop
        private func forget() async -> ExitStatus {
            let address = try? location.address(path)
            let container = address?.container ?? path
            let body = jsonObject { writer in
                writer.member("container", container)
                if let address { writer.member("name", address.name) }
                if let function = filter.function { writer.member("function", function) }
            }
            let answer = await location.request("POST", "reprocess", body) { (ledger) throws(StorageError) in
                let count = await ledger.forget(function: filter.function, container: container, name: address?.name)
                    .value()
                return Array("{\"count\":\(try stored(count))}".utf8)
            }
            guard let answer else { return .failed }
            let count = (try? JSONParser.parse(answer))?["count"]?.integer ?? 0
            outputText("\(count) receipts forgotten\n")
            return .done
        }
    }

    struct Poison: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "List the blobs that were given up.")

        @OptionGroup var format: JSONChoice

        @OptionGroup var location: StorageLocation

        func run() throws {
            let command = self
            runLoop { await command.list() }
        }

        @EventLoop
        private func list() async -> ExitStatus {
            let queue = "webjobs-blobtrigger-poison"
            let found = await location.request("GET", "messages?queue=\(queue)") { (ledger) throws(StorageError) in
                messagesDocument(try stored(await ledger.peek(queue: queue, count: 1_000_000).value()))
            }
            guard let found else { return .failed }
            if format.json {
                output(found + [0x0A])
                return .done
            }
            for message in (try? JSONParser.parse(found))?.elements ?? [] {
                let body = (message["body"]?.string).flatMap { try? JSONParser.parse(Array($0.utf8)) }
                let word = { (name: String) in body?[name]?.string ?? "" }
                outputText(
                    "\(word("ContainerName"))/\(word("BlobName")) \(word("FunctionId")) \(word("ETag")) \(message["inserted"]?.string ?? "")\n"
                )
            }
            return .done
        }
    }
}

/// Text on standard output.
func outputText(_ text: String) { output(Array(text.utf8)) }

/// A store's result as the storage error it is.
func stored<Value>(_ result: Result<Value, StoreError>) throws(StorageError) -> Value {
    switch result {
    case .success(let value): return value
    case .failure(let error): throw StorageError.store(error)
    }
}
