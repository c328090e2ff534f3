import Engine
import Foundation
import Testing

/// A fresh folder for one test, removed at its end.
func withTemporaryFolder<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appending(path: "tilefarm-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder)
}

func caseFolder(_ name: String) throws -> URL {
    try #require(Bundle.module.resourceURL).appending(path: "Cases").appending(path: name)
}

/// The bytes of a safetensors file with any header at all.
private func file(header: String, length: UInt64? = nil, data: [UInt8]) -> Data {
    let json = Data(header.utf8)
    return withUnsafeBytes(of: (length ?? UInt64(json.count)).littleEndian) { Data($0) } + json + Data(data)
}

private func open(_ bytes: Data) throws -> Safetensors {
    try withTemporaryFolder { folder in
        let url = folder.appending(path: "broken.safetensors")
        try bytes.write(to: url)
        return try Safetensors(url: url)
    }
}

/// The name of the error's case, without its data.
func caseName(_ error: any Error) -> String {
    Mirror(reflecting: error).children.first?.label ?? "\(error)"
}

@Suite struct SafetensorsTests {
    @Test("every tensor of a file is found with its shape and type")
    func readsCase() throws {
        let file = try Safetensors(url: try caseFolder("schedules").appending(path: "case.safetensors"))
        #expect(file.names == file.names.sorted())
        #expect(try file.shape(of: "in.sample") == [1, 4, 8, 8])
        #expect(try file.elementType(of: "out.timesteps.ddim.leading.5") == .int64)
        #expect(try file.integers("out.timesteps.ddim.leading.5") == [801, 601, 401, 201, 1])
        let tensor: Tensor = try file.tensor("in.sample")
        #expect(tensor.values == (try file.tensor("in.sample", shape: [1, 4, 8, 8])))
        #expect(tensor.values.allSatisfy { $0.isFinite })
    }

    @Test(
        "what is written is read again: float32 exactly, float16 rounded to nearest",
        arguments: [ElementType.float32, .float16])
    func roundtrip(type: ElementType) throws {
        var generator = SystemRandomNumberGenerator()
        let tensors: [String: Tensor] = [
            "scalar": Tensor(shape: [], values: [-2.5]),
            "empty": Tensor(shape: [3, 0], values: []),
            "odd": Tensor(shape: [3, 5, 7], values: (0..<105).map { _ in .random(in: -4...4, using: &generator) }),
        ]
        try withTemporaryFolder { folder in
            let url = folder.appending(path: "t.safetensors")
            try Safetensors.write(tensors, as: type, to: url)
            let file = try Safetensors(url: url)
            #expect(file.names == ["empty", "odd", "scalar"])
            for (name, tensor) in tensors {
                let expected = type == .float32 ? tensor.values : tensor.values.map { Float(Float16($0)) }
                #expect(try file.tensor(name) == Tensor(shape: tensor.shape, values: expected))
            }
        }
    }

    @Test("every half-precision number, subnormal and infinity becomes the same single")
    func halves() {
        for bits in UInt16.min ... .max {
            let (ours, theirs) = (float(fromHalf: bits), Float(Float16(bitPattern: bits)))
            #expect(ours == theirs || (ours.isNaN && theirs.isNaN), "\(bits)")
        }
        #expect(float(fromBFloat16: 0x3fc0) == 1.5)
    }

    @Test("integers of every width are read with their sign")
    func integers() throws {
        let header = """
            {"a":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},\
            "c":{"dtype":"I16","shape":[1],"data_offsets":[9,11]},\
            "d":{"dtype":"BF16","shape":[1],"data_offsets":[11,13]},\
            "__metadata__":{"format":"pt"}}
            """
        let file = try open(
            file(header: header, data: [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 200, 0xfe, 0xff, 0xc0, 0x3f]))
        #expect(file.names == ["a", "b", "c", "d"])
        #expect(try file.integers("a") == [1, -1])
        #expect(try file.integers("b") == [200])
        #expect(try file.integers("c") == [-2])
        #expect(try file.tensor("d", shape: [1]) == [1.5])  // at an odd address
    }

    static let f32 = #""dtype":"F32""#

