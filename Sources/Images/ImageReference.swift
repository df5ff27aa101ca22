/// The name of an image: `registry/repository:tag` or `…@sha256:…`, by the reference grammar of
/// github.com/distribution/reference (regexp.go, normalize.go).

/// A parsed name of an image.
public struct ImageReference: Hashable, Sendable, CustomStringConvertible {
    /// Host and port, `docker.io` when the name has none.
    public let domain: String
    /// The repository, `library/` added where Docker Hub has it.
    public let repository: String
    /// nil when only a digest is given.
    public let tag: String?
    public let digest: Digest?

    public init(domain: String, repository: String, tag: String?, digest: Digest?) {
        self.domain = domain
        self.repository = repository
        self.tag = tag
        self.digest = digest
    }

    /// What stands after the repository in `/manifests/`: the digest wins over the tag.
    public var identifier: String { digest?.description ?? tag ?? "latest" }

    public var description: String {
        var text = "\(domain)/\(repository)"
        if let tag { text += ":\(tag)" }
        if let digest { text += "@\(digest)" }
        return text
    }

    /// The host that answers for the domain.
    public var registryHost: String { domain == "docker.io" ? "registry-1.docker.io" : domain }

    /// The same repository by digest.
    public func with(digest: Digest) -> ImageReference {
        ImageReference(domain: domain, repository: repository, tag: nil, digest: digest)
    }

    /// The same repository by tag.
    public func with(tag: String) -> ImageReference {
        ImageReference(domain: domain, repository: repository, tag: tag, digest: nil)
    }

    /// Longest repository, in bytes.
    public static let repositoryByteLimit = 255

    /// Parses a name.
    ///
    /// A leading `DOCKER|` and `http(s)://` are taken off, as Azure's command line does.
    ///
    /// - Throws: AN9001 in the reference implementation's words.
    public init(_ written: String) throws(ImageError) {
        var text = written[...]
        if text.lowercased().hasPrefix("docker|") { text = text.dropFirst("docker|".count) }
        for scheme in ["https://", "http://"] where text.lowercased().hasPrefix(scheme) {
            text = text.dropFirst(scheme.count)
        }
        func failure(_ reason: String, _ remedy: String? = nil) -> ImageError {
            ImageError(.reference, image: "'\(written)'", step: "", reason, remedy: remedy)
        }
        let shape = "registry/repository:tag or registry/repository@sha256:digest"
        if text.isEmpty { throw failure("repository name must have at least one component", shape) }
        var name = text
        var digest: Digest?
        if let at = text.firstIndex(of: "@") {
            let algorithmAndDigits = text[text.index(after: at)...]
            name = text[..<at]
            guard isDigest(algorithmAndDigits) else { throw failure("invalid reference format", shape) }
            digest = Digest(algorithmAndDigits)
            if digest == nil {
                throw failure(
                    algorithmAndDigits.hasPrefix("sha256:")
                        ? "invalid checksum digest length" : "unsupported digest algorithm",
                    "sha256: and 64 lower-case hexadecimal digits")
            }
        }
        if isHexadecimal64(name) {
            throw failure("invalid repository name (\(name)), cannot specify 64-byte hexadecimal strings")
        }
        var tag: String?
        if let colon = name.lastIndex(of: ":"), !name[colon...].contains("/") {
            let candidate = name[name.index(after: colon)...]
            guard isTag(candidate) else { throw failure("invalid reference format", shape) }
            tag = String(candidate)
            name = name[..<colon]
        }
        let (domain, path) = split(name)
        guard isDomain(domain[...]) else { throw failure("invalid reference format", shape) }
        if path.isEmpty { throw failure("repository name must have at least one component", shape) }
        guard isPath(path[...]) else {
            if path != path.lowercased(), isPath(path.lowercased()[...]) {
                throw failure("invalid reference format: repository name (\(path)) must be lowercase")
            }
            throw failure("invalid reference format", shape)
        }
        guard path.utf8.count <= Self.repositoryByteLimit else {
            throw failure("repository name must not be more than \(Self.repositoryByteLimit) characters")
        }
        self.init(
            domain: domain, repository: path, tag: tag ?? (digest == nil ? "latest" : nil), digest: digest)
    }

    /// A hint when the tag is a digest in disguise: the mistake the tutorial leads to.
    public var tagHint: String? {
        guard let tag else { return nil }
        return isHexadecimal64(tag[...])
            ? "the tag looks like a digest; did you mean \(domain)/\(repository)@sha256:\(tag)?" : nil
    }

