// swift-tools-version: 6.2
import PackageDescription

let package = Package(
    name: "tilefarm",
    products: [
        .executable(name: "tilefarm", targets: ["Coordinator"]),
        .executable(name: "tilefarm-worker", targets: ["Worker"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0", traits: []),
    ],
    targets: [
        // Debian's libraries: a module map and a shim each.
        .systemLibrary(name: "COpenBLAS", path: "Sources/Engine/COpenBLAS"),
        .systemLibrary(name: "CPNG", path: "Sources/Engine/CPNG"),
        .systemLibrary(name: "CCrypto", path: "Sources/Protocol/CCrypto"),
        .systemLibrary(name: "CZeroMQ", path: "Sources/Protocol/CZeroMQ"),
        // Kernels chosen at run time by the processor; Swift has no function multiversioning.
        .target(name: "CKernels", path: "Sources/Engine/CKernels"),
        .target(
            name: "Engine",
            dependencies: ["COpenBLAS", "CPNG", "CKernels"],
            path: "Sources/Engine",
            exclude: ["COpenBLAS", "CPNG", "CKernels"],
            resources: [.copy("Resources/DefaultModel")],
            // Lets classes that own memory hand out spans of it.
            swiftSettings: [.enableExperimentalFeature("Lifetimes")]
        ),
        .target(
            name: "Protocol",
            dependencies: [
                "Engine", "CCrypto", "CZeroMQ",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Sources/Protocol",
            exclude: ["CCrypto", "CZeroMQ", "farm.proto", "operations.proto", "generate.sh"]
        ),
        .executableTarget(
            name: "Coordinator",
            dependencies: [
                "Engine", "Protocol",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "HeapModule", package: "swift-collections"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Sources/Coordinator"
        ),
        .executableTarget(
            name: "Worker",
            dependencies: [
                "Engine", "Protocol",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Sources/Worker"
        ),
        // Both programs under one name, so that one build makes them side by side, and nothing else.
        .target(name: "Programs", dependencies: ["Coordinator", "Worker"], path: "Sources/Programs"),
        .testTarget(name: "EngineTests", dependencies: ["Engine"], resources: [.copy("Cases")]),
        .testTarget(
            name: "ProtocolTests",
            dependencies: ["Protocol", .product(name: "SwiftProtobuf", package: "swift-protobuf")]),
        .testTarget(name: "CoordinatorTests", dependencies: ["Coordinator"]),
        .testTarget(name: "WorkerTests", dependencies: ["Worker"]),
        .testTarget(
            name: "FarmTests", dependencies: ["Engine", "Protocol", "Coordinator", "Worker"], exclude: ["Network"]),
    ],
    swiftLanguageModes: [.v6]
)

// What the fuzzer feeds is in a test of its own, too. The fuzzer links libFuzzer, which is there only when it is built
// with `-sanitize=fuzzer`: `make fuzz`.
let isFuzzing = Context.environment["TILEFARM_FUZZER"] != nil
package.targets.append(
    isFuzzing
        ? .executableTarget(
            name: "Fuzzer", dependencies: ["Engine", "Protocol"], path: "Tests/Fuzz",
            exclude: ["Tests", "Corpus", "README.md", "make_seeds.py"],
            sources: ["Targets", "Driver"])
        : .testTarget(
            name: "FuzzTests", dependencies: ["Engine", "Protocol"], path: "Tests/Fuzz",
            exclude: ["Driver", "Corpus", "README.md", "make_seeds.py"],
            sources: ["Targets", "Tests"]))
