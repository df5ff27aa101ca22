/// The app's OpenAPI document, from routes and the entry scripts' schemas.
internal import EventLoops
internal import Invocations
internal import JSONText
internal import Scoring
internal import Workers

/// OpenAPI 3.0.3 of all HTTP functions. Scripts that are not up yet have an open schema.
@EventLoop
func openAPIDocument(_ host: FunctionHost) -> [UInt8] {
    let functions = host.runtimes.filter { $0.metadata.http != nil && !$0.metadata.isDisabled }
    return jsonObject { writer in
        writer.member("openapi", "3.0.3")
        writer.name("info")
        writer.beginObject()
        writer.member("title", host.options.folder.split(separator: "/").last.map(String.init) ?? "function app")
        writer.member("version", "1.0")
        writer.endObject()
        writer.name("servers")
        writer.beginArray()
        writer.beginObject()
        writer.member("url", host.url)
        writer.endObject()
        writer.endArray()
        writePaths(functions, host, &writer)
        writer.name("components")
        writer.beginObject()
        writer.name("schemas")
        writer.beginObject()
        for runtime in functions {
            let schemas = runtime.schemas
            for (suffix, name) in [("Input", "ServiceInput"), ("Output", "ServiceOutput")] {
                writer.name(runtime.metadata.name + suffix)
                if let schema = schemas?[name] { writer.value(schema) } else { writer.raw("{}") }
            }
        }
        writer.endObject()
        writer.name("securitySchemes")
        writer.raw(#"{"functionKey":{"type":"apiKey","in":"header","name":"x-functions-key"}}"#)
        writer.endObject()
    }
}

extension FunctionRuntime {
    /// The schemas of the script's own OpenAPI document, when a worker has sent it.
    fileprivate var schemas: JSONValue? {
        guard let text = python?.pool?.report?.swagger["3"] else { return nil }
        return (try? JSONParser.parse(Array(text.utf8)))?["components"]?["schemas"]
    }
}

@EventLoop
private func writePaths(_ functions: [FunctionRuntime], _ host: FunctionHost, _ writer: inout JSONWriter) {
    writer.name("paths")
    writer.beginObject()
    var paths: [(path: String, runtimes: [FunctionRuntime])] = []
    for runtime in functions {
        let path = openAPIPath(host.url(of: runtime.metadata)?.dropFirst(host.url.count).description ?? "/")
        if let index = paths.firstIndex(where: { $0.path == path }) {
            paths[index].runtimes.append(runtime)
        } else {
            paths.append((path, [runtime]))
        }
    }
    for (path, runtimes) in paths {
        writer.name(path)
        writer.beginObject()
        var seen: Set<String> = []
        for runtime in runtimes {
            for method in runtime.metadata.http?.methods ?? ["GET", "POST"] where seen.insert(method).inserted {
                writer.name(method.lowercased())
                writeOperation(runtime, method, path, &writer)
            }
        }
        writer.endObject()
    }
    writer.endObject()
}

@EventLoop
private func writeOperation(_ runtime: FunctionRuntime, _ method: String, _ path: String, _ writer: inout JSONWriter) {
    let name = runtime.metadata.name
    writer.beginObject()
    writer.member("operationId", "\(name)_\(method.lowercased())")
    let parameters = path.split(separator: "/").filter { $0.hasPrefix("{") }.map { String($0.dropFirst().dropLast()) }
    if !parameters.isEmpty {
        writer.name("parameters")
        writer.beginArray()
        for parameter in parameters {
            writer.beginObject()
            writer.member("name", parameter)
            writer.member("in", "path")
            writer.member("required", true)
            writer.name("schema")
            writer.raw(#"{"type":"string"}"#)
            writer.endObject()
        }
        writer.endArray()
    }
    if method != "GET", method != "HEAD" {
        writer.name("requestBody")
        writer.raw(##"{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/\##(name)Input"}}}}"##)
    }
    writer.name("responses")
    writer.raw(
        ##"{"200":{"description":"The result.","content":{"application/json":{"schema":{"$ref":"#/components/schemas/\##(name)Output"}}}}}"##
    )
    if runtime.metadata.http?.authLevel != .anonymous {
        writer.name("security")
        writer.raw(#"[{"functionKey":[]}]"#)
    }
    writer.endObject()
}

/// A route template as an OpenAPI path: names without constraints, defaults and marks.
private func openAPIPath(_ template: String) -> String {
    var path = ""
    var name: String?
    for character in template {
        if character == "{" {
            name = ""
        } else if character == "}", let text = name {
            path += "{" + text.drop { $0 == "*" }.prefix { $0 != ":" && $0 != "=" && $0 != "?" } + "}"
            name = nil
        } else if name != nil {
            name?.append(character)
        } else {
            path.append(character)
        }
    }
    return path
}
