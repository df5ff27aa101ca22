/// What a registry's refusals mean, in words a person can act on.
internal import Diagnostics
internal import HTTPClients
internal import JSONText

extension RegistryClient {
    /// The error for an answer that is none of success.
    func failure(_ response: HTTPClientResponse, _ call: RegistryCall) -> ImageError {
        let (codes, text) = registryErrors(response.body)
        let said = text.isEmpty ? "" : ": \(text)"
        var error: ImageError
        let isTooWeak =
            access.credentials != nil
            && response.headers.contains {
                $0.name == "www-authenticate" && $0.value.contains("insufficient_scope")
            }
        switch response.status {
        case 401 where !isTooWeak:
            let reason =
                access.credentials == nil
                ? "the registry \(host) wants credentials\(said)"
                : "the registry \(host) refuses the credentials of '\(access.credentials?.username ?? "")'\(said)"
            error = ImageError(.unauthorized, image: call.image, step: call.step, reason, remedy: credentialsRemedy)
        case 401, 403:
            error = ImageError(
                .unauthorized, image: call.image, step: call.step,
                "requested access to the resource is denied\(said)",
                remedy:
                    "give '\(access.credentials?.username ?? "anonymous")' the right to \(call.method == "GET" || call.method == "HEAD" ? "pull" : "push") here"
            )
        case 404:
            let what =
                codes.contains("NAME_UNKNOWN")
                ? "the repository is not known to \(host)"
                : "\(host) has no such \(call.step.hasPrefix("layer") || call.step == "configuration" ? "blob" : "image")"
            error = ImageError(
                .notFound, image: call.image, step: call.step, what + said,
                remedy: "check the name and the tag: andiron acr repository show-tags --repository NAME")
        case 429:
            error = ImageError(
                .busy, image: call.image, step: call.step, "\(host) answers 429, too many requests\(said)",
                remedy: "try again later, or sign in for a higher limit")
        case 500...:
            error = ImageError(
                .busy, image: call.image, step: call.step, "\(host) answers \(response.status)\(said)",
                remedy: "the registry is failing; look at its log, or try again later")
        default:
            error = ImageError(
                .protocolViolation, image: call.image, step: call.step, "\(host) answers \(response.status)\(said)",
                remedy: "is \(host) a registry?")
        }
        error.registryCodes = codes
        error.status = response.status
        return error
    }

    private var credentialsRemedy: String {
        guard let credentials = access.credentials else {
            return
                "set DOCKER_REGISTRY_SERVER_URL, DOCKER_REGISTRY_SERVER_USERNAME and DOCKER_REGISTRY_SERVER_PASSWORD, or sign in with DOCKER_CONFIG"
        }
        if access.usesDockerConfiguration {
            return "sign in again: the credentials for \(host) are those of DOCKER_CONFIG's config.json"
        }
        // The user of an Azure registry has the registry's name.
        return
            "if the password was renewed, show the current ones with: andiron acr credential show --name \(credentials.username); then set DOCKER_REGISTRY_SERVER_PASSWORD with: andiron functionapp config appsettings set --settings DOCKER_REGISTRY_SERVER_PASSWORD=…"
    }

    func tokenFailure(_ response: HTTPClientResponse, _ realm: String, _ call: RegistryCall) -> ImageError {
        let (_, text) = registryErrors(response.body)
        let kind: ImageError.Kind =
            response.status == 401 || response.status == 403 ? .unauthorized : .protocolViolation
        var error = ImageError(
            kind, image: call.image, step: "sign in",
            "the token service \(hostOf(realm)) answers \(response.status)\(text.isEmpty ? "" : ": \(text)")",
            remedy: credentialsRemedy)
        error.status = response.status
        return error
    }

    /// - Parameter other: host and port when it is not the registry itself.
    func transportFailure(_ error: HTTPClientError, _ call: RegistryCall, at other: String? = nil) -> ImageError {
        let host = other ?? host
        let isCertificate = error.number == 60
        if error.number == 23, call.receiver == nil {
            return ImageError(
                .limit, image: call.image, step: call.step,
                "\(host) answers with more than the \(call.byteLimit) bytes that are read",
                remedy: "is \(host) a registry, and is nothing in between answering for it?")
        }
        if error.number == 47 {
            return ImageError(
                .protocolViolation, image: call.image, step: call.step, "\(host) redirects more than 10 times",
                remedy: "look at the registry's storage redirects")
        }
        if error.number == 1 {
            return ImageError(
                .protocolViolation, image: call.image, step: call.step,
                "\(host) redirects to an address that is not followed: \(error.reason)",
                remedy: "https is never left for http")
        }
        return ImageError(
            .unreachable, image: call.image, step: call.step, "\(host): \(error.reason)",
            remedy: isCertificate
                ? "name the authority that signed the certificate of \(host), as PEM: SSL_CERT_FILE=/path/ca.pem, in the environment or the app settings"
                : error.isNotTLS
                    ? "if \(host) speaks no TLS, say so: DOCKER_REGISTRY_SERVER_URL=http://\(host); credentials are then readable on the way"
                    : "is the registry running, and is \(host) its address?")
    }
}

/// Codes and messages of `{"errors": […]}`; a body of another shape gives nothing.
func registryErrors(_ body: [UInt8]) -> (codes: [String], text: String) {
    guard body.count <= 1 << 20, let document = try? JSONParser.parse(body) else { return ([], "") }
    let errors = document["errors"]?.elements ?? []
    let texts = errors.prefix(3).map { error in
        let message = error["message"]?.string ?? error["code"]?.string ?? ""
        guard let detail = error["detail"], detail.members == nil || detail["Tag"] != nil else { return message }
        return detail["Tag"]?.string.map { "\(message) (tag \($0))" } ?? message
    }
    // A token service answers {"details": …} or {"error_description": …}.
    let other = document["error_description"]?.string ?? document["details"]?.string ?? ""
    let text = texts.isEmpty ? other : texts.joined(separator: "; ")
    return (
        errors.compactMap { $0["code"]?.string },
        String(text.unicodeScalars.filter { $0.value >= 0x20 }.prefix(400).map(Character.init))
    )
}