    @Test(
        "a broken file is a named error that says what is broken",
        arguments: [
            ("tooShort", Data([1, 2, 3])),
            ("tooShort", Data()),
            ("headerTooLong", file(header: "{}", length: 100_000_001, data: [])),
            ("headerTooLong", file(header: "{}", length: .max, data: [])),
            ("headerPastEnd", file(header: "{}", length: 3, data: [])),
            ("headerNotJSON", file(header: "", data: [])),
            ("headerNotJSON", file(header: "[]", data: [])),
            ("headerNotJSON", file(header: "{\"a\":", data: [])),
            ("headerNotJSON", file(header: "{\"a\":{}} x", data: [])),
            ("headerNotJSON", file(header: String(repeating: "{\"a\":", count: 100_000), data: [])),
            ("malformedEntry", file(header: "{\"a\":7}", data: [])),
            ("malformedEntry", file(header: "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])),
            (
                "malformedEntry",
                file(header: "{\"a\":{\(f32),\"shape\":\"1\",\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])
            ),
            (
                "malformedEntry",
                file(header: "{\"a\":{\(f32),\"shape\":[1.5],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])
            ),
            (
                "malformedEntry",
                file(header: "{\"a\":{\(f32),\"shape\":[1],\"data_offsets\":[0]}}", data: [0, 0, 0, 0])
            ),
            (
                "malformedEntry",
                file(header: "{\"a\":{\(f32),\"shape\":[1],\"data_offsets\":[0,99999999999999999999]}}", data: [])
            ),
            ("headerNotJSON", file(header: "{\"\u{1}\":7}", data: [])),
            ("headerNotJSON", file(header: "{\"a\\uD800\":7}", data: [])),
            ("headerNotJSON", file(header: "{\"a\": 01}", data: [])),
            ("headerNotJSON", file(header: "{\"a\": tru", data: [])),
            (
                "unknownElementType",
                file(header: "{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])
            ),
            (
                "impossibleShape",
                file(header: "{\"a\":{\(f32),\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", data: [])
            ),
            (
                "impossibleShape",
                file(header: "{\"a\":{\(f32),\"shape\":[-1],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])
            ),
            ("outsideFile", file(header: "{\"a\":{\(f32),\"shape\":[2],\"data_offsets\":[0,8]}}", data: [0, 0, 0, 0])),
            (
                "outsideFile",
                file(header: "{\"a\":{\(f32),\"shape\":[1],\"data_offsets\":[-4,0]}}", data: [0, 0, 0, 0])
            ),
            ("outsideFile", file(header: "{\"a\":{\(f32),\"shape\":[1],\"data_offsets\":[4,0]}}", data: [0, 0, 0, 0])),
            (
                "sizeMismatch",
                file(header: "{\"a\":{\(f32),\"shape\":[2],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0])
            ),
            (
                "overlap",
                file(
                    header: """
                        {"a":{\(f32),"shape":[1],"data_offsets":[0,4]},"b":{\(f32),"shape":[1],"data_offsets":[2,6]}}
                        """, data: [0, 0, 0, 0, 0, 0])
            ),
            (
                "overlap",
                file(
                    header: """
                        {"a":{\(f32),"shape":[1],"data_offsets":[0,4]},"b":{\(f32),"shape":[1],"data_offsets":[0,4]}}
                        """, data: [0, 0, 0, 0])
            ),
            (
                "hole",
                file(
                    header: """
                        {"a":{\(f32),"shape":[1],"data_offsets":[0,4]},"b":{\(f32),"shape":[1],"data_offsets":[5,9]}}
                        """, data: [0, 0, 0, 0, 0, 0, 0, 0, 0])
            ),
            (
                "headerNotJSON",
                file(
                    header: """
                        {"a":{\(f32),"shape":[1],"data_offsets":[0,4]},"a":{\(f32),"shape":[1],"data_offsets":[4,8]}}
                        """, data: [0, 0, 0, 0, 0, 0, 0, 0])
            ),
            ("hole", file(header: "{\"a\":{\(f32),\"shape\":[1],\"data_offsets\":[0,4]}}", data: [0, 0, 0, 0, 0])),
        ] as [(String, Data)])
    func broken(expected: String, bytes: Data) throws {
        let error = try #require(throws: SafetensorsError.self) { _ = try open(bytes) }
        #expect(caseName(error) == expected)
        #expect(error.description.contains("broken.safetensors: "))
        #expect(!error.description.contains("\n"))
    }

    @Test("a file cut short anywhere is refused")
    func truncated() throws {
        let whole = try Data(contentsOf: try caseFolder("guidance-rescale").appending(path: "case.safetensors"))
        for length in [0, 7, 8, 100, 400, whole.count / 2, whole.count - 1] {
            #expect(throws: SafetensorsError.self) { try open(whole.prefix(length)) }
        }
    }

    @Test("a file cut short while it is open is an error, not a crash")
    func shrunk() throws {
        try withTemporaryFolder { folder in
            let url = folder.appending(path: "t.safetensors")
            try Safetensors.write(["a": Tensor(shape: [100_000], values: Array(repeating: 1, count: 100_000))], to: url)
            let file = try Safetensors(url: url)
            try FileHandle(forWritingTo: url).truncate(atOffset: 1000)
            let error = try #require(throws: SafetensorsError.self) { _ = try file.tensor("a", shape: [100_000]) }
            #expect(caseName(error) == "unreadable")
        }
    }

    @Test("asking for what a file does not hold is a named error")
    func wrongQuestions() throws {
        let file = try Safetensors(url: try caseFolder("schedules").appending(path: "case.safetensors"))
        func name(_ body: () throws -> Void) throws -> String {
            caseName(try #require(throws: SafetensorsError.self, performing: body))
        }
        #expect(try name { _ = try file.tensor("nothing", shape: []) } == "missingTensor")
        #expect(try name { _ = try file.shape(of: "nothing") } == "missingTensor")
        #expect(try name { _ = try file.tensor("in.sample", shape: [256]) } == "wrongShape")
        #expect(try name { _ = try file.tensor("out.timesteps.ddim.leading.5", shape: [5]) } == "wrongElementType")
        #expect(try name { _ = try file.integers("in.sample") } == "wrongElementType")
        #expect(try name { _ = try Safetensors(url: URL(filePath: "/no/such/file")) } == "unreadable")
        #expect(try name { _ = try Safetensors(url: FileManager.default.temporaryDirectory) } == "unreadable")
    }
}
