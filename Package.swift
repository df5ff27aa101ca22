// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]
/// Release code on the request path is compiled with cross-module optimisation; the default already
/// is for release builds, so only the safety mode is set here.
let pure = strict + [.strictMemorySafety()]

let package = Package(
    name: "andiron",
    products: [.executable(name: "andiron", targets: ["andiron"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
    ],
    targets: [
        // Layer 0: C headers, and modules that do no I/O and import nothing of ours.
        .systemLibrary(name: "CUV", pkgConfig: "libuv", providers: [.apt(["libuv1-dev"])]),
        .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
        .systemLibrary(name: "CYAML", pkgConfig: "yaml-0.1", providers: [.apt(["libyaml-dev"])]),
        .systemLibrary(name: "CLinux"),
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .systemLibrary(
            name: "CArchive", pkgConfig: "libarchive",
            providers: [.apt(["libarchive-dev", "libzstd-dev", "zlib1g-dev", "libisal-dev"])]),
        .target(name: "JSONText", swiftSettings: pure),
        .target(name: "HTTPMessages", swiftSettings: pure),
        .target(name: "AMQP", swiftSettings: strict),
        // Layer 1: how anything tells a person what happened; the loop.
        .target(name: "Diagnostics", dependencies: ["JSONText"], swiftSettings: strict),
        .target(name: "EventLoops", dependencies: ["CUV", "COpenSSL", "Diagnostics"], swiftSettings: strict),
        // Layer 2: the domain's words, and protocols over the loop's streams.
        .target(
            name: "Invocations", dependencies: ["EventLoops", "Diagnostics", "JSONText", "HTTPMessages"],
            swiftSettings: strict),
        .target(
            name: "HTTPServers",
            dependencies: [
                "EventLoops", "HTTPMessages", "Diagnostics",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: strict),
        .target(name: "HTTPClients", dependencies: ["CCurl", "EventLoops", "Diagnostics"], swiftSettings: strict),
        .target(
            name: "RedisClients",
            dependencies: [
                "CHiredis", "EventLoops", "Diagnostics",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: strict),
        .target(
            name: "DurableStores", dependencies: ["CSQLite", "EventLoops", "Diagnostics"], swiftSettings: strict),
        .target(
            name: "ConfigurationFiles", dependencies: ["JSONText", "Diagnostics", "EventLoops"], swiftSettings: strict),
        // Layer 3: what an app, a bundle and a worker are.
        .target(
            name: "FunctionApps",
            dependencies: ["ConfigurationFiles", "Invocations", "JSONText", "Diagnostics", "EventLoops"],
            swiftSettings: strict),
        .target(
            name: "Bundles", dependencies: ["CYAML", "ConfigurationFiles", "EventLoops", "JSONText", "Diagnostics"],
            swiftSettings: strict),
        .target(
            name: "Resources", dependencies: ["ConfigurationFiles", "Diagnostics", "EventLoops", "JSONText"],
            swiftSettings: strict),
        .target(
            name: "Images",
            dependencies: ["CArchive", "ConfigurationFiles", "Diagnostics", "EventLoops", "HTTPClients", "JSONText"],
            swiftSettings: strict),
        .target(
            name: "Workers",
            dependencies: [
                "EventLoops", "Invocations", "Diagnostics", "JSONText", "HTTPMessages", "Bundles", "ConfigurationFiles",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            resources: [.embedInCode("Python/andiron_worker.py")],
            swiftSettings: strict),
        .target(
            name: "StorageAccounts",
            dependencies: [
                "CLinux", "DurableStores", "FunctionApps", "ConfigurationFiles", "EventLoops", "Diagnostics",
                "JSONText",
                "HTTPClients", "HTTPMessages",
            ],
            swiftSettings: strict),
        .target(
            name: "ServiceBus",
            dependencies: [
                "AMQP", "EventLoops", "Diagnostics", "JSONText", "HTTPMessages", "HTTPServers", "ConfigurationFiles",
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HeapModule", package: "swift-collections"),
            ],
            swiftSettings: strict),
        // Layer 4: scoring, triggers, bindings.
        .target(
            name: "Scoring",
            dependencies: [
                "CZstd", "Invocations", "EventLoops", "Diagnostics", "JSONText", "RedisClients", "Workers", "Bundles",
                "ConfigurationFiles",
                "HTTPMessages",
            ],
            swiftSettings: strict),
        .target(
            name: "Triggers",
            dependencies: [
                "Invocations", "EventLoops", "Diagnostics", "HTTPServers", "HTTPMessages", "FunctionApps", "JSONText",
                "StorageAccounts", "DurableStores", "ServiceBus", "AMQP",
                .product(name: "DequeModule", package: "swift-collections"),
            ],
            swiftSettings: strict),
        .target(
            name: "StorageServers",
            dependencies: [
                "StorageAccounts", "FunctionApps", "HTTPServers", "HTTPMessages", "EventLoops", "DurableStores",
                "JSONText",
                "ConfigurationFiles",
            ],
            swiftSettings: strict),
        .target(
            name: "Bindings",
            dependencies: [
                "Invocations", "EventLoops", "HTTPMessages", "Diagnostics", "JSONText", "StorageAccounts",
                "FunctionApps",
                "DurableStores", "ServiceBus", "AMQP",
            ],
            swiftSettings: strict),
        // Layer 5: builds everything and runs it.
        .target(
            name: "Hosting",
            dependencies: [
                "Diagnostics", "EventLoops", "JSONText", "HTTPMessages", "HTTPServers", "Invocations",
                "FunctionApps", "Bundles", "Workers", "RedisClients", "Scoring", "Triggers", "Bindings",
                "HTTPClients", "Images", "Resources",
                "ConfigurationFiles", "StorageServers", "StorageAccounts", "DurableStores", "ServiceBus", "AMQP",
            ],
            swiftSettings: strict),
        // Layer 6: the command line; the only place that prints or exits.
        .executableTarget(
            name: "andiron",
            dependencies: [
                "RedisClients", "Hosting", "HTTPClients", "Images", "Resources", "Diagnostics", "EventLoops",
                "FunctionApps", "Bundles",
                "JSONText", "HTTPMessages", "HTTPServers",
                "ConfigurationFiles", "Invocations", "StorageAccounts", "DurableStores",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        // A load generator for the benchmarks.
        .executableTarget(
            name: "amqp-load", dependencies: ["AMQP", "EventLoops"], path: "Tests/Benchmark/AMQPLoad",
            swiftSettings: strict),
        // Tests: one target per module.
        .target(
            name: "HostTestSupport", dependencies: ["EventLoops"], path: "Tests/HostTestSupport", swiftSettings: strict),
        .testTarget(name: "JSONTextTests", dependencies: ["JSONText"], swiftSettings: strict),
        .testTarget(name: "HTTPMessagesTests", dependencies: ["HTTPMessages"], swiftSettings: strict),
        .testTarget(name: "DiagnosticsTests", dependencies: ["Diagnostics", "JSONText"], swiftSettings: strict),
        .testTarget(
            name: "EventLoopsTests", dependencies: ["EventLoops", "Diagnostics", "HostTestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "StorageAccountsTests",
            dependencies: ["StorageAccounts", "EventLoops", "Diagnostics", "HostTestSupport"], swiftSettings: strict),
        .testTarget(name: "InvocationsTests", dependencies: ["Invocations", "JSONText"], swiftSettings: strict),
        .testTarget(
            name: "DurableStoresTests", dependencies: ["DurableStores", "EventLoops", "HostTestSupport"],
            swiftSettings: strict),
        .testTarget(
            name: "FunctionAppsTests",
            dependencies: [
                "FunctionApps", "ConfigurationFiles", "Invocations", "Diagnostics", "EventLoops", "HostTestSupport",
            ], swiftSettings: strict),
        .testTarget(
            name: "BundlesTests", dependencies: ["Bundles", "Diagnostics", "HostTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "ResourcesTests", dependencies: ["Resources", "JSONText", "HostTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "ImagesTests", dependencies: ["Images", "Diagnostics", "EventLoops", "HostTestSupport"],
            swiftSettings: strict),
        .testTarget(name: "WorkersTests", dependencies: ["Workers", "Diagnostics"], swiftSettings: strict),
        .testTarget(name: "RedisClientsTests", dependencies: ["RedisClients"], swiftSettings: strict),
        .testTarget(
            name: "ScoringTests",
            dependencies: [
                "Scoring", "Invocations", "Diagnostics", "EventLoops", "HTTPMessages", "HostTestSupport",
            ], swiftSettings: strict),
        .testTarget(
            name: "TriggersTests",
            dependencies: [
                "Triggers", "FunctionApps", "Invocations", "HTTPMessages", "EventLoops", "HostTestSupport",
            ], swiftSettings: strict),
        .testTarget(name: "AMQPTests", dependencies: ["AMQP"], swiftSettings: strict),
        .testTarget(
            name: "ServiceBusTests",
            dependencies: ["ServiceBus", "AMQP", "Diagnostics", "EventLoops", "ConfigurationFiles", "HostTestSupport"],
            swiftSettings: strict),
        .testTarget(name: "StyleTests", dependencies: ["FunctionApps"], swiftSettings: strict),
    ]
)
