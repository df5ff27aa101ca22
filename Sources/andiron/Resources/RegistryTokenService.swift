/// The token service of a local registry: whoever has one of its two passwords gets a token that docker-registry takes.
///
/// Reference: https://distribution.github.io/distribution/spec/auth/token/
import EventLoops
import Glibc
import HTTPMessages
import HTTPServers
import Images
import JSONText
import Resources

/// Answers `GET /oauth2/token` with Basic credentials, and its form by POST, as Azure's registries do.
@EventLoop
final class RegistryTokenService: HTTPResponder {
    private let key: SigningKey
    private let service: String
    private let registry: () -> JSONValue?

    /// Who signs.
    nonisolated static let issuer = "andiron"
    /// How long a token is good for, in seconds; a password that is renewed opens nothing new at once.
    nonisolated static let lifetime = 300

    /// - Parameters:
    ///   - service: the registry's own name, as its configuration has it.
    ///   - registry: the registry as it is now; asked for every token.
    init(key: SigningKey, service: String, registry: @escaping () -> JSONValue?) {
        self.key = key
        self.service = service
        self.registry = registry
    }

    func respond(to request: HTTPRequest) -> Eventual<HTTPResponse> {
        guard request.head.path.elementsEqual("/oauth2/token".utf8) else { return .now(HTTPResponse(status: 404)) }
        var fields = PercentCoding.query(request.head.query)
        var credentials = request.head.value("authorization").flatMap(basicCredentials)
        if request.head.isMethod("POST") {
            fields = PercentCoding.query(request.body[...])
            if let name = value("username", fields), let password = value("password", fields) {
                credentials = (name, password)
            }
        }
        guard let credentials, isRight(credentials) else { return .now(refusal) }
        let scopes = fields.filter { $0.name == "scope" }.flatMap { $0.value.split(separator: " ").map(String.init) }
        guard let token = token(for: credentials.name, scopes, now: time(nil)) else {
            return .now(HTTPResponse(status: 500))
        }
        return .now(
            .json(
                200,
                jsonObject { writer in
                    writer.member("token", token)
                    writer.member("access_token", token)
                    writer.member("expires_in", Self.lifetime)
                }))
    }

    func refusal(_ error: HTTPParseError) -> HTTPResponse { .text(error.status, error.reason + "\n") }

    private var refusal: HTTPResponse {
        .json(
            401,
            jsonObject { writer in
                writer.name("errors")
                writer.beginArray()
                writer.beginObject()
                writer.member("code", "UNAUTHORIZED")
                writer.member("message", "authentication required: the user name or the password is wrong")
                writer.endObject()
                writer.endArray()
            })
    }

    private func value(_ name: String, _ fields: [(name: String, value: String)]) -> String? {
        fields.first { $0.name == name }?.value
    }

    private func isRight(_ given: (name: String, password: String)) -> Bool {
        guard let registry = registry(), registry["adminUserEnabled"]?.bool == true,
            registry["name"]?.string?.lowercased() == given.name.lowercased()
        else { return false }
        return ["_password", "_password2"].contains { registry[$0]?.string == given.password }
    }

    /// A JSON Web Token that grants what is asked for.
    ///
    /// - Parameter now: seconds since 1970.
    func token(for name: String, _ scopes: [String], now: Int) -> String? {
        let header = jsonObject { writer in
            writer.member("typ", "JWT")
            writer.member("alg", "RS256")
            writer.name("x5c")
            writer.beginArray()
            writer.string(encodeBase64(key.certificate))
            writer.endArray()
        }
        let claims = jsonObject { writer in
            writer.member("iss", Self.issuer)
            writer.member("sub", name)
            writer.member("aud", service)
            writer.member("iat", now)
            writer.member("nbf", now - 10)
            writer.member("exp", now + Self.lifetime)
            writer.member("jti", encodeBase64(randomBytes(12)))
            writer.name("access")
            writer.beginArray()
            for scope in scopes { write(scope, to: &writer) }
            writer.endArray()
        }
        let text = base64URL(header) + "." + base64URL(claims)
        return key.sign(Array(text.utf8)).map { text + "." + base64URL($0) }
    }

    /// `repository:name:pull,push`; a name may have colons in it, the port of a registry.
    private func write(_ scope: String, to writer: inout JSONWriter) {
        let parts = scope.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count >= 3, let actions = parts.last else { return }
        writer.beginObject()
        writer.member("type", String(parts[0]))
        writer.member("name", parts[1..<(parts.count - 1)].joined(separator: ":"))
        writer.name("actions")
        writer.beginArray()
        for action in actions.split(separator: ",") { writer.string(String(action)) }
        writer.endArray()
        writer.endObject()
    }
}

/// RFC 7617: `Basic ` and base64 of name, colon and password.
func basicCredentials(_ header: String) -> (name: String, password: String)? {
    guard header.lowercased().hasPrefix("basic "), let bytes = decodeBase64(String(header.dropFirst(6))) else {
        return nil
    }
    guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else { return nil }
    return (
        String(decoding: bytes[..<colon], as: UTF8.self), String(decoding: bytes[(colon + 1)...], as: UTF8.self)
    )
}

/// RFC 4648's base64url, without padding.
private func base64URL(_ bytes: [UInt8]) -> String {
    String(encodeBase64(bytes).filter { $0 != "=" }.map { $0 == "+" ? "-" : $0 == "/" ? "_" : $0 })
}
