/// The log App Service keeps of a container's start, `<yyyy_MM_dd>_<host>_docker.log`, line by line as it writes it.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import Glibc
internal import Images

/// Writes the lines of one start.
@EventLoop
final class ContainerLog {
    private let path: String
    private let site: String
    private let image: String
    private let container: String
    private var timestamp = Timestamp()
    private let began = monotonicNanoseconds()
    private var states: [LayerState] = []
    private var hasPulled = false
    private var warmUpBegan: UInt64 = 0

    init(folder: String, site: String, image: String) {
        var stamp = Timestamp()
        let day = stamp.rfc3339().prefix(10).replacing("-", with: "_")
        path = "\(folder)/\(day)_\(machineName())_docker.log"
        self.site = site
        self.image = image
        container = "\(site)_0_\(String(UInt32.random(in: .min ... .max), radix: 16))"
        // A log that cannot be written stops nothing.
        try? createFolders(folder)
    }

    private func write(_ level: String, _ text: String) {
        let line = Array("\(timestamp.rfc3339()) \(level)\(level.count == 4 ? " " : "") - \(text)\n".utf8)
        let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        guard file >= 0 else { return }
        _ = line.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
        close(file)
    }

    private var reference: ImageReference?

    func begin(_ reference: ImageReference) {
        self.reference = reference
        write("INFO", "Pulling image: \(reference)")
        write("INFO", "\(reference.tag ?? reference.identifier) Pulling from \(reference.repository)")
    }

    func show(_ event: PullEvent, _ reference: ImageReference) {
        switch event {
        case .phase: break
        case .digest(let digest): self.digest = digest
        case .layers(let layers):
            states = layers.map(\.state)
            for layer in layers where layer.state != .skipped {
                write("INFO", "\(layer.digest.short) \(layer.state == .cached ? "Already exists" : "Pulling fs layer")")
            }
        case .layer(let index, let layer):
            guard states[index] != layer.state else { return }
            states[index] = layer.state
            let id = layer.digest.short
            switch layer.state {
            case .downloading:
                write("INFO", "\(id) Downloading \(megabytes(layer.received)) / \(megabytes(layer.size))")
            case .unpacking:
                write("INFO", "\(id) Verifying Checksum")
                write("INFO", "\(id) Download complete")
                write("INFO", "\(id) Extracting \(megabytes(layer.size)) / \(megabytes(layer.size))")
            case .done:
                hasPulled = true
                write("INFO", "\(id) Pull complete")
            case .cached: write("INFO", "\(id) Already exists")
            case .waiting, .skipped: break
            }
        }
    }

    private var digest: Digest?

    func pulled(_ image: PulledImage) {
        write("INFO", " Digest: \(image.digest)")
        write(
            "INFO", " Status: \(hasPulled ? "Downloaded newer image" : "Image is up to date") for \(image.reference)")
        write("INFO", "Pull Image successful, Time taken: \(timeTaken())")
    }

    private func timeTaken() -> String {
        let seconds = Int(Double(monotonicNanoseconds() - began) / 1e9)
        return seconds < 60 ? "\(seconds) Seconds" : "\(seconds / 60) Minutes and \(seconds % 60) Seconds"
    }

    func fallsBack() { write("WARN", "Image pull failed. Defaulting to local copy if present.") }

    func starting() {
        write("INFO", "Starting container for site")
        write(
            "INFO",
            "docker run -d --expose=80 --name \(container) -e WEBSITES_PORT=80 -e WEBSITE_SITE_NAME=\(site) \(reference.map { "\($0)" } ?? image)"
        )
        write("INFO", "Initiating warmup request to container \(container) for site \(site)")
        warmUpBegan = monotonicNanoseconds()
    }

    private var elapsed: String {
        let seconds = Double(monotonicNanoseconds() - warmUpBegan) / 1e9
        return "\((seconds * 1e7).rounded() / 1e7)"
    }

    func waiting() {
        write(
            "INFO",
            "Waiting for response to warmup request for container \(container). Elapsed time = \(elapsed) sec")
    }

    func ready() {
        write(
            "INFO", "Container \(container) for site \(site) initialized successfully and is ready to serve requests.")
    }

    func failed(_ error: ImageError, hasOld: Bool) {
        switch error.kind {
        case .notFound:
            write(
                "ERROR",
                "DockerApiException: Docker API responded with status code=NotFound, response={\"message\":\"manifest for \(error.image) not found: manifest unknown: \(quoted(error.reason))\"}"
            )
        case .unauthorized:
            write(
                "ERROR",
                "DockerApiException: Docker API responded with status code=InternalServerError, response={\"message\":\"Get https://\(error.image): unauthorized: authentication required, visit https://aka.ms/acr/authorization for more information.\"}"
            )
        case .timeLimit where error.step == "warm-up":
            write(
                "ERROR",
                "Container \(container) for site \(site) did not start within expected time limit. Elapsed time = \(elapsed) sec"
            )
        case .notAnApp:
            write("ERROR", "Container \(container) for site \(site) has exited, failing site start")
            write("ERROR", quoted(error.message))
        default:
            write("ERROR", "Pulling docker image \(error.image) failed: \(quoted(error.message))")
        }
        if error.step != "warm-up", error.step != "load" {
            write(
                "ERROR",
                "Image pull failed: Verify docker image configuration and credentials (if using private repository)")
        }
        write("INFO", hasOld ? "The running image goes on." : "Stopping site \(site) because it failed during startup.")
    }

    private func quoted(_ text: String) -> String {
        text.replacing("\"", with: "\\\"").replacing("\n", with: " ")
    }

    private func megabytes(_ bytes: Int) -> String {
        bytes < 1 << 20 ? "\(bytes / 1024)KB" : "\(bytes >> 20)MB"
    }
}
