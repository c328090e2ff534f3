internal import CKernels
import Foundation

/// The instruction set that the kernels use. Results are the same bits wherever the same kernels run, and differ by
/// rounding between kernels.
public enum KernelSet: String, Sendable, CaseIterable {
    case baseline, avx2, avx512
    /// `avx512`, and dot products of bfloat16 for layers of that precision; other layers give the bits of `avx512`.
    case avx512bf16

    /// Those that this machine can run.
    public static let available: [KernelSet] = allCases.filter {
        $0.isa.rawValue <= tf_best_isa().rawValue && (!$0.hasBFloat16Dots || tf_has_bfloat16_dots() != 0)
    }

    /// The fastest of them. Some processors have dot products of bfloat16 that are slower than single precision.
    public static let best: KernelSet =
        available.last { !$0.hasBFloat16Dots || tf_has_fast_bfloat16_dots() != 0 } ?? .baseline

    /// The best, or the one that the environment variable TILEFARM_KERNELS names.
    /// - Throws: `KernelError` if this machine does not have the one that is named.
    public static func chosen(environment: [String: String] = ProcessInfo.processInfo.environment) throws -> KernelSet {
        guard let name = environment["TILEFARM_KERNELS"], !name.isEmpty else { return best }
        guard let set = KernelSet(rawValue: name), available.contains(set) else {
            throw KernelError.unavailable(name: name, available: available)
        }
        return set
    }

    /// Floats in a vector.
    package var lanes: Int { Int(tf_lanes(isa)) }

    var isa: tf_isa {
        switch self {
        case .baseline: TF_BASELINE
        case .avx2: TF_AVX2
        case .avx512, .avx512bf16: TF_AVX512
        }
    }

    var hasBFloat16Dots: Bool { self == .avx512bf16 }

    package func padded(_ channels: Int) -> Int { (channels + lanes - 1) / lanes * lanes }
}

/// A choice of kernels that is impossible.
public enum KernelError: Error, Equatable, Sendable, CustomStringConvertible {
    case unavailable(name: String, available: [KernelSet])

    public var description: String {
        switch self {
        case .unavailable(let name, let available):
            """
            TILEFARM_KERNELS=\(name): this machine has no such kernels, unset it or choose one of \
            \(available.map(\.rawValue).joined(separator: ", "))
            """
        }
    }
}
