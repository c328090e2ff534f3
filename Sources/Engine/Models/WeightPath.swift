/// A place in the tree of a model's weights, such as "mid_block" / "resnets" / 0, where the names of the published checkpoints can be read
/// in the code as they stand in the file.
package struct WeightPath {
    package let file: Safetensors
    private let names: Set<String>
    private let path: String

    package init(_ file: Safetensors) {
        self.file = file
        names = Set(file.names)
        path = ""
    }

    private init(_ parent: WeightPath, _ component: String) {
        file = parent.file
        names = parent.names
        path = parent.path.isEmpty ? component : parent.path + "." + component
    }

    package static func / (parent: WeightPath, component: String) -> WeightPath { WeightPath(parent, component) }
    package static func / (parent: WeightPath, index: Int) -> WeightPath { WeightPath(parent, String(index)) }

    /// Whether there is a tensor below this place.
    package func contains(_ name: String) -> Bool { names.contains((self / name).path) }

    /// - Throws: `SafetensorsError` if it is missing or of another shape.
    package func callAsFunction(_ name: String, _ shape: Int...) throws -> [Float] { try file.tensor((self / name).path, shape: shape) }
}
