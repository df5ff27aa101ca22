/// Keys in the admin API: `/admin/host/keys`, `/systemkeys`, `/admin/functions/{name}/keys`.
internal import ConfigurationFiles
internal import Diagnostics
internal import EventLoops
internal import FunctionApps
internal import HTTPMessages
internal import HTTPServers
internal import Invocations
internal import JSONText

/// Lists, makes, sets and deletes keys, with the Functions host's statuses.
@EventLoop
final class AdminKeysAPI {
    private unowned let host: FunctionHost

    init(host: FunctionHost) { self.host = host }

    /// - Parameter parts: the path behind `/admin/host/` or `/admin/functions/`.
    /// - Returns: nil when the path is not about keys.
    func respond(to request: HTTPRequest, parts: [String]) -> HTTPResponse? {
        let isHost = String(decoding: request.head.path, as: UTF8.self).hasPrefix("/admin/host/")
        guard let (scope, key) = target(parts, isHost: isHost) else { return nil }
        if case .function(let name) = scope,
            !host.runtimes.contains(where: { $0.metadata.name.caseInsensitiveEquals(name) })
        {
            return HTTPResponse(status: 404)
        }
        do throws(SystemError) {
            guard let key else {
                guard request.head.isMethod("GET") else { return HTTPResponse(status: 405) }
                return .json(200, list(try host.keys.keys(scope), request))
            }
            if scope == .system, key.lowercased() == "_master" { return try master(request) }
            return try one(scope, key, request)
        } catch {
            return errorResponse(500, code: error.code, "the keys cannot be read or written: \(error.message)")
        }
    }

    private func target(_ parts: [String], isHost: Bool) -> (KeyStore.Scope, String?)? {
        if isHost {
            guard let first = parts.first, (1...2).contains(parts.count) else { return nil }
            switch first.lowercased() {
            case "keys", "functionkeys": return (.host, parts.count == 2 ? parts[1] : nil)
            case "systemkeys": return (.system, parts.count == 2 ? parts[1] : nil)
            default: return nil
            }
        }
        guard (2...3).contains(parts.count), parts[1].lowercased() == "keys" else { return nil }
        return (.function(parts[0]), parts.count == 3 ? parts[2] : nil)
    }

    private func one(_ scope: KeyStore.Scope, _ name: String, _ request: HTTPRequest) throws(SystemError)
        -> HTTPResponse
    {
        let head = request.head
        if head.isMethod("GET") {
            guard let key = try host.keys.keys(scope).first(where: { $0.name.lowercased() == name.lowercased() }) else {
                return HTTPResponse(status: 404)
            }
            return .json(200, describe(key, request))
        }
        if head.isMethod("POST") {
            let (key, isNew) = try host.keys.set(scope, name: name, value: nil)
            return .json(isNew ? 201 : 200, describe(key, request))
        }
        if head.isMethod("PUT") {
            guard let value = putValue(request.body) else { return .text(400, "Invalid key value") }
            let (key, isNew) = try host.keys.set(scope, name: name, value: value)
            return .json(isNew ? 201 : 200, describe(key, request))
        }
        guard head.isMethod("DELETE") else { return HTTPResponse(status: 405) }
        return HTTPResponse(status: try host.keys.delete(scope, name: name) ? 204 : 404)
    }

    private func master(_ request: HTTPRequest) throws(SystemError) -> HTTPResponse {
        let head = request.head
        if head.isMethod("GET") {
            return .json(200, describe(FunctionKey(name: "_master", value: try host.keys.master()), request))
        }
        if head.isMethod("POST") { return .json(201, describe(try host.keys.setMaster(nil), request)) }
        if head.isMethod("PUT") {
            guard let value = putValue(request.body) else { return .text(400, "Invalid key value") }
            return .json(200, describe(try host.keys.setMaster(value), request))
        }
        return head.isMethod("DELETE") ? .text(400, "Cannot delete System Key.") : HTTPResponse(status: 405)
    }

    private func putValue(_ body: [UInt8]) -> String? {
        guard let value = (try? JSONParser.parse(body))?["value"]?.string, !value.isEmpty else { return nil }
        return value
    }

    private func list(_ keys: [FunctionKey], _ request: HTTPRequest) -> [UInt8] {
        jsonObject { writer in
            writer.name("keys")
            writer.beginArray()
            for key in keys {
                writer.beginObject()
                writer.member("name", key.name)
                writer.member("value", key.value)
                writer.endObject()
            }
            writer.endArray()
            links(request, &writer)
        }
    }

    private func describe(_ key: FunctionKey, _ request: HTTPRequest) -> [UInt8] {
        jsonObject { writer in
            writer.member("name", key.name)
            writer.member("value", key.value)
            links(request, &writer)
        }
    }

    private func links(_ request: HTTPRequest, _ writer: inout JSONWriter) {
        writer.name("links")
        writer.beginArray()
        writer.beginObject()
        writer.member("rel", "self")
        writer.member("href", host.url + String(decoding: request.head.path, as: UTF8.self))
        writer.endObject()
        writer.endArray()
    }
}