    /// A hint when the registry's host stands twice in the name, which some tools produce.
    public var domainHint: String? {
        repository.hasPrefix(domain + "/")
            ? "the registry's name stands twice; did you mean \(repository)?" : nil
    }
}

/// Domain and path; the first component is a domain if it could be one.
private func split(_ name: Substring) -> (domain: String, path: String) {
    guard let slash = name.firstIndex(of: "/") else { return ("docker.io", "library/\(name)") }
    let first = name[..<slash]
    let isDomain =
        first == "localhost" || first.contains(".") || first.contains(":") || first != first.lowercased()[...]
    guard isDomain else { return ("docker.io", String(name)) }
    let rest = String(name[name.index(after: slash)...])
    if first == "docker.io" || first == "index.docker.io" {
        return ("docker.io", rest.contains("/") || rest.isEmpty ? rest : "library/\(rest)")
    }
    return (String(first), rest)
}

private func isAlphanumeric(_ byte: UInt8) -> Bool { isLowercaseOrDigit(byte) || (0x41...0x5A).contains(byte) }
private func isLowercaseOrDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) || (0x61...0x7A).contains(byte) }

private func isHexadecimal64(_ text: Substring) -> Bool { Digest(hex: String(text)) != nil }

private func isTag(_ text: Substring) -> Bool {
    guard let first = text.utf8.first, isAlphanumeric(first) || first == 0x5F, text.utf8.count <= 128 else {
        return false
    }
    return text.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x5F || $0 == 0x2E || $0 == 0x2D }
}

/// `algorithm(+algorithm)*:` and at least 32 hexadecimal digits.
private func isDigest(_ text: Substring) -> Bool {
    guard let colon = text.firstIndex(of: ":") else { return false }
    let parts = text[..<colon].split(omittingEmptySubsequences: false) { "-_+.".contains($0) }
    let digits = text[text.index(after: colon)...].utf8
    return parts.allSatisfy { part in
        guard let first = part.utf8.first, isAlphanumeric(first), !(0x30...0x39).contains(first) else { return false }
        return part.utf8.allSatisfy(isAlphanumeric)
    } && digits.count >= 32
        && digits.allSatisfy {
            (0x30...0x39).contains($0) || (0x61...0x66).contains($0) || (0x41...0x46).contains($0)
        }
}

private func isDomain(_ text: Substring) -> Bool {
    var host = text
    if text.hasPrefix("[") {
        guard let end = text.firstIndex(of: "]") else { return false }
        let inside = text[text.index(after: text.startIndex)..<end]
        guard !inside.isEmpty, inside.utf8.allSatisfy({ isHexadecimal($0) || $0 == 0x3A }) else { return false }
        let rest = text[text.index(after: end)...]
        return rest.isEmpty || rest.hasPrefix(":") && isPort(rest.dropFirst())
    }
    if let colon = text.firstIndex(of: ":") {
        guard isPort(text[text.index(after: colon)...]) else { return false }
        host = text[..<colon]
    }
    let labels = host.split(separator: ".", omittingEmptySubsequences: false)
    return labels.allSatisfy { label in
        guard let first = label.utf8.first, let last = label.utf8.last, isAlphanumeric(first), isAlphanumeric(last)
        else { return false }
        return label.utf8.allSatisfy { isAlphanumeric($0) || $0 == 0x2D }
    }
}

private func isHexadecimal(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte) || (0x41...0x46).contains(byte)
}

private func isPort(_ text: Substring) -> Bool {
    !text.isEmpty && text.utf8.allSatisfy { (0x30...0x39).contains($0) }
}

private func isPath(_ text: Substring) -> Bool {
    text.split(separator: "/", omittingEmptySubsequences: false).allSatisfy(isPathComponent)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
private func isPathComponent(_ text: Substring) -> Bool {
    guard let first = text.utf8.first, let last = text.utf8.last, isLowercaseOrDigit(first), isLowercaseOrDigit(last)
    else { return false }
    var separator: [UInt8] = []
    for byte in text.utf8 {
        if isLowercaseOrDigit(byte) {
            let isAllowed =
                separator.isEmpty || separator == [0x2E] || separator == [0x5F] || separator == [0x5F, 0x5F]
                || separator.allSatisfy { $0 == 0x2D }
            if !isAllowed { return false }
            separator = []
        } else {
            separator.append(byte)
        }
    }
    return true
}
