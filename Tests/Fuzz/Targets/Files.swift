import Engine
import Foundation

/// A safetensors file as it is; afterwards every tensor is read, as the type that it has.
func readSafetensors(_ input: [UInt8]) throws {
    let file = try InputFile(input)
    do {
        let tensors = try Safetensors(url: file.url)
        var bytes = 0
        for name in tensors.names {
            let shape = try tensors.shape(of: name), type = try tensors.elementType(of: name)
            let count = shape.reduce(1, *)
            bytes += count * type.size
            switch type {
            case .float32, .float16, .bfloat16:
                let tensor: Tensor = try tensors.tensor(name)
                try expect(
                    try tensors.tensor(name, shape: shape).count == count && tensor.values.count == count,
                    "\(name) is not of its shape")
            case .int64, .int32, .int16, .int8, .uint64, .uint32, .uint16, .uint8, .bool:
                do {
                    try expect(try tensors.integers(name).count == count, "\(name) is not of its shape")
                } catch SafetensorsError.malformedEntry {}
            case .float64, .float8E4M3, .float8E5M2: break
            }
        }
        try expect(
            bytes == tensors.sizes.values.reduce(0, +) && bytes <= input.count,
            "the tensors have \(bytes) bytes of a file of \(input.count)")
    } catch let error as SafetensorsError {
        try expect(!error.description.contains("\n"), "\(error) is not one line")
    }
}

/// A PNG as it is, or, behind a byte of 1, with the checksums of its chunks made right, so that damage gets past them.
func readPNG(_ input: [UInt8]) throws {
    guard let first = input.first else { return }
    let file = try InputFile(first == 1 ? withChecksumsRepaired(Array(input.dropFirst())) : Array(input.dropFirst()))
    do {
        let reader = try PNGReader(path: file.path, pixelLimit: 1 << 22, memoryLimit: 1 << 26)
        var rgb = [Float](repeating: -1, count: 3 * reader.width), alpha = [Float](repeating: -1, count: reader.width)
        for _ in 0..<reader.height {
            var rgbSpan = rgb.mutableSpan, alphaSpan = alpha.mutableSpan
            try reader.readRow(rgb: &rgbSpan, alpha: &alphaSpan)
        }
        try expect((rgb + alpha).allSatisfy { (0...1).contains($0) }, "a row has values outside 0...1")
    } catch let error as PNGError {
        try expect(!error.description.contains("\n"), "\(error) is not one line")
    }
}

private func withChecksumsRepaired(_ file: [UInt8]) -> [UInt8] {
    var file = file, start = 8
    while start + 12 <= file.count {
        let end = start + 8 + file[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
        guard end + 4 <= file.count else { break }
        var crc: UInt32 = 0xFFFF_FFFF
        for byte in file[start + 4..<end] { crc = crc >> 8 ^ crcTable[Int(UInt8(truncatingIfNeeded: crc) ^ byte)] }
        for i in 0..<4 { file[end + i] = UInt8(truncatingIfNeeded: ~crc >> (24 - 8 * UInt32(i))) }
        start = end + 4
    }
    return file
}

/// Annex D of the PNG specification.
private let crcTable: [UInt32] = (0..<256).map { n in
    (0..<8).reduce(UInt32(n)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ 0xEDB8_8320 : crc >> 1 }
}

/// The documents of a model folder, one after another with a zero byte between: the first byte says which.
func readSettings(_ input: [UInt8]) throws {
    guard let kind = input.first else { return }
    let documents = input.dropFirst().split(separator: 0, omittingEmptySubsequences: false).map(Array.init)
    do {
        switch kind % 6 {
        case 0: _ = try UNet2DConfiguration(file: InputFile(documents[0]).url)
        case 1: _ = try UNet2DConditionConfiguration(file: InputFile(documents[0]).url)
        case 2: _ = try AutoencoderKLConfiguration(file: InputFile(documents[0]).url)
        case 3: _ = try CLIPTextConfiguration(file: InputFile(documents[0]).url)
        case 4:
            // With the weights' file in it, whatever that holds, so that the folder is looked at to its end.
            try withFolder(
                ["config.json", "scheduler_config.json", "tilefarm.json", "diffusion_pytorch_model.safetensors"],
                documents
            ) { folder in
                let folder = try ModelFolder(url: folder)
                _ = try NoiseSchedule(folder.schedule).timesteps(steps: 7)
            }
        case _:
            try withFolder(
                ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
                documents
            ) { folder in
                let tokenizer = try CLIPTokenizer(folder: folder)
                let (ids, _) = try tokenizer.encode("A castle, 12 towers <|endoftext|> étoile")
                try expect(ids.count == tokenizer.length, "\(ids.count) ids")
            }
        }
    } catch let error as any Error & CustomStringConvertible where isDocumented(error) {
        try expect(!error.description.contains("\n"), "\(error) is not one line")
    }
}

private func isDocumented(_ error: any Error) -> Bool {
    error is ModelError || error is ModelFolderError || error is CLIPTokenizerError || error is NoiseScheduleError
        || error is SafetensorsError
}

private func withFolder(_ names: [String], _ documents: [[UInt8]], _ body: (URL) throws -> Void) throws {
    let folder = URL(filePath: "\(memoryFolder)/tilefarm-fuzz-\(getpid())")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    for (name, document) in zip(names, documents) where !document.isEmpty {
        try Data(document).write(to: folder.appending(path: name))
    }
    defer {
        for name in names { unlink(folder.appending(path: name).path) }
        rmdir(folder.path)
    }
    try body(folder)
}
