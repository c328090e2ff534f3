import Engine
import Protocol

extension Work {
    /// What is wrong with an answer, nil if nothing is: nothing of it may be merged otherwise.
    /// - Parameter checksum: CRC-32C of the frame, as the worker has it.
    func flaw(of answer: Frame, checksum: UInt32) -> String? {
        guard answer.byteCount == answerByteCount else {
            return "an answer of \(answer.byteCount) bytes instead of \(answerByteCount)"
        }
        let found = answer.checksum(of: answerElements)
        guard found.crc32c == checksum else {
            return "an answer that was damaged on its way, or never right: its checksum does not fit"
        }
        return found.isFinite ? nil : "an answer with values that are not finite"
    }
}
