/// What a started host shows, and the ready file.
import EventLoops
import Glibc
import FunctionApps
import Hosting
import Invocations
import JSONText

/// The banner: every URL, every function.
@EventLoop
func banner(_ host: FunctionHost) -> String {
    var text = "\nAndiron \(Andiron.version)\n\n"
    let rows = [
        ("Functions", host.url), ("Admin API", host.url + "/admin/host/status"),
        ("Health", host.url + "/readyz?verbose"),
        ("Metrics", host.url + "/metrics"), ("OpenAPI", host.url + "/openapi.json"), ("App", host.options.folder),
        ("Image", host.imageName ?? ""),
        ("Cache", host.cacheDescription),
        ("Keys", host.options.enablesAuth ? "required" : "not required (--enable-auth)"),
    ]
    let broker = host.brokerConnectionString.map { [("Service Bus", $0)] } ?? []
    let blobs = host.blobEndpoint.map { [("Blobs", $0)] } ?? []
    let queues = host.queueEndpoint.map { [("Queues", $0)] } ?? []
    for (name, value) in rows + broker + blobs + queues where !value.isEmpty {
        text += "  \(name)\(String(repeating: " ", count: 12 - name.count))\(value)\n"
    }
    text += "\nFunctions:\n\n"
    for runtime in host.runtimes where !runtime.metadata.isDisabled {
        let function = runtime.metadata
        guard let http = function.http, let url = host.url(of: function) else {
            let source = host.source(of: function.name).map { "  \($0)" } ?? ""
            text += "\t\(function.name): \(function.triggerType)\(source)\n\n"
            continue
        }
        let methods = http.methods.map { "[\($0.joined(separator: ","))]" } ?? "[any]"
        text += "\t\(function.name): \(methods) \(url)  (httpTrigger, \(http.authLevel.rawValue))\n\n"
    }
    for runtime in host.runtimes where runtime.metadata.isDisabled {
        text += "Function \(runtime.metadata.name) is disabled.\n"
    }
    for broken in host.app.broken { text += "Function \(broken.name) is in error.\n" }
    if host.state == .error { text += "host.json is wrong; functions run once it is corrected.\n" }
    return text
}

/// The ready file: where everything is.
@EventLoop
func readyDocument(_ host: FunctionHost) -> [UInt8] {
    jsonObject { writer in
        writer.member("url", host.url)
        writer.member("port", host.port)
        writer.member("pid", getpid())
        writer.member("admin", host.url + "/admin")
        writer.member("health", host.url + "/healthz")
        writer.member("ready", host.url + "/readyz")
        writer.member("metrics", host.url + "/metrics")
        writer.member("openapi", host.url + "/openapi.json")
        writer.member("score", host.url + "/score")
        if host.brokerSecurePort != 0 { writer.member("serviceBusTlsPort", host.brokerSecurePort) }
        if host.brokerAdministrationPort != 0 {
            writer.member("serviceBusAdminPort", host.brokerAdministrationPort)
        }
        if host.brokerPort != 0 {
            writer.member("serviceBusPort", host.brokerPort)
            if let connection = host.brokerConnectionString { writer.member("serviceBus", connection) }
        }
        if let url = host.blobEndpoint { writer.member("blob", url) }
        if let url = host.queueEndpoint { writer.member("queue", url) }
        writer.member("version", Andiron.version)
        writer.name("functions")
        writer.beginObject()
        for runtime in host.runtimes where !runtime.metadata.isDisabled {
            if let url = host.url(of: runtime.metadata) { writer.member(runtime.metadata.name, url) }
        }
        writer.endObject()
    } + [0x0A]
}
