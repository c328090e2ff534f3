/// A dense tensor in row-major order: the last dimension is contiguous.
public struct Tensor: Sendable, Equatable {
    /// Outermost dimension first; empty for a scalar.
    public var shape: [Int]
    /// As many values as the product of `shape`.
    public var values: [Float]

    public init(shape: [Int], values: [Float]) {
        precondition(
            elementCount(shape) == values.count, "a tensor of shape \(shape) cannot have \(values.count) values")
        self.shape = shape
        self.values = values
    }
}

/// The product of `shape`, or nil where a dimension is negative or the product does not fit.
package func elementCount(_ shape: [Int]) -> Int? {
    var count = 1
    for dimension in shape {
        let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
        if overflow || dimension < 0 { return nil }
        count = product
    }
    return count
}
