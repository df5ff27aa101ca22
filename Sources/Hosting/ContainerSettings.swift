/// The app settings that say which image an app is, and how it is started; the names are App Service's.
internal import ConfigurationFiles
internal import Diagnostics
internal import FunctionApps
internal import Images

/// Read from the settings, checked, with defaults.
struct ContainerSettings: Equatable {
    /// `DOCKER_CUSTOM_IMAGE_NAME`, without `DOCKER|`.
    let image: String
    let serverURL: String?
    let username: String?
    let password: String?
    /// `WEBSITES_CONTAINER_START_TIME_LIMIT`: seconds, 10 to 1800, default 230.
    let startTimeLimit: Duration
    /// `WEBSITES_CONTAINER_STOP_TIME_LIMIT`: seconds running work may take to finish, 0 to 120.
    let stopTimeLimit: Duration?
    /// `DOCKER_ENABLE_CI`: the registry's webhook updates the app.
    let updatesByWebhook: Bool
    /// How long a request waits for a cold start before it is told to come back.
    let requestWait: Duration
    /// `WEBSITE_SITE_NAME`, or the folder's name.
    let siteName: String
    /// `SSL_CERT_FILE`: authorities trusted in place of the system's.
    let certificateAuthorityFile: String?

    static let defaultStartTimeLimit = 230

    /// Settings of App Service that are accepted, and why they change nothing.
    static let withoutEffect = [
        ("WEBSITES_PORT", "the host listens where --port says, and no container does"),
        ("WEBSITE_WARMUP_PATH", "an app is warm when init() of every function has returned"),
        ("WEBSITE_WARMUP_STATUSES", "an app is warm when init() of every function has returned"),
        ("WEBSITE_PULL_IMAGE_OVER_VNET", "there is no virtual network"),
    ]

    /// The name of the image an app's settings ask for; nil when they name none.
    static func imageName(in settings: AppSettings) -> String? {
        guard let value = settings["DOCKER_CUSTOM_IMAGE_NAME"]?.trimmed, !value.isEmpty else { return nil }
        return value
    }

    /// Reads the settings; what is wrong with them is in `problems`, and defaults stand in for it.
    init?(_ settings: AppSettings, folder: String, problems: inout [ConfigurationProblem]) {
        guard let image = Self.imageName(in: settings) else { return nil }
        func warn(_ message: String, _ remedy: String?) {
            problems.append(ConfigurationProblem("AN2003", message, remedy: remedy, isWarning: true))
        }
        func number(_ name: String, _ value: String?, _ range: ClosedRange<Int>, _ normal: Int) -> Int {
            guard let value else { return normal }
            guard let number = Int(value), range.contains(number) else {
                warn(
                    "'\(name)' is '\(value)'; it must be a whole number from \(range.lowerBound) to \(range.upperBound)",
                    "\(normal) is used")
                return normal
            }
            return number
        }
        for kind in ["COMPOSE|", "KUBE|", "SITECONTAINERS"] where image.uppercased().hasPrefix(kind) {
            warn(
                "'DOCKER_CUSTOM_IMAGE_NAME' is '\(image.prefix(40))': several containers are not supported",
                "DOCKER|registry/repository:tag")
        }
        self.image = image
        serverURL = settings["DOCKER_REGISTRY_SERVER_URL"].flatMap(\.nonEmpty)
        username = settings["DOCKER_REGISTRY_SERVER_USERNAME"].flatMap(\.nonEmpty)
        password = settings["DOCKER_REGISTRY_SERVER_PASSWORD"].flatMap(\.nonEmpty)
        startTimeLimit = .seconds(
            number(
                "WEBSITES_CONTAINER_START_TIME_LIMIT", settings["WEBSITES_CONTAINER_START_TIME_LIMIT"], 10...1800,
                Self.defaultStartTimeLimit))
        stopTimeLimit = settings["WEBSITES_CONTAINER_STOP_TIME_LIMIT"].map { value in
            .seconds(number("WEBSITES_CONTAINER_STOP_TIME_LIMIT", value, 0...120, 5))
        }
        let problemCount = problems.count
        _ = number("WEBSITES_PORT", settings["WEBSITES_PORT"], 1...65535, 80)
        for (name, reason) in Self.withoutEffect where settings[name] != nil {
            if name == "WEBSITES_PORT", problems.count > problemCount { continue }
            warn("'\(name)' changes nothing here: \(reason)", nil)
        }
        requestWait = .seconds(
            number("ANDIRON_COLD_START_WAIT", settings["ANDIRON_COLD_START_WAIT"], 0...1800, 60))
        updatesByWebhook = settings.isTrue("DOCKER_ENABLE_CI")
        let last = folder.split(separator: "/").last.map(String.init) ?? "app"
        certificateAuthorityFile = settings["SSL_CERT_FILE"].flatMap(\.nonEmpty)
        siteName = settings["WEBSITE_SITE_NAME"].flatMap(\.nonEmpty) ?? last
        if settings.isTrue("WEBSITES_ENABLE_APP_SERVICE_STORAGE") {
            warn(
                "'WEBSITES_ENABLE_APP_SERVICE_STORAGE' is true: in Azure a shared /home hides the functions of the image",
                "set it to false; here it changes nothing")
        }
    }

    /// How the registry is reached.
    func access(for reference: ImageReference, environment: [String: String]) -> RegistryAccess {
        var access = RegistryAccess.choose(
            for: reference.domain, serverURL: serverURL, username: username, passwords: password.map { [$0] } ?? [],
            environment: environment)
        access.certificateAuthorityFile = certificateAuthorityFile
        return access
    }

    /// The settings without which a registry that wants credentials refuses.
    var missing: [String] {
        [
            ("DOCKER_REGISTRY_SERVER_URL", serverURL), ("DOCKER_REGISTRY_SERVER_USERNAME", username),
            ("DOCKER_REGISTRY_SERVER_PASSWORD", password),
        ].filter { $0.1 == nil }.map(\.0)
    }
}

extension String {
    fileprivate var nonEmpty: String? { isEmpty ? nil : self }
    fileprivate var trimmed: String {
        var text = self[...]
        while text.first?.isWhitespace == true { text = text.dropFirst() }
        while text.last?.isWhitespace == true { text = text.dropLast() }
        return String(text)
    }
}
