import Synchronization

/// Shows that this process computes: a number that every large kernel makes grow, so that a long task is not taken for
/// a hung one.
public enum ComputeProgress {
    private static let counter = Atomic<UInt64>(0)

    public static var count: UInt64 { counter.load(ordering: .relaxed) }

    public static func advance() { counter.wrappingAdd(1, ordering: .relaxed) }
}
