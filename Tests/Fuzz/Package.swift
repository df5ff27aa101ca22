// swift-tools-version: 6.2
// The fuzz targets, a package of their own: libFuzzer brings the main function. Run by Tests/Fuzz/run.
import PackageDescription

let fuzzed: [SwiftSetting] = [.unsafeFlags(["-sanitize=fuzzer,address", "-parse-as-library"])]
let link: [LinkerSetting] = [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])]
let sources = "../../Sources/"

/// The parsers are compiled here with coverage, from the same files.
let package = Package(
    name: "fuzz",
    targets: [
        .systemLibrary(name: "CHTTPParser"),
        .systemLibrary(name: "CFuzzer"),
        .systemLibrary(name: "CArchive", path: "Sources/CArchive"),
        .systemLibrary(name: "CCurl", path: "Sources/CCurl"),
        .systemLibrary(name: "CUV", path: "Sources/CUV"),
        .systemLibrary(name: "COpenSSL", path: "Sources/COpenSSL"),
        .systemLibrary(name: "CHiredis", path: "Sources/CHiredis"),
        .systemLibrary(name: "CZstd", path: "Sources/CZstd"),
        .target(name: "JSONText", path: "Sources/JSONText", swiftSettings: fuzzed),
        .target(name: "HTTPMessages", path: "Sources/HTTPMessages", swiftSettings: fuzzed),
        .target(name: "Diagnostics", dependencies: ["JSONText"], path: "Sources/Diagnostics"),
        .target(name: "EventLoops", dependencies: ["CUV", "COpenSSL", "Diagnostics"], path: "Sources/EventLoops"),
        .target(
            name: "Invocations", dependencies: ["EventLoops", "Diagnostics", "JSONText", "HTTPMessages"],
            path: "Sources/Invocations"),
        .target(
            name: "ConfigurationFiles", dependencies: ["JSONText", "Diagnostics", "EventLoops"],
            path: "Sources/ConfigurationFiles", swiftSettings: fuzzed),
        .target(
            name: "FunctionApps",
            dependencies: ["ConfigurationFiles", "Invocations", "JSONText", "Diagnostics", "EventLoops"],
            path: "Sources/FunctionApps", swiftSettings: fuzzed),
        .target(
            name: "WorkerFrames", dependencies: ["Diagnostics", "HTTPMessages"], path: "Sources/WorkerFrames",
            swiftSettings: fuzzed),
        .target(
            name: "HTTPClients", dependencies: ["CCurl", "EventLoops", "Diagnostics"], path: "Sources/HTTPClients"),
        // The fuzzers reach into these two and BusFiles, below what they show.
        .target(
            name: "Images",
            dependencies: ["CArchive", "ConfigurationFiles", "Diagnostics", "EventLoops", "HTTPClients", "JSONText"],
            path: "Sources/Images", swiftSettings: fuzzed + [.unsafeFlags(["-enable-testing"])]),
        .target(
            name: "Resources", dependencies: ["ConfigurationFiles", "Diagnostics", "EventLoops", "JSONText"],
            path: "Sources/Resources", swiftSettings: fuzzed),
        .executableTarget(
            name: "registry", dependencies: ["CFuzzer", "Images", "Resources", "JSONText"], swiftSettings: fuzzed,
            linkerSettings: link),
        .executableTarget(
            name: "layer", dependencies: ["CFuzzer", "Images"], swiftSettings: fuzzed, linkerSettings: link),
        .target(name: "AMQP", path: "Sources/AMQP", swiftSettings: fuzzed),
        .target(
            name: "BusFiles", dependencies: ["ConfigurationFiles", "JSONText", "Diagnostics"], path: "Sources/BusFiles",
            swiftSettings: fuzzed + [.unsafeFlags(["-enable-testing"])]),
        .executableTarget(
            name: "amqp", dependencies: ["CFuzzer", "AMQP"], path: "Sources/FuzzAMQP", swiftSettings: fuzzed,
            linkerSettings: link),
        .executableTarget(
            name: "busfiles", dependencies: ["CFuzzer", "BusFiles", "ConfigurationFiles"],
            path: "Sources/FuzzBusFiles", swiftSettings: fuzzed, linkerSettings: link),
        .executableTarget(
            name: "http", dependencies: ["CFuzzer", "HTTPMessages", "CHTTPParser"], swiftSettings: fuzzed,
            linkerSettings: link),
        .executableTarget(
            name: "chunked", dependencies: ["CFuzzer", "HTTPMessages"], swiftSettings: fuzzed, linkerSettings: link),
        .executableTarget(
            name: "configuration", dependencies: ["CFuzzer", "FunctionApps", "ConfigurationFiles", "JSONText"],
            swiftSettings: fuzzed, linkerSettings: link),
        .executableTarget(
            name: "route", dependencies: ["CFuzzer", "FunctionApps"], swiftSettings: fuzzed, linkerSettings: link),
        .target(name: "XMLTexts", path: "Sources/XMLTexts", swiftSettings: fuzzed),
        .executableTarget(
            name: "storage", dependencies: ["CFuzzer", "FunctionApps", "Invocations", "XMLTexts"],
            swiftSettings: fuzzed,
            linkerSettings: link),
        .executableTarget(
            name: "frames", dependencies: ["CFuzzer", "WorkerFrames"], swiftSettings: fuzzed, linkerSettings: link),
        .executableTarget(
            name: "redis", dependencies: ["CFuzzer", "CHiredis", "Diagnostics", "EventLoops"], swiftSettings: fuzzed,
            linkerSettings: link),
        .executableTarget(
            name: "stored", dependencies: ["CFuzzer", "CZstd", "EventLoops", "HTTPMessages", "Invocations"],
            swiftSettings: fuzzed, linkerSettings: link),
    ],
    swiftLanguageModes: [.v6]
)
