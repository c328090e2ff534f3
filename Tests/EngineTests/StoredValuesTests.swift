import Engine
import Foundation
import Testing

@Suite("Stored values")
struct StoredValuesTests {
    @Test(
        "rows written are the rows read, rounded as the element rounds, in memory and in files alike",
        arguments: [StoredValues.Element.float32, .float16])
    func roundTrip(element: StoredValues.Element) throws {
        let folder = FileManager.default.temporaryDirectory.appending(path: "stored-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        let path = folder.appending(path: "values").path
        let stores = [
            try StoredValues(element, count: 1000), try StoredValues(element, count: 1000, path: path),
            try StoredValues(element, count: 1000, unnamedIn: folder.path),
        ]
        let values = (0..<60).map { element == .float32 ? Float($0) / 7 : Float($0) / 8 }
        for store in stores {
            store.store(values.span, start: 13, stride: 100, rows: 6, length: 10)
            var read = [Float](repeating: -1, count: 70)
            var span = read.mutableSpan
            store.load(start: 13, stride: 100, rows: 6, length: 10, into: &span, at: 5)
            #expect(read == Array(repeating: -1, count: 5) + values + Array(repeating: -1, count: 5))
        }
        // A file's values stay, and are refused at another size.
        var again = [Float](repeating: 0, count: 10)
        var span = again.mutableSpan
        try StoredValues(element, count: 1000, path: path, existing: true).load(
            start: 113, stride: 0, rows: 1, length: 10, into: &span)
        #expect(again == Array(values[10..<20]))
        #expect(throws: StorageError.wrongSize(path: path, bytes: 1000 * element.size, expected: 999 * element.size)) {
            try StoredValues(element, count: 999, path: path, existing: true)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["values"])
    }

    @Test("of a file that is written and read whole no more stays in memory than was said, and every value is there")
    func residency() throws {
        let path = FileManager.default.temporaryDirectory.appending(path: "stored-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        let (width, height) = (100_000, 2 * StoredValues.mostResident / 400_000)
        let store = try StoredValues(.float32, count: width * height, path: path)
        /// Resident bytes of this file's mapping.
        func resident() throws -> Int {
            // Its size is unknown before it is read, which not every way of reading takes well.
            let maps = try #require(try FileHandle(forReadingAtPath: "/proc/self/smaps")?.readToEnd())
            let map = try #require(String(decoding: maps, as: UTF8.self).split(separator: path).dropFirst().first)
            return try #require(map.firstMatch(of: /Rss: +(\d+) kB/).flatMap { Int($0.output.1) }) << 10
        }
        // Tiles of 100 rows, from left to right, as a step writes them.
        var most = 0
        for y in stride(from: 0, to: height, by: 100) {
            let rows = min(100, height - y)
            for x in stride(from: 0, to: width, by: 10_000) {
                let tile = (0..<rows * 10_000).map { Float((y + $0 / 10_000) * width + x + $0 % 10_000) }
                store.store(tile.span, start: y * width + x, stride: width, rows: rows, length: 10_000)
            }
            most = max(most, try resident())
        }
        var row = [Float](repeating: 0, count: width)
        for y in stride(from: 0, to: height, by: 7) {
            var span = row.mutableSpan
            store.load(start: y * width, stride: 0, rows: 1, length: width, into: &span)
            #expect(row.indices.allSatisfy { row[$0] == Float(y * width + $0) })
            most = max(most, try resident())
        }
        #expect(most > StoredValues.mostResident / 2 && most <= StoredValues.mostResident + 1 << 20, "\(most)")
    }

    @Test("half precision is read and written as it is stored too")
    func raw() throws {
        let store = try StoredValues(.float16, count: 1000)
        let halves = (0..<60).map { UInt16($0 * 1000) }
        store.storeAsIs(halves.span, start: 13, stride: 100, rows: 6, length: 10)
        var read = [UInt16](repeating: 0, count: 60)
        var span = read.mutableSpan
        store.loadStored(start: 13, stride: 100, rows: 6, length: 10, into: &span)
        #expect(read == halves)
        var floats = [Float](repeating: 0, count: 60)
        var values = floats.mutableSpan
        store.load(start: 13, stride: 100, rows: 6, length: 10, into: &values)
        for (half, value) in zip(halves, floats) {
            #expect(Float(Float16(bitPattern: half)).bitPattern == value.bitPattern || value.isNaN)
        }
    }

    @Test("half precision rounds to nearest, ties to even, as the definition says")
    func halves() throws {
        let store = try StoredValues(.float16, count: 4096)
        var random = SystemRandomNumberGenerator()
        let values = (0..<4096).map { _ in
            Float.random(in: -70_000...70_000, using: &random) * Float.random(in: 0...1, using: &random)
                * (Bool.random(using: &random) ? 1 : 0x1p-26)
        }
        store.store(values.span, start: 0, stride: 0, rows: 1, length: 4096)
        var read = values
        var span = read.mutableSpan
        store.load(start: 0, stride: 0, rows: 1, length: 4096, into: &span)
        for (value, rounded) in zip(values, read) { #expect(rounded == Float(Float16(value)), "\(value)") }
    }

    @Test("sizes beyond any disk and folders that are not there are named errors")
    func errors() {
        #expect(throws: StorageError.tooLarge(path: "memory")) { try StoredValues(.float32, count: .max / 2) }
        #expect(throws: StorageError.self) { try StoredValues(.float32, count: 10, unnamedIn: "/nowhere") }
        #expect(throws: StorageError.self) { try StoredValues(.float32, count: 10, path: "/nowhere/file") }
    }
}
