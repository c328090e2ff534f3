/// One tile of an image through one half of an autoencoder. Rectangles are in latents.
///
/// The group norms of a tile alone would have the tile's own statistics, and neighbouring tiles would differ in tone.
/// So tiles are asked for their cells' sums first, those of all cells are added up, and every tile is then normalised
/// by the same statistics. The attention would see the tile alone too; so, where the canvas is small enough, the layers
/// at the latents' resolution are done in one piece.
public struct Autoencode: TaskOperation {
    public static let name = "autoencode"
    public static let blank = Autoencode(
        direction: .decode, canvasHeight: 1, canvasWidth: 1, window: .blank, cell: .blank, factor: 1, channels: 1,
        featureChannels: 1, groups: 1)

    public enum Direction: Int, Sendable, Hashable, CaseIterable {
        /// Pixels, upsampled first, to a noised latent: signal * scaling factor * latent + noise * z, where the latent
        /// is drawn from the encoder's distribution.
        case encode = 1
        /// Latents to pixels in [0, 1].
        case decode = 2
    }

    public enum Layers: Int, Sendable, Hashable, CaseIterable {
        case all = 0
        /// Those at the latents' resolution.
        case trunk = 1
        /// The others; between them and the trunk stand features of `featureChannels`.
        case detail = 2
    }

    public var direction: Direction
    public var layers: Layers
    public var canvasHeight, canvasWidth: Int
    public var window, cell: Rect
    /// Pixels per latent and axis.
    public var factor: Int
    /// Channels of a latent.
    public var channels: Int
    public var featureChannels: Int
    /// Groups of every group norm.
    public var groups: Int
    /// How many of the layers' first norms use the sums that come with the request, instead of the window's own.
    public var givenNorms: Int
    /// The norms, among those of the layers, whose sums over the cell are wanted; empty where the cell itself is.
    public var wantedNorms: Range<Int>
    /// The picture that is encoded; nil for decoding, and for features.
    public var enlargement: Enlargement?
    /// Key and stage of the noises of encoding.
    public var seed: UInt64
    public var stage: Int
    /// Factors of the latent and of the noise in what encoding answers: those of the sampler's first timestep.
    public var signal, noise: Float

    public init(
        direction: Direction, layers: Layers = .all, canvasHeight: Int, canvasWidth: Int, window: Rect, cell: Rect,
        factor: Int, channels: Int, featureChannels: Int, groups: Int, givenNorms: Int = 0,
        wantedNorms: Range<Int> = 0..<0, enlargement: Enlargement? = nil, seed: UInt64 = 0, stage: Int = 0,
        signal: Float = 1, noise: Float = 0
    ) {
        self.direction = direction
        self.layers = layers
        self.canvasHeight = canvasHeight
        self.canvasWidth = canvasWidth
        self.window = window
        self.cell = cell
        self.factor = factor
        self.channels = channels
        self.featureChannels = featureChannels
        self.groups = groups
        self.givenNorms = givenNorms
        self.wantedNorms = wantedNorms
        self.enlargement = enlargement
        self.seed = seed
        self.stage = stage
        self.signal = signal
        self.noise = noise
    }

    public mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.choice(&direction, "direction")
        try fields.choice(&layers, "layers")
        try fields.place(&canvasHeight, &canvasWidth, &window, &cell)
        try fields.integer(&factor, "factor", in: 1...TaskLimits.autoencoderFactor)
        try fields.integer(&channels, "channels", in: 1...TaskLimits.channels)
        try fields.integer(&featureChannels, "feature_channels", in: 1...TaskLimits.featureChannels)
        try fields.integer(&groups, "groups", in: 1...TaskLimits.featureChannels)
        try fields.integer(&givenNorms, "given_norms", in: 0...TaskLimits.norms)
        var (from, count) = (wantedNorms.lowerBound, wantedNorms.count)
        try fields.integer(&from, "wanted_from", in: 0...TaskLimits.norms)
        try fields.integer(&count, "wanted_norms", in: 0...TaskLimits.norms - from)
        wantedNorms = from..<from + count
        try fields.optional(&enlargement, blank: .blank) { enlargement, fields throws(FieldError) in
            try enlargement.code(&fields)
        }
        fields.seed(&seed)
        try fields.integer(&stage, "stage", in: 0...TaskLimits.stages)
        try fields.number(&signal, "signal")
        try fields.number(&noise, "noise")
        guard takesPixels == (enlargement != nil) else {
            throw .missing(field: "enlargement, which tasks that take pixels have and no others,")
        }
        guard windowBytes(limit: TaskLimits.tensorBytes) != nil else {
            throw .outOfRange(
                field: "window", value: "\(window.height)x\(window.width)",
                allowed: "up to \(TaskLimits.tensorBytes) bytes for all that goes in and out")
        }
    }

    /// Bytes of the largest of what goes into the layers or comes out of them; nil where that is too much.
    private func windowBytes(limit: Int) -> Int? {
        let widest =
            layers == .trunk
            ? max(channels, featureChannels)
            : max(channels, factor * factor * 3, layers == .all ? 1 : featureChannels)
        return Slot(.features, window, channels: widest).byteCount(limit: limit)
    }

    /// Values of the sums of so many norms: sum, sum of squares and count of each group.
    public func sumCount(_ norms: Int) -> Int { 3 * groups * norms }

    /// Whether pixels come in, and not features or latents.
    public var takesPixels: Bool { direction == .encode && layers != .trunk }

    /// The first layer's input; then the sums of the norms that are given, if there are any.
    public var inputs: [Slot] {
        let first =
            switch (direction, layers) {
            case (.encode, .all), (.encode, .detail): enlargement?.slot ?? Slot(.picture, [0])
            case (.decode, .all), (.decode, .trunk): Slot(.latents, window, channels: channels)
            case (.encode, .trunk), (.decode, .detail): Slot(.features, window, channels: featureChannels)
            }
        return [first] + (givenNorms > 0 ? [Slot(.statistics, [sumCount(givenNorms)], .float64)] : [])
    }

    /// The sums that are wanted, or the cell.
    public var outputs: [Slot] {
        guard wantedNorms.isEmpty else { return [Slot(.statistics, [sumCount(wantedNorms.count)], .float64)] }
        return switch (direction, layers) {
        case (.encode, .all), (.encode, .trunk): [Slot(.latents, cell, channels: channels)]
        case (.encode, .detail), (.decode, .trunk): [Slot(.features, cell, channels: featureChannels)]
        case (.decode, .all), (.decode, .detail): [Slot(.picture, cell.scaled(by: factor), channels: 3)]
        }
    }

    public func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        guard let model = model as? StableDiffusion else { throw TaskError.otherModel(Self.name) }
        switch try model.autoencode(self, tensors, workspace: workspace) {
        case .values(let values): try tensors.write(0) { write in write(values.span, 0) }
        case .statistics(let sums): tensors.write(0, doubles: sums)
        }
        return nil
    }
}
