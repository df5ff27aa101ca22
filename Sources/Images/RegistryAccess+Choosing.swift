/// Which credentials and which scheme go to which registry.
internal import Glibc

extension RegistryAccess {
    /// What is known about the registry of an image.
    ///
    /// Credentials go to the registry that `serverURL` names and to no other; without any, Docker's own
    /// configuration is asked.
    ///
    /// - Parameters:
    ///   - serverURL: `DOCKER_REGISTRY_SERVER_URL`; https when it has no scheme.
    ///   - passwords: one or two.
    ///   - environment: for `DOCKER_CONFIG` and `SSL_CERT_FILE`.
    public static func choose(
        for host: String, serverURL: String?, username: String?, passwords: [String], environment: [String: String]
    ) -> RegistryAccess {
        var access = RegistryAccess()
        access.certificateAuthorityFile = environment["SSL_CERT_FILE"]
        let domain = hostOf(host)
        let named = serverURL.map { hostOf($0) }
        if let serverURL, named == domain {
            if serverURL.lowercased().hasPrefix("http://") { access.scheme = "http" }
            if serverURL.lowercased().hasPrefix("https://") { access.scheme = "https" }
        }
        // Without an address, the credentials are for the image's own registry.
        if let username, !username.isEmpty, named == nil || named == domain {
            access.credentials = RegistryCredentials(username: username, passwords: passwords.filter { !$0.isEmpty })
        } else {
            access.credentials = RegistryCredentials.fromDockerConfiguration(host: domain, environment: environment)
            access.usesDockerConfiguration = access.credentials != nil
        }
        return access
    }
}
