internal import CKernels
import Foundation

/// The instruction set that the kernels use. Results are the same bits wherever the same kernels run, and differ by rounding between kernels.
public enum KernelSet: String, Sendable, CaseIterable {
    case baseline, avx2, avx512

    /// Those that this machine can run, slowest first.
    public static let available: [KernelSet] = allCases.filter { $0.isa.rawValue <= tf_best_isa().rawValue }

    /// The best available, or the one that the environment variable TILEFARM_KERNELS names.
    /// - Throws: `KernelError` if this machine does not have the one that is named.
    public static func chosen(environment: [String: String] = ProcessInfo.processInfo.environment) throws -> KernelSet {
        guard let name = environment["TILEFARM_KERNELS"], !name.isEmpty else { return available.last ?? .baseline }
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
        case .avx512: TF_AVX512
        }
    }

    package func padded(_ channels: Int) -> Int { (channels + lanes - 1) / lanes * lanes }
}

/// What can be wrong with the choice of kernels.
public enum KernelError: Error, Equatable, Sendable, CustomStringConvertible {
    case unavailable(name: String, available: [KernelSet])

    public var description: String {
        switch self {
        case .unavailable(let name, let available):
            "TILEFARM_KERNELS=\(name): this machine has no such kernels, unset it or choose one of \(available.map(\.rawValue).joined(separator: ", "))"
        }
    }
}
