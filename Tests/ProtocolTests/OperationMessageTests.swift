import Engine
import Protocol
internal import SwiftProtobuf
import Testing

private typealias Wire = Tilefarm_V1_Operations_Autoencode

/// The operations' parameters against the messages of operations.proto, which workers in other languages read.
@Suite("operations.proto") struct OperationMessageTests {
    /// The operation's bytes as the generated code reads them, and what it makes of that again.
    private func check<Operation: TaskOperation, Wire: Message>(
        _ operation: Operation, _ fields: (Wire) -> Void
    ) throws {
        let wire = try Wire(serializedBytes: operation.encoded())
        #expect(wire.unknownFields.data.isEmpty)
        fields(wire)
        #expect(try Operation(encoded: [UInt8](wire.serializedData())) == operation)
    }

    private func check(_ size: Tilefarm_V1_Operations_Size, _ height: Int, _ width: Int) {
        #expect(Int(size.height) == height && Int(size.width) == width)
    }

    private func check(_ wire: Tilefarm_V1_Operations_Rect, _ rect: Rect) {
        #expect(
            Rect(y: Int(wire.y), x: Int(wire.x), height: Int(wire.height), width: Int(wire.width)) == rect)
    }

    private func check(_ wire: Tilefarm_V1_Operations_Enlargement, _ enlargement: Enlargement) {
        check(wire.input, enlargement.inputHeight, enlargement.inputWidth)
        check(wire.output, enlargement.outputHeight, enlargement.outputWidth)
        check(wire.source, enlargement.source)
    }

    private func check(_ wire: Tilefarm_V1_Operations_TileStep, _ tile: TileStep) {
        check(wire.canvas, tile.canvasHeight, tile.canvasWidth)
        check(wire.window, tile.window)
        check(wire.cell, tile.cell)
        #expect(Int(wire.channels) == tile.channels && wire.timestep == tile.timestep)
        #expect(Int(wire.step) == tile.step && Int(wire.stage) == tile.stage && wire.seed == tile.seed)
        #expect(wire.answer == (tile.answer == .cell ? .cell : .prediction))
        #expect(wire.element == (tile.element == .float32 ? .float32 : .float16))
        let (sent, coefficients) = (wire.coefficients, tile.coefficients)
        #expect(
            sent.originalFromSample == coefficients.originalFromSample
                && sent.originalFromPrediction == coefficients.originalFromPrediction
                && (sent.hasClipRange ? sent.clipRange.value : nil) == coefficients.clipRange
                && sent.nextFromOriginal == coefficients.nextFromOriginal
                && sent.nextFromSample == coefficients.nextFromSample
                && sent.nextFromPrediction == coefficients.nextFromPrediction && sent.noise == coefficients.noise)
    }

    @Test("denoise-pixels", arguments: 0..<50 as Range<UInt64>)
    func denoisePixels(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let operation = Samples.denoisePixels(using: &random)
        try check(operation) { (wire: Tilefarm_V1_Operations_DenoisePixels) in
            check(wire.tile, operation.tile)
            check(wire.enlargement, operation.enlargement)
        }
    }

    @Test("denoise-latents", arguments: 0..<50 as Range<UInt64>)
    func denoiseLatents(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let operation = Samples.denoiseLatents(using: &random)
        try check(operation) { (wire: Tilefarm_V1_Operations_DenoiseLatents) in
            check(wire.tile, operation.tile)
            #expect(Int(wire.tokens) == operation.tokens && Int(wire.width) == operation.width)
            #expect(wire.guidanceScale == operation.guidanceScale)
            #expect((wire.hasNoiseLevel ? Int(wire.noiseLevel.level) : nil) == operation.noiseLevel)
        }
    }

    @Test("encode-text", arguments: 0..<20 as Range<UInt64>)
    func encodeText(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let operation = Samples.encodeText(using: &random)
        try check(operation) { (wire: Tilefarm_V1_Operations_EncodeText) in
            #expect(Int(wire.bytes) == operation.byteCount && Int(wire.tokens) == operation.tokens)
            #expect(Int(wire.width) == operation.width && wire.isNegative == operation.isNegative)
        }
    }

    @Test("autoencode", arguments: 0..<50 as Range<UInt64>)
    func autoencode(seed: UInt64) throws {
        var random = SplitMix64(state: seed)
        let operation = Samples.autoencode(using: &random)
        try check(operation) { (wire: Wire) in
            #expect(wire.direction == (operation.direction == .encode ? .encode : .decode))
            let layers: [Autoencode.Layers: Wire.Layers] = [.all: .all, .trunk: .trunk, .detail: .detail]
            #expect(wire.layers == layers[operation.layers])
            check(wire.canvas, operation.canvasHeight, operation.canvasWidth)
            check(wire.window, operation.window)
            check(wire.cell, operation.cell)
            #expect(Int(wire.factor) == operation.factor && Int(wire.channels) == operation.channels)
            #expect(Int(wire.featureChannels) == operation.featureChannels && Int(wire.groups) == operation.groups)
            #expect(Int(wire.givenNorms) == operation.givenNorms)
            #expect(Int(wire.wantedFrom) == operation.wantedNorms.lowerBound)
            #expect(Int(wire.wantedNorms) == operation.wantedNorms.count)
            #expect(wire.hasEnlargement == (operation.enlargement != nil))
            if let enlargement = operation.enlargement { check(wire.enlargement, enlargement) }
            #expect(wire.seed == operation.seed && Int(wire.stage) == operation.stage)
            #expect(wire.signal == operation.signal && wire.noise == operation.noise)
        }
    }
}
