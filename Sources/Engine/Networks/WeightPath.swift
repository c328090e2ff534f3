/// A place in the tree of a model's weights, such as "mid_block" / "resnets" / 0, where the names of the published
/// checkpoints can be read in the code as they stand in the file.
package struct WeightPath {
    private let weights: ModelWeights
    private let path: String

    package init(_ weights: ModelWeights) {
        self.weights = weights
        path = ""
    }

    private init(_ parent: WeightPath, _ component: String) {
        weights = parent.weights
        path = parent.path.isEmpty ? component : parent.path + "." + component
    }

    package static func / (parent: WeightPath, component: String) -> WeightPath { WeightPath(parent, component) }
    package static func / (parent: WeightPath, index: Int) -> WeightPath { WeightPath(parent, String(index)) }

    /// Whether tensors are checked and not read: what is given is empty then, and a layer a `Placeholder`.
    var headersOnly: Bool { weights.headersOnly }

    /// Whether there is a tensor of this name below this place.
    package func contains(_ name: String) -> Bool { weights.contains((self / name).path) }

    /// - Returns: nothing where `headersOnly`.
    /// - Throws: `SafetensorsError` if it is missing or of another shape or type.
    package func callAsFunction(_ name: String, _ shape: Int...) throws -> [Float] {
        try weights.tensor((self / name).path, shape: shape)
    }

    /// The matrix of a linear layer, outputs x inputs, which may be stored as that of a 1x1 convolution.
    /// - Returns: nothing where `headersOnly`.
    /// - Throws: `SafetensorsError` if it is missing or of another shape or type.
    package func matrix(_ name: String, _ outputs: Int, _ inputs: Int) throws -> [Float] {
        let name = (self / name).path
        let shape = [outputs, inputs]
        return try weights.tensor(name, shape: try weights.shape(of: name) == shape + [1, 1] ? shape + [1, 1] : shape)
    }
}
