import Engine
import Foundation
import Testing

@Suite("Stored values")
struct StoredValuesTests {
    @Test("rows written are the rows read, rounded as the element rounds, in memory and in files alike", arguments: [StoredValues.Element.float32, .float16])
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
            store.release()
            var read = [Float](repeating: -1, count: 70)
            var span = read.mutableSpan
            store.load(start: 13, stride: 100, rows: 6, length: 10, into: &span, at: 5)
            #expect(read == Array(repeating: -1, count: 5) + values + Array(repeating: -1, count: 5))
        }
        // A file's values stay, and are refused at another size.
        var again = [Float](repeating: 0, count: 10)
        var span = again.mutableSpan
        try StoredValues(element, count: 1000, path: path, existing: true).load(start: 113, stride: 0, rows: 1, length: 10, into: &span)
        #expect(again == Array(values[10..<20]))
        #expect(throws: StorageError.wrongSize(path: path, bytes: 1000 * element.size, expected: 999 * element.size)) {
            try StoredValues(element, count: 999, path: path, existing: true)
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["values"])
    }

    @Test("half precision is read and written as it is stored too")
    func raw() throws {
        let store = try StoredValues(.float16, count: 1000)
        let halves = (0..<60).map { UInt16($0 * 1000) }
        store.store(halves.span, start: 13, stride: 100, rows: 6, length: 10)
        var read = [UInt16](repeating: 0, count: 60)
        var span = read.mutableSpan
        store.load(start: 13, stride: 100, rows: 6, length: 10, into: &span)
        #expect(read == halves)
        var floats = [Float](repeating: 0, count: 60)
        var values = floats.mutableSpan
        store.load(start: 13, stride: 100, rows: 6, length: 10, into: &values)
        for (half, value) in zip(halves, floats) { #expect(Float(Float16(bitPattern: half)).bitPattern == value.bitPattern || value.isNaN) }
    }

    @Test("half precision rounds to nearest, ties to even, as the definition says")
    func halves() throws {
        let store = try StoredValues(.float16, count: 4096)
        var random = SystemRandomNumberGenerator()
        let values = (0..<4096).map { _ in Float.random(in: -70_000...70_000, using: &random) * Float.random(in: 0...1, using: &random) * (Bool.random(using: &random) ? 1 : 0x1p-26) }
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
