import Engine
import Protocol

extension TileTask {
    /// The flaw of an answer, nil if there is none: nothing of it may be merged otherwise.
    /// - Parameter checksums: CRC-32C of each output, as the worker has it.
    func flaw(of outputs: [Frame], checksums: [UInt32]) -> String? {
        let slots = operation.outputs
        guard outputs.count == slots.count, checksums.count == slots.count else {
            return "an answer of \(outputs.count) parts instead of \(slots.count)"
        }
        for (frame, (slot, checksum)) in zip(outputs, zip(slots, checksums)) {
            guard frame.byteCount == slot.byteCount else {
                return "an answer of \(frame.byteCount) bytes instead of \(slot.byteCount)"
            }
            let found = frame.checksum(of: slot.element.checksumElements)
            guard found.crc32c == checksum else {
                return "an answer that was damaged on its way, or never right: its checksum does not fit"
            }
            guard found.isFinite else { return "an answer with values that are not finite" }
        }
        return nil
    }
}
