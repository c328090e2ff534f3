/// One tile of a step of a super-resolution network: the network sees the noisy residual and the bicubic guess of the
/// upsampled picture (`TileDenoiser`).
public struct DenoisePixels: TaskOperation {
    public static let name = "denoise-pixels"
    public static let blank = DenoisePixels(tile: .blank, enlargement: .blank)

    public var tile: TileStep
    /// The low-resolution pixels that the guess is made from.
    public var enlargement: Enlargement

    public init(tile: TileStep, enlargement: Enlargement) {
        self.tile = tile
        self.enlargement = enlargement
    }

    public mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.group("tile") { fields throws(FieldError) in try tile.code(&fields) }
        try fields.group("enlargement") { fields throws(FieldError) in try enlargement.code(&fields) }
    }

    public var inputs: [Slot] { [tile.sampleSlot, enlargement.slot] }
    public var outputs: [Slot] { [tile.answerSlot] }

    public func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        guard let model = model as? TileDenoiser else { throw TaskError.otherModel(Self.name) }
        let sample = try tensors.sample(of: tile)
        try tensors.tensor(1).withFloats { pixels in
            try tensors.write(0) { write in
                try model.denoise(self, sample: sample, conditioning: pixels, workspace: workspace, answer: write)
            }
        }
        return nil
    }
}

/// Why a task cannot be done, whatever its values.
public enum TaskError: Error, Equatable, CustomStringConvertible {
    /// The operation is one of another kind of model.
    case otherModel(String)
    /// A field of noise that the operation does not make.
    case otherNoise

    public var description: String {
        switch self {
        case .otherModel(let operation):
            "the job's model does not do \(operation): use the same version of tilefarm on every machine"
        case .otherNoise:
            """
            the task asks for noise that its operation does not make: use the same version of tilefarm on every machine
            """
        }
    }
}

extension TaskTensors {
    /// Reads x_t of a tile's window, its first input; nil where that is the noise of x_T.
    /// - Throws: `TaskError`, `MissingInput`.
    func sample(of tile: TileStep) throws -> TileDenoiser.Sample? {
        if case .noise(let field) = source(0) {
            guard field == tile.initialNoise else { throw TaskError.otherNoise }
            return nil
        }
        let tensor = try tensor(0)
        return { tensor.read(tile.element, from: $0, into: &$1) }
    }
}
