/// A prompt to the embeddings that guide the denoiser.
public struct EncodeText: TaskOperation {
    public static let name = "encode-text"
    public static let blank = EncodeText(byteCount: 0, tokens: 1, width: 1)

    /// Bytes of the text in UTF-8.
    public var byteCount: Int
    /// The text encoder's positions and its hidden size.
    public var tokens, width: Int
    /// Whether it is the negative prompt; for words alone.
    public var isNegative: Bool

    public init(byteCount: Int, tokens: Int, width: Int, isNegative: Bool = false) {
        self.byteCount = byteCount
        self.tokens = tokens
        self.width = width
        self.isNegative = isNegative
    }

    public mutating func code(_ fields: inout FieldCoder) throws(FieldError) {
        try fields.integer(&byteCount, "bytes", in: 0...TaskLimits.promptBytes)
        try fields.integer(&tokens, "tokens", in: 1...TaskLimits.tokens)
        try fields.integer(&width, "width", in: 1...TaskLimits.embeddingWidth)
        fields.flag(&isNegative)
    }

    public var inputs: [Slot] { [Slot(.prompt, [byteCount], .uint8)] }
    public var outputs: [Slot] { [Slot(isNegative ? .negativeEmbeddings : .embeddings, [tokens, width])] }

    public func perform(on model: any TaskModel, _ tensors: any TaskTensors, workspace: Workspace) throws -> String? {
        guard let model = model as? StableDiffusion else { throw TaskError.otherModel(Self.name) }
        let (embeddings, note) = try model.encodeText(self, text: tensors.tensor(0).text, workspace: workspace)
        try tensors.write(0) { write in write(embeddings.span, 0) }
        return note
    }
}

extension StableDiffusion {
    /// The embeddings of a prompt, tokens x width, and a line for the user where a part of it did not fit.
    /// - Throws: `StableDiffusionError`, or what is wrong with the text encoder's folder.
    public func encodeText(
        _ request: EncodeText, text prompt: String, workspace: Workspace
    ) throws -> (embeddings: [Float], note: String?) {
        let encoder = try text()
        let (ids, dropped) = try encoder.tokenizer.encode(prompt)
        workspace.prepare(height: -1, width: ids.count)
        let embeddings = try encoder.model.encode(ids: ids, workspace: workspace)
        guard embeddings.width == request.tokens, embeddings.channels == request.width else {
            throw StableDiffusionError.mismatch(
                """
                embeddings of \(embeddings.width) x \(embeddings.channels) where \(request.tokens) x \(request.width) \
                are wanted
                """
            )
        }
        let note = try dropped.map {
            PromptCut(
                isNegative: request.isNegative, tokens: try encoder.tokenizer.tokenCount(of: prompt),
                used: ids.count - 2, dropped: $0
            ).description
        }
        return (Self.values(embeddings), note)
    }
}
