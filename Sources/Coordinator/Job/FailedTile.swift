import Engine
import Foundation
import Protocol

/// The task of a tile that nobody could compute, in a file: what is needed to see why.
///
/// A safetensors file, which every language reads: `header` holds the bytes of the message's first frame (a
/// `CoordinatorHeader` of farm.proto), `frame.1`... the others and `blob.1`... the blobs that the task names, in the
/// order of its inputs, all as U8 and byte for byte as a worker got them; the metadata says what failed, in words. See
/// docs/protocol.md.
enum FailedTile {
    static func save(
        _ task: FarmTask, frames inputs: [Frame], blobs: [Frame], reason: String, to path: String
    ) throws {
        let frames = try CoordinatorMessage.task(task, inputs: inputs).frames()
        var header: [String: Any] = [
            "__metadata__": [
                "task": "\(task.id)", "operation": "\(task.task.operation)", "model": task.model.hex, "reason": reason,
            ]
        ]
        var offset = 0
        func add(_ name: String, _ frame: Frame) {
            header[name] = [
                "dtype": "U8", "shape": [frame.byteCount], "data_offsets": [offset, offset + frame.byteCount],
            ]
            offset += frame.byteCount
        }
        for (index, frame) in frames.enumerated() { add(index == 0 ? "header" : "frame.\(index)", frame) }
        for (index, blob) in blobs.enumerated() { add("blob.\(index + 1)", blob) }
        let json = try JSONSerialization.data(withJSONObject: header, options: .sortedKeys)
        var data = withUnsafeBytes(of: UInt64(json.count).littleEndian) { Data($0) } + json
        for frame in frames + blobs { frame.withBytes { data.append(contentsOf: $0) } }
        try data.write(to: URL(filePath: path), options: .atomic)
    }
}
