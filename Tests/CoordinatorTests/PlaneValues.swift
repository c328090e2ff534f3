import Coordinator
import Engine

/// A plane as a plain array of numbers.
struct PlaneValues: Equatable {
    let height: Int
    let width: Int
    let channels: Int
    var values: [Float]

    /// - Parameter values: for what is given; the others begin with `garbage`
    init(_ plane: Plane, number: Int, garbage: Float) {
        switch plane.content {
        case .picture(let height, let width): (self.height, self.width, channels) = (height, width, 1)
        case .text(let text): (height, width, channels) = (1, text.utf8.count, 1)
        case .array(let height, let width, let channels, _):
            (self.height, self.width, self.channels) = (height, width, channels)
        case .values(let count, _): (height, width, channels) = (1, count, 1)
        }
        let count = height * width * channels
        values =
            plane.isGiven
            ? (0..<count).map { TileHash.value(TileHash.mix(UInt64(number), UInt64($0))) }
            : Array(repeating: garbage, count: count)
    }

    private var everything: Rect { Rect(y: 0, x: 0, height: height, width: width) }

    private func row(_ y: Int, of rect: Rect) -> Range<Int> {
        let start = (y * width + rect.x) * channels
        return start..<start + rect.width * channels
    }

    /// - Parameter rect: nil for all of it
    func cut(_ rect: Rect?) -> [Float] {
        guard let rect else { return values }
        return (rect.y..<rect.maxY).flatMap { values[row($0, of: rect)] }
    }

    mutating func store(_ answer: [Float], at rect: Rect?) {
        let rect = rect ?? everything, length = rect.width * channels
        for y in 0..<rect.height {
            values.replaceSubrange(
                row(rect.y + y, of: rect), with: answer[y * length..<(y + 1) * length])
        }
    }

    mutating func add(_ answer: [Float], at rect: Rect?, _ weights: BlendWeights?) {
        let rect = rect ?? everything, length = rect.width * channels
        let rows = weights?.weights(count: rect.height), columns = weights?.weights(count: rect.width)
        for y in 0..<rect.height {
            for (x, target) in row(rect.y + y, of: rect).enumerated() {
                let weight = (rows?[y] ?? 1) * (columns?[x / channels] ?? 1)
                values[target] += weight * answer[y * length + x]
            }
        }
    }

    mutating func clear(from start: Int = 0) { for i in start..<values.count { values[i] = 0 } }
}

/// The work of tasks of random pipelines: their answers are hashes of all that they read, small integers, so that sums
/// are exact.
enum TileHash {
    static func mix(_ hash: UInt64, _ word: UInt64) -> UInt64 {
        let mixed = (hash ^ word) &* 0x9e37_79b9_7f4a_7c15
        return mixed ^ (mixed >> 29)
    }

    static func value(_ hash: UInt64) -> Float { Float((hash &* 0xd6e8_feb8_6659_fd93) >> 58) }

    /// - Parameter counts: how many numbers each output has
    static func answer(_ pass: Int, _ tile: Int, inputs: [[Float]], counts: [Int]) -> [[Float]] {
        var hash = mix(UInt64(pass), UInt64(tile) << 32)
        for input in inputs { for value in input { hash = mix(hash, UInt64(value.bitPattern)) } }
        return counts.enumerated().map { output, count in
            (0..<count).map { value(mix(hash, UInt64(output) << 32 | UInt64($0))) }
        }
    }
}

extension Pipeline {
    /// The part that a tile reads; nil for the whole plane.
    func part(_ read: Read, _ pass: Int, _ tile: Int) throws -> Rect? {
        switch read.region {
        case .window(let scale): passes[pass].window(tile).flatMap { scale.plane($0) }
        case .cell(let scale): passes[pass].cell(tile).flatMap { scale.plane($0) }
        case .part(let part): try part(tile)
        case .leading(let count): Rect(y: 0, x: 0, height: 1, width: count)
        case .whole: nil
        }
    }

    /// The part that a tile writes; nil for the whole plane.
    func part(_ write: Write, _ pass: Int, _ tile: Int) -> Rect? {
        switch (write.merge, planes[write.plane].content) {
        case (.cells(let scale), _): passes[pass].cell(tile).flatMap { scale.plane($0) }
        case (.blend, _): passes[pass].window(tile)
        case (.sum(let at), .values(let count, _)): Rect(y: 0, x: at, height: 1, width: count - at)
        case (.sum, _), (.whole, _): nil
        }
    }

    /// An input of a tile, out of the planes as they are.
    func input(_ read: Read, _ pass: Int, _ tile: Int, from planes: [PlaneValues]) throws -> [Float] {
        let rect = try part(read, pass, tile)
        guard case .noise(let field) = read.delivery else { return planes[read.plane].cut(rect) }
        let plane = planes[read.plane], whole = Rect(y: 0, x: 0, height: plane.height, width: plane.width)
        let part = rect ?? whole
        return (part.y..<part.maxY).flatMap { y in
            (part.x..<part.maxX).map { TileHash.value(TileHash.mix(UInt64(field.step), UInt64(y << 16 | $0))) }
        }
    }

    /// The answers of a tile to these inputs, one for each plane that it writes.
    func answer(_ pass: Int, _ tile: Int, _ inputs: [[Float]], of planes: [PlaneValues]) -> [[Float]] {
        let counts = passes[pass].writes.map { write in
            let plane = planes[write.plane]
            return part(write, pass, tile).map { $0.area * plane.channels } ?? plane.values.count
        }
        return TileHash.answer(pass, tile, inputs: inputs, counts: counts)
    }

    /// Writes the answers of a tile; those of passes that add up come in the order of the tiles.
    func merge(_ answers: [[Float]], _ pass: Int, _ tile: Int, into planes: inout [PlaneValues]) {
        for (write, answer) in zip(passes[pass].writes, answers) {
            let rect = part(write, pass, tile)
            if write.isOrdered, tile == 0 { planes[write.plane].clear(from: write.start) }
            switch write.merge {
            case .cells, .whole: planes[write.plane].store(answer, at: rect)
            case .sum: planes[write.plane].add(answer, at: rect, nil)
            case .blend(let weights): planes[write.plane].add(answer, at: rect, weights)
            }
        }
    }

    /// Clears the sums of a pass before they are gathered anew.
    func clearSums(_ pass: Int, in planes: inout [PlaneValues]) {
        for write in passes[pass].writes where write.isOrdered {
            planes[write.plane].clear(from: write.start)
        }
    }

    /// The planes before the first pass.
    func begin(garbage: Float) -> [PlaneValues] {
        planes.enumerated().map { PlaneValues($1, number: $0, garbage: garbage) }
    }

    /// The output as one computer makes it that does pass after pass: every tile reads what the passes before have
    /// written.
    func interpret() throws -> PlaneValues {
        var planes = begin(garbage: 1000)
        for (index, pass) in passes.enumerated() {
            let answers = try (0..<pass.count).map { tile in
                answer(index, tile, try pass.reads.map { try input($0, index, tile, from: planes) }, of: planes)
            }
            clearSums(index, in: &planes)
            for (tile, answer) in answers.enumerated() { merge(answer, index, tile, into: &planes) }
        }
        return planes[output]
    }
}
